"""Options: precedence, validation, isolation of threads and tasks, and no secrets in texts."""

import asyncio
import pickle
import threading

import numpy as np
import pytest

from mltraq_ds import options
from mltraq_ds.errors import UnknownOptionError, UsageError
from mltraq_ds.option_table import OPTIONS, redact
from mltraq_ds.settings import resolve

DOCUMENTED = {
    "artifacts.default_ml_models_storage_backend": None,
    "database.echo": False,
    "database.url": "sqlite:///mltraq.db",
    "datastore.cache_bytes": 10 * 2**30,
    "datastore.cache_dir": None,
    "datastore.client": "auto",
    "datastore.durability": "full",
    "datastore.mmap": True,
    "datastore.storage_options": {},
    "datastore.url": "mltraq.datastore",
    "datastore.verify": "crc",
    "execution.backend": None,
    "execution.n_jobs": 1,
    "mlflow.registry_uri": None,
    "mlflow.tracking_uri": None,
    "reproducibility.random_seed": 123,
    "reproducibility.sequential_uuids": False,
    "serialization.allow_pickle": False,
    "serialization.compression.codec": "uncompressed",
    "tqdm.disable": False,
}

VALID = {
    "artifacts.default_ml_models_storage_backend": "native",
    "database.echo": True,
    "database.url": "postgresql://localhost/lab",
    "datastore.cache_bytes": 10**6,
    "datastore.cache_dir": "cache",
    "datastore.client": "fsspec",
    "datastore.durability": "relaxed",
    "datastore.mmap": False,
    "datastore.storage_options": {"anon": True},
    "datastore.url": "s3://bucket/lab",
    "datastore.verify": "digest",
    "execution.backend": "threading",
    "execution.n_jobs": -1,
    "mlflow.registry_uri": "http://127.0.0.1:5000",
    "mlflow.tracking_uri": "sqlite:///mlflow.db",
    "reproducibility.random_seed": 0,
    "reproducibility.sequential_uuids": True,
    "serialization.allow_pickle": True,
    "serialization.compression.codec": "zstd",
    "tqdm.disable": True,
}


def test_defaults():
    """Every option has the default that is documented."""
    assert dict(resolve()) == DOCUMENTED
    assert {name: options.get(name) for name in OPTIONS} == DOCUMENTED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_set_get_reset(name):
    """Each option can be set, read back, and reset."""
    options.set(name, VALID[name])
    assert options.get(name) == VALID[name] == resolve()[name]
    assert options.origin(name) == "set"
    options.reset(name)
    assert options.get(name) == DOCUMENTED[name]
    assert options.origin(name) == "default"


def test_called_or_not():
    """`options()` and `options` are the same thing."""
    options().set("execution.n_jobs", 2)
    assert options.get("execution.n_jobs") == options().get("execution.n_jobs") == 2
    with options().ctx({"execution.n_jobs": 3}):
        assert options.get("execution.n_jobs") == 3
    options().reset()
    assert options.get("execution.n_jobs") == 1


def test_precedence():
    """An argument beats ctx, ctx beats set, set beats the default, and None as an argument is "not given"."""
    name = "execution.n_jobs"
    options.set(name, 2)
    with options.ctx({name: 3}):
        with options.ctx({name: 4, "tqdm.disable": True}):
            assert resolve({name: 5})[name] == 5
            assert resolve({name: None})[name] == 4
            assert options.origin(name) == "ctx"
            options.set(name, 6)
            assert options.get(name) == 4
        assert options.get(name) == 3
        assert options.get("tqdm.disable") is False
    assert options.get(name) == 6


def test_ctx_ends_with_an_error():
    """An error that leaves the block takes the block's options with it."""
    with pytest.raises(RuntimeError), options.ctx({"execution.n_jobs": 3}):
        raise RuntimeError
    assert options.get("execution.n_jobs") == 1


def test_group():
    """The name of a group gives a nested dictionary; a reset of it resets all its options."""
    assert options.get("serialization") == {"allow_pickle": False, "compression": {"codec": "uncompressed"}}
    assert options.get("serialization.compression") == {"codec": "uncompressed"}
    options.set("datastore.verify", "none")
    options.set("datastore.mmap", False)
    options.set("tqdm.disable", True)
    options.reset("datastore")
    assert options.get("datastore") == {n[10:]: v for n, v in DOCUMENTED.items() if n.startswith("datastore.")}
    assert options.get("tqdm.disable") is True


@pytest.mark.parametrize(
    "use",
    [
        options.get,
        options.reset,
        options.origin,
        lambda name: options.set(name, "s3://b"),
        lambda name: options.ctx({name: "s3://b"}).__enter__(),
        lambda name: resolve({name: "s3://b"}),
        lambda name: resolve({name: None}),
    ],
)
def test_unknown_names_fail_everywhere(use):
    """An unknown name is refused by every verb, with the nearest one, and nothing is changed."""
    with pytest.raises(UnknownOptionError, match="no option 'datastore.uri'. Did you mean 'datastore.url'"):
        use("datastore.uri")
    assert dict(resolve()) == DOCUMENTED


