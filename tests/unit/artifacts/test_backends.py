"""Who keeps a value: the table, backends of one's own and of packages, and what is told without MLflow."""

import importlib.metadata
import sys

import numpy as np
import pytest

from mltraq_ds import artifact_store, delete, get, options, save
from mltraq_ds.artifacts import Kept, backends
from mltraq_ds.artifacts.flavors import FLAVORS, flavor_of
from mltraq_ds.artifacts.mlflow_uris import absolute, check_answers, without_secrets
from mltraq_ds.errors import ArtifactBackendError, LeftoversWarning, MissingExtraError, UsageError
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
        check_answers("http://ada:canary@127.0.0.1:9")
    assert "canary" not in str(caught.value)
    check_answers("sqlite:///x.db")
