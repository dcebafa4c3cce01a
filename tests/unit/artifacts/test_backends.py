"""Who keeps a value: the table, backends of one's own and of packages, and what is told without MLflow."""

import importlib.metadata
import socket
import sys
import threading
import traceback
import types
from contextlib import suppress

import numpy as np
import pytest

from mltraq_ds import artifact_store, delete, get, options, save
from mltraq_ds.artifacts import Kept, Version, backends, mlflow
from mltraq_ds.artifacts.flavors import FLAVORS, flavor_of
from mltraq_ds.artifacts.mlflow_uris import absolute, check_answers, without_secrets
from mltraq_ds.errors import (
    ArtifactBackendError,
    ArtifactNotFoundError,
    CorruptRecordError,
    LeftoversWarning,
    MissingExtraError,
    UnsupportedTypeError,
    UsageError,
)
from mltraq_ds.settings import resolve


class Shelf:
    """A backend that keeps lists in a dictionary, and fails when told to."""

    def __init__(self):
        self.kept, self.is_down = {}, False

    def can_store(self, value):
        return isinstance(value, list)

    def save(self, value, saving, settings, **arguments):
        self._ask()
        place = f"{saving.name}/{len(self.kept)}"
        self.kept[place] = (value, arguments)
        return Kept(metadata={"place": place}, digest="shelf:x", size_bytes=7)

    def load(self, version, objects, settings):
        return self.kept[version.metadata["place"]][0]

    def delete(self, version, objects, settings):
        self._ask()
        self.kept.pop(version.metadata["place"], None)

    def describe(self, version, objects):
        return {"url": f"shelf:{version.metadata['place']}"}

    def _ask(self):
        if self.is_down:
            raise ArtifactBackendError("The shelf is down.")


@pytest.fixture
def shelf(monkeypatch):
    """Return a backend that is registered for this test only."""
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))
    found = Shelf()
    backends.register("shelf", found)
    return found


def test_a_backend_of_ones_own(home, shelf):
    """A registered backend keeps what it is asked to, gets all arguments, and is told to let go."""
    artifact = save([1], "x", storage_backend="shelf", label="left")
    assert shelf.kept == {"x/0": ([1], {"label": "left"})}
    assert (artifact.url, artifact.digest, artifact.get_metadata()["size_bytes"]) == ("shelf:x/0", "shelf:x", 7)
    assert get("x").get_value() == [1]
    assert artifact_store().df().storage_backend.tolist() == ["shelf"]
    with pytest.raises(UsageError, match="'shelf' does not take a value of type builtins.dict"):
        save({}, "x", storage_backend="shelf")
    delete("x", 1)
    assert shelf.kept == {}
    with pytest.raises(UsageError, match="exists already"):
        backends.register("shelf", shelf)


def test_a_backend_that_fails(home, shelf):
    """What cannot be kept leaves nothing; what cannot be let go of is deleted here and goes on later."""
    shelf.is_down = True
    with pytest.raises(ArtifactBackendError):
        save([1], "x", storage_backend="shelf")
    assert not (home / "store" / "artifacts").exists()
    shelf.is_down = False
    save([1], "x", storage_backend="shelf")
    shelf.is_down = True
    with pytest.warns(LeftoversWarning, match="call delete"):
        delete("x", 1)
    assert len(artifact_store()) == 0
    shelf.is_down = False
    delete("x", "all")
    assert shelf.kept == {}


def test_a_backend_of_a_package(monkeypatch):
    """A package names its backend by an entry point; one that cannot be loaded is named with what it says."""
    points = [
        importlib.metadata.EntryPoint("good", f"{__name__}:Shelf", backends._ENTRY_POINTS),
        importlib.metadata.EntryPoint("broken", "no_such_package:X", backends._ENTRY_POINTS),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this())
    assert backends.backend_of("good").can_store([])
    assert backends.names() == ["broken", "good", "mlflow", "native"]
    with pytest.raises(UsageError, match=r"'broken' cannot be used because no_such_package:X cannot be loaded"):
        backends.backend_of("broken")


def _this():
    import types

    module = types.ModuleType(__name__)
    module.Shelf = Shelf
    return module


def _model(module, name, monkeypatch, base=object):
    """Return an object of a class that some library would have."""
    kind = type(name, (base,), {"__module__": module})
    library = type(sys)(module)
    setattr(library, name, kind)
    monkeypatch.setitem(sys.modules, module, library)
    return kind