def test_a_group_cannot_be_set():
    """A group has no value of its own, and the message names its members."""
    with pytest.raises(UnknownOptionError, match="'datastore' is a group.*'datastore.url'"):
        options.set("datastore", {})
    with pytest.raises(UnknownOptionError, match="no option 3"):
        options.set(3, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("artifacts.default_ml_models_storage_backend", 3),
        ("database.url", 3),
        ("database.url", ""),
        ("database.echo", 1),
        ("datastore.url", b"x"),
        ("datastore.cache_bytes", 0),
        ("datastore.cache_bytes", True),
        ("datastore.cache_dir", "s3://bucket/cache"),
        ("datastore.client", "s3fs"),
        ("datastore.durability", "fsync"),
        ("datastore.durability", None),
        ("datastore.verify", []),
        ("datastore.verify", np.array(["crc", "none"])),
        ("datastore.mmap", "False"),
        ("datastore.storage_options", "{}"),
        ("datastore.storage_options", {1: 2}),
        ("execution.n_jobs", 0),
        ("execution.n_jobs", True),
        ("execution.n_jobs", 2.0),
        ("execution.backend", ""),
        ("mlflow.tracking_uri", 5),
        ("reproducibility.random_seed", -1),
        ("reproducibility.random_seed", 2**32),
        ("serialization.allow_pickle", "yes"),
        ("serialization.compression.codec", "zlib"),
    ],
)
def test_wrong_values_are_refused(name, value):
    """A wrong value is refused by all verbs; the message names the option, the type and what is expected."""
    pattern = rf"Option '{name}' cannot be set to this value \(of type {type(value).__name__}\) because it expects "
    with pytest.raises(UsageError, match=pattern):
        options.set(name, value)
    with pytest.raises(UsageError, match=pattern), options.ctx({"tqdm.disable": True, name: value}):
        pass
    if value is not None:
        with pytest.raises(UsageError, match=pattern):
            resolve({name: value})
    assert dict(resolve()) == DOCUMENTED


def test_values_are_not_shared():
    """A dictionary changed after it was set, or after it was read, changes no option."""
    given = {"client_kwargs": {"region": "a"}, "hosts": ["x"]}
    options.set("datastore.storage_options", given)
    given["client_kwargs"]["region"] = "b"
    given["hosts"].append("y")
    settings = resolve()
    settings["datastore.storage_options"]["client_kwargs"]["region"] = "c"
    options.get("datastore.storage_options").clear()
    expected = {"client_kwargs": {"region": "a"}, "hosts": ["x"]}
    assert settings["datastore.storage_options"] == options.get("datastore.storage_options") == expected


def test_settings_are_immutable_and_pickle():
    """Resolved settings cannot be changed, do not follow later changes, and arrive equal in another process."""
    settings = resolve({"execution.n_jobs": 2})
    options.set("execution.n_jobs", 3)
    assert settings["execution.n_jobs"] == 2
    with pytest.raises(AttributeError, match=r"options\.set"):
        settings._values = {}
    with pytest.raises(TypeError):
        settings["execution.n_jobs"] = 4
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert "execution.n_jobs" in settings
    assert "execution.jobs" not in settings
    assert len(settings) == len(OPTIONS)


def test_threads_do_not_see_ctx():
    """`ctx` holds in its own thread only, `set` in all of them."""
    seen = {}

    def read():
        seen.update({name: options.get(name) for name in ("execution.n_jobs", "tqdm.disable")})

    options.set("tqdm.disable", True)
    with options.ctx({"execution.n_jobs": 7}):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert seen == {"execution.n_jobs": 1, "tqdm.disable": True}


def test_tasks_do_not_see_each_other():
    """Two asyncio tasks that interleave keep their own `ctx`."""

    async def task(n_jobs):
        with options.ctx({"execution.n_jobs": n_jobs}):
            await asyncio.sleep(0.01)
            return options.get("execution.n_jobs")

    async def both():
        return await asyncio.gather(task(2), task(3))

    assert asyncio.run(both()) == [2, 3]


def test_setting_from_many_threads():
    """Options set by many threads at once are all kept."""
    names = [name for name in OPTIONS if name != "datastore.storage_options"]
    threads = [threading.Thread(target=options.set, args=(name, VALID[name])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: options.get(name) for name in names} == {name: VALID[name] for name in names}


def test_no_secret_in_any_text(capsys):
    """Storage options and the passwords in URLs appear in no repr, listing or message."""
    canary = "c4n4ry"
    options.set("datastore.storage_options", {"key": canary, "secret": canary})
    options.set("datastore.url", f"sftp://ada:{canary}/@@x@host/lab?token={canary}")
    options.set("database.url", f"postgresql://ada:{canary}@host/lab?sslmode=require&sslpassword={canary}")
    options.show()
    texts = [repr(options), repr(resolve()), str(resolve()), capsys.readouterr().out]
    for name in ("datastore.durability", "datastore.mmap", "execution.n_jobs"):
        with pytest.raises(UsageError) as caught:
            options.set(name, canary)
        texts.append(str(caught.value))
    assert not [text for text in texts if canary in text]
    assert "sslmode=require" in texts[0]
    assert resolve()["datastore.storage_options"]["key"] == canary


def test_redact_leaves_plain_urls():
    """URLs without secrets are shown as they are."""
    for url in ("sqlite:///mltraq.db", "s3://bucket/a@b", "http://host:9000/x", "memory://"):
        assert redact(url) == url


def test_show_names_origins(capsys):
    """The listing has every option, its value and the layer that it comes from."""
    options.set("tqdm.disable", True)
    with options.ctx({"execution.n_jobs": 2}):
        options.show()
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == sorted(DOCUMENTED)
    assert rows["tqdm.disable"] == ["True", "(set)"]
    assert rows["execution.n_jobs"] == ["2", "(ctx)"]
    assert rows["datastore.mmap"] == ["True", "(default)"]