@pytest.mark.parametrize("place", [place for places in FLAVORS.values() for place in places])
def test_models_are_told_by_their_class(place, monkeypatch):
    """Every class of the table and its subclasses have their flavor, and nothing is imported to find out."""
    flavor = next(flavor for flavor, places in FLAVORS.items() if place in places)
    for module in ("sklearn.base", "xgboost", "torch.nn"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    module, _, name = place.partition(":")
    kind = _model(module, name, monkeypatch)
    before = set(sys.modules)
    assert flavor_of(kind()) == flavor_of(type("Mine", (kind,), {})()) == flavor
    assert flavor_of(np.zeros(3)) is None
    assert set(sys.modules) == before


def test_models_with_the_interface_of_sklearn(monkeypatch):
    """A model of xgboost that is an estimator of scikit-learn too is xgboost's."""
    estimator = _model("sklearn.base", "BaseEstimator", monkeypatch)
    model = _model("xgboost", "XGBModel", monkeypatch, estimator)
    assert flavor_of(model()) == "xgboost"
    assert flavor_of(estimator()) == "sklearn"


@pytest.mark.parametrize("uri", [None, "http://127.0.0.1:9"])
@pytest.mark.parametrize("default", [None, "mlflow", "native"])
@pytest.mark.parametrize("argument", [None, "mlflow", "native"])
def test_who_is_chosen(monkeypatch, uri, default, argument):
    """The argument wins, then the option, then the tracking URI; other values than models go to the store."""
    model = _model("sklearn.base", "BaseEstimator", monkeypatch)()
    options.set("mlflow.tracking_uri", uri) if uri else None
    options.set("artifacts.default_ml_models_storage_backend", default) if default else None
    expected = argument or default or ("mlflow" if uri else "native")
    assert backends.choose(model, argument, resolve())[0] == expected
    if argument != "mlflow":
        assert backends.choose([1], argument, resolve())[0] == "native"


def test_without_mlflow(home, monkeypatch):
    """Where MLflow is not installed a model that it should keep is refused with the pip command; nothing is kept."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    options.set("mlflow.tracking_uri", "http://127.0.0.1:9")
    model = _model("sklearn.base", "BaseEstimator", monkeypatch)()
    for argument in (None, "mlflow"):
        with pytest.raises(MissingExtraError, match=r"pip install 'mltraq-ds\[mlflow\]'"):
            save(model, "model", storage_backend=argument)
    assert save([1], "list").storage_backend == "native"
    assert [one.name for one in artifact_store()] == ["list"]


def test_uris(tmp_path, monkeypatch):
    """URIs of MLflow mean the same in any working folder, and are written down without secrets."""
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    assert absolute(f"sqlite:///{tmp_path}/x.db") == f"sqlite:///{tmp_path}/x.db"
    assert absolute("./mlruns") == absolute(f"{tmp_path}/mlruns") == (tmp_path / "mlruns").as_uri()
    assert absolute("http://h:1/") == "http://h:1"
    assert absolute("databricks") == "databricks"
    assert absolute("databricks://profile") == "databricks://profile"
    assert without_secrets("https://ada:pass@h/x?token=y") == "https://h/x?token=***"
    assert without_secrets("postgresql://ada:p%40ss@h/x") == "postgresql://h/x"
    with pytest.raises(
        ArtifactBackendError, match=r"MLflow at http://127.0.0.1:9 does not answer.*tracking_uri"
    ) as caught:
        check_answers("http://ada:canary@127.0.0.1:9", "mlflow.tracking_uri")
    assert "canary" not in str(caught.value)
    check_answers("sqlite:///x.db", "mlflow.tracking_uri")


@pytest.fixture
def strange_port():
    """Return a port where somebody answers who speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with suppress(OSError):
                while True:
                    with server.accept()[0] as peer:
                        peer.recv(1024)
                        peer.sendall(b"220 mail ready\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "uri",
    [
        "http://[",
        "http://ada:canary@localhost:abc",
        "http://127.0.0.1:{strange}",
        "mysql+pymysql://ada:canary@127.0.0.1:9/x",
        "postgresql+psycopg://ada:canary@127.0.0.1:9/x",
        "postgresql+psycopg://ada:canary@[/x",
        "mysql+nosuch://ada:canary@127.0.0.1/x",
        "sqlite:////no/such/folder/x.db",
    ],
)
@pytest.mark.parametrize("option", ["mlflow.tracking_uri", "mlflow.registry_uri"])
def test_whoever_does_not_answer_is_found_out_at_once(strange_port, uri, option):
    """A URI that cannot be used is one sentence with the option that it is from, and no password."""
    uri = uri.format(strange=strange_port)
    with pytest.raises(ArtifactBackendError, match=f"does not answer .*option '{option}'") as caught:
        check_answers(uri, option)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_driver_that_is_missing():
    """Without the driver of MLflow's database the error names it."""
    with pytest.raises(MissingExtraError, match=r"driver of postgresql\+pg8000://.*cannot be imported.*pg8000"):
        check_answers("postgresql+pg8000://ada@127.0.0.1:9/x", "mlflow.tracking_uri")


@pytest.mark.parametrize(
    ("artifact_path", "is_good"),
    [
        ("model", True),
        ("model.v1", True),
        ("a b/model+x=1", True),
        ("..", False),
        ("a/../b", False),
        ("a//b", False),
        ("a%2e%2e", False),
        ("a\\b", False),
        ("/a", False),
    ],
)
def test_paths_inside_of_mlflow(artifact_path, is_good):
    """Whatever may be saved under a path of MLflow 2 can be read back, and no path leaves its run."""
    saving = types.SimpleNamespace(label="artifact 'm'")
    noted = {
        "flavor": "sklearn",
        "run_id": "0" * 32,
        "tracking_uri": "x",
        "model_uri": f"runs:/{'0' * 32}/{artifact_path}",
    }
    version = Version(name="m", number=1, writer="", storage_backend="mlflow", metadata=noted)
    if is_good:
        mlflow._check_path(saving, {"artifact_path": artifact_path})
        assert mlflow._checked(version)[1] == noted["model_uri"]
    else:
        with pytest.raises(UsageError, match="could not be read back from there"):
            mlflow._check_path(saving, {"artifact_path": artifact_path})
        with pytest.raises(CorruptRecordError):
            mlflow._checked(version)


def test_what_backends_are_given_by_us(home, shelf):
    """An argument of a backend's own interface is no argument of a user's; the sentence names it."""
    for name in ("settings", "saving", "self"):
        for backend in ("shelf", "native"):
            with pytest.raises(UsageError, match=f"got '{name}', which the storage backend '{backend}' does not take"):
                save([1], "x", storage_backend=backend, **{name: 1})
    assert shelf.kept == {}


def test_a_default_of_ones_own(home, shelf):
    """A registered backend may be the default; of one that does not exist the nearest name and the option are told."""
    options.set("artifacts.default_ml_models_storage_backend", "shelf")
    assert save([1], "x").storage_backend == "shelf"
    assert save({}, "x").storage_backend == "native"
    options.reset("artifacts.default_ml_models_storage_backend")
    with (
        options.ctx({"artifacts.default_ml_models_storage_backend": "shelv"}),
        pytest.raises(
            UsageError, match=r"no storage backend 'shelv'. Did you mean 'shelf'\?.*storage_backend' is from"
        ),
    ):
        save([1], "x")


def test_a_package_that_is_installed(home, monkeypatch):
    """A package brings a backend by its metadata alone: it is found by name, and may be the default."""
    site = home / "site"
    (site / "ledge-1.0.dist-info").mkdir(parents=True)
    (site / "ledge-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ledge\nVersion: 1.0\n")
    entry = "[mltraq_ds.artifact_backends]\nledge = ledge:Ledge\n"
    (site / "ledge-1.0.dist-info" / "entry_points.txt").write_text(entry)
    (site / "ledge.py").write_text(LEDGE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))
    monkeypatch.delitem(sys.modules, "ledge", raising=False)
    assert "ledge" in backends.names()
    with options.ctx({"artifacts.default_ml_models_storage_backend": "ledge"}):
        assert save((1, 2), "x").storage_backend == "ledge"
    assert get("x").get_value() == (1, 2)
    delete("x", "all")
    sys.modules.pop("ledge")


#: The module of a package that brings a backend, which knows our base classes.
LEDGE = """
from mltraq_ds.artifacts import Backend, Kept


class Ledge(Backend):
    def can_store(self, value):
        return isinstance(value, tuple)

    def save(self, value, saving, settings, **arguments):
        return Kept(metadata={"value": list(value)})

    def load(self, version, objects, settings):
        return tuple(version.metadata["value"])

    def delete(self, version, objects, settings):
        pass

    def describe(self, version, objects):
        return {"url": "ledge:"}
"""


def test_what_native_advises(home, monkeypatch):
    """MLflow is advised for models, and for nothing that it would refuse."""
    estimator = _model("sklearn.base", "BaseEstimator", monkeypatch)
    with pytest.raises(UnsupportedTypeError, match="storage_backend='mlflow'"):
        save(estimator(), "x", storage_backend="native")
    with pytest.raises(UsageError, match="Leave it out, or use storage_backend='mlflow'"):
        save(estimator(), "x", storage_backend="native", registered_model_name="x")
    for arguments in ({}, {"registered_model_name": "x"}):
        with pytest.raises(UsageError) as caught:
            save(object(), "x", storage_backend="native", **arguments)
        assert "mlflow" not in str(caught.value)


def test_options_are_read_before_a_value_is_saved(home, monkeypatch):
    """What the environment says when the session is made holds for that save already."""
    options.reset("artifacts.default_ml_models_storage_backend")
    get_missing()
    monkeypatch.setenv("MLTRAQ_DS_ARTIFACTS_DEFAULT_ML_MODELS_STORAGE_BACKEND", "no such")
    options.set("datastore.url", str(home / "another store"))
    with pytest.raises(UsageError, match=r"'no such'.*MLTRAQ_DS_ARTIFACTS_DEFAULT_ML_MODELS_STORAGE_BACKEND"):
        save([1], "x")


def get_missing():
    """Have options and session read once."""
    with pytest.raises(ArtifactNotFoundError):
        get("x")
