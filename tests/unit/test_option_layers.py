"""Environment, configuration file and command line as layers of options."""

import errno
import json
import os
import pickle
import subprocess
import sys
import threading

import pytest

from mltraq_ds import create_session, options
from mltraq_ds.errors import UnknownOptionError, UsageError
from mltraq_ds.option_environment import VARIABLES, variable_of
from mltraq_ds.option_files import NAMES
from mltraq_ds.option_table import ALIASES, OPTIONS
from mltraq_ds.settings import resolve

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Return the folders that may have a file: home, working folder, user's configuration; all are empty."""
    found = {name: tmp_path / name for name in ("home", "here", "user")}
    for folder in found.values():
        folder.mkdir()
    (found["user"] / "mltraq_ds").mkdir()
    monkeypatch.chdir(found["here"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(found["user"]))
    return {**found, "user": found["user"] / "mltraq_ds"}


def test_precedence(places, monkeypatch):
    """An argument beats ctx, ctx set, set the command line, that the environment, that the file, that the default."""
    name = "execution.n_jobs"
    seen = [(options.get(name), options.origin(name))]
    (places["here"] / NAMES[0]).write_text("[execution]\nn_jobs = 2\n")
    options.reload()
    seen.append((options.get(name), options.origin(name)))
    monkeypatch.setenv("MLTRAQ_DS_EXECUTION_N_JOBS", "3")
    options.reload()
    seen.append((options.get(name), options.origin(name)))
    with options.command_line({name: 4}):
        seen.append((options.get(name), options.origin(name)))
        options.set(name, 5)
        seen.append((options.get(name), options.origin(name)))
        with options.ctx({name: 6}):
            seen.append((options.get(name), options.origin(name)))
            assert resolve({name: 7})[name] == 7
    assert seen == [
        (1, "default"),
        (2, f"file {places['here'] / NAMES[0]}:2"),
        (3, "environment MLTRAQ_DS_EXECUTION_N_JOBS"),
        (4, "command line"),
        (5, "set"),
        (6, "ctx"),
    ]


TEXTS = {
    "artifacts.default_ml_models_storage_backend": ("mlflow", "mlflow"),
    "database.echo": ("true", True),
    "database.url": ("postgres://localhost/lab", "postgres://localhost/lab"),
    "datastore.cache_bytes": ("1000000", 1000000),
    "datastore.cache_dir": ("/cache", "/cache"),
    "datastore.client": ("obstore", "obstore"),
    "datastore.durability": ("relaxed", "relaxed"),
    "datastore.mmap": ("False", False),
    "datastore.storage_options": (
        '{"anon": true, "client_kwargs": {"a": [1]}}',
        {"anon": True, "client_kwargs": {"a": [1]}},
    ),
    "datastore.url": ("s3://bucket/lab", "s3://bucket/lab"),
    "datastore.verify": ("none", "none"),
    "execution.backend": ("none", None),
    "execution.n_jobs": ("-1", -1),
    "mlflow.registry_uri": ("5000", "5000"),
    "mlflow.tracking_uri": ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    "reproducibility.random_seed": ("0", 0),
    "reproducibility.sequential_uuids": ("TRUE", True),
    "serialization.allow_pickle": ("true", True),
    "serialization.compression.codec": ("zstd", "zstd"),
    "tqdm.disable": ("true", True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_variable(name, monkeypatch):
    """Each option is set by its variable, in the words of its type."""
    text, value = TEXTS[name]
    monkeypatch.setenv(variable_of(name), text)
    assert options.get(name) == value
    assert options.origin(name) == f"environment {variable_of(name)}"


def test_variables_are_told_apart():
    """No two options share a variable; an alias that has the same one means the same option."""
    assert {VARIABLES[variable_of(name)] for name in OPTIONS} == set(OPTIONS)
    assert len({variable_of(name) for name in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_names_of_lineapy(alias, name, places, monkeypatch):
    """The names that users of LineaPy know work with every verb, in variables and in files."""
    text, value = TEXTS[name]
    options.set(alias, value)
    assert options.get(alias) == options.get(name) == resolve()[alias] == value
    assert options.origin(alias) == "set"
    options.reset(alias)
    assert options.get(name) == OPTIONS[name].default
    with options.ctx({alias: value}):
        assert options.get(name) == value
    assert resolve({alias: value})[name] == value
    (places["user"] / NAMES[1]).write_text(json.dumps({alias: value}))
    options.reload()
    assert (options.get(name), options.origin(name)) == (value, f"file {places['user'] / NAMES[1]}:1")
    (places["user"] / NAMES[1]).unlink()
    monkeypatch.setenv(variable_of(alias), text)
    options.reload()
    assert options.get(name) == value


def test_which_file(places, monkeypatch):
    """The file of MLTRAQ_DS_HOME is read, else that of the working folder, else the user's; others are left alone."""

    def found():
        options.reload()
        return options.get("execution.n_jobs")

    for n_jobs, (place, name) in enumerate([("user", NAMES[1]), ("here", NAMES[0]), ("home", NAMES[1])], start=2):
        text = f'{{"execution": {{"n_jobs": {n_jobs}}}}}' if name.endswith("json") else f"execution.n_jobs = {n_jobs}"
        (places[place] / name).write_text(text)
        if place == "home":
            assert found() == 3
            monkeypatch.setenv("MLTRAQ_DS_HOME", str(places["home"]))
        assert found() == n_jobs
    (places["home"] / NAMES[1]).unlink()
    assert found() == 3
    (places["here"] / NAMES[0]).unlink()
    assert found() == 2


FORMS = [
    ("json", '{"database.url": "sqlite:///a.db"}'),
    ("json", '{"database": {"url": "sqlite:///a.db"}}'),
    ("json", '\ufeff{"database_url": "sqlite:///a.db"}'),
    ("toml", 'database.url = "sqlite:///a.db"'),
    ("toml", '[database]\nurl = "sqlite:///a.db"'),
    ("toml", '"database.url" = "sqlite:///a.db"'),
    ("toml", 'database_url = "sqlite:///a.db"  # LineaPy\'s name'),
]


@pytest.mark.parametrize(("kind", "text"), FORMS)
def test_forms_of_files(kind, text, places):
    """Groups, dotted names and LineaPy's names mean the same, in JSON and in TOML."""
    (places["here"] / f"mltraq_ds_config.{kind}").write_text(text, encoding="utf-8")
    assert options.get("database.url") == "sqlite:///a.db"


BAD_FILES = [
    ("json", '{\n "database": {\n  "uri": 1}}', UnknownOptionError, r"'database.uri' \(in .*json:3\).*'database.url'"),
    ("json", '{"execution": {"backend": null,\n "n_jobs": "two"}}', UsageError, r"int other than 0.*json:2"),
    ("json", '{\n"databas": {}}', UnknownOptionError, r"'databas' \(in .*json:2\)"),
    ("json", '{"database": 3}', UnknownOptionError, "is a group"),
    ("json", '{"a": 1,\n "a": 2}', UsageError, "'a' is there twice"),
    (
        "json",
        '{"database_url": "a",\n "database": {"url": "b"}}',
        UsageError,
        r"two values, in .*json:1 and in .*json:2",
    ),
    ("json", "[1]", UsageError, "no JSON object"),
    ("json", '{\n"a": }', UsageError, r"json:2 is not JSON"),
    ("json", "[" * 100_000, UsageError, "is not JSON"),
    ("toml", "a = ,", UsageError, r"not TOML.*line 1"),
    ("toml", 'x = """\n[database]\nurl = 3\n"""\n[database]\nurl = 3', UnknownOptionError, r"'x' \(in .*toml:1\)"),
    ("toml", '# """\n[database]\necho = false\nurl = [\n3\n]', UsageError, r"type list.* .*toml:4"),
    (
        "toml",
        "[datastore.storage_options]\nkey = 1\n[databse]\nurl = 'x'",
        UnknownOptionError,
        r"'databse.url'.*toml:4",
    ),
]


@pytest.mark.parametrize(("kind", "text", "error", "sentence"), BAD_FILES)
def test_bad_files(kind, text, error, sentence, places):
    """What cannot be used in a file is refused with file and line; what was read before stays."""
    (places["here"] / f"mltraq_ds_config.{kind}").write_text(text)
    with pytest.raises(error, match=sentence):
        options.get("database.url")
    with pytest.raises(error, match=sentence):
        create_session()
    assert [path.name for path in places["here"].iterdir()] == [f"mltraq_ds_config.{kind}"]


def test_bad_places(places, monkeypatch):
    """Two files in one folder, a file that is no text, and a home that is no folder are refused."""
    (places["here"] / NAMES[0]).write_text("")
    (places["here"] / NAMES[1]).write_text("{}")
    with pytest.raises(UsageError, match="two configuration files"):
        options.reload()
    (places["here"] / NAMES[1]).unlink()
    (places["here"] / NAMES[0]).write_bytes(b"\xff")
    with pytest.raises(UsageError, match="cannot be read"):
        options.reload()
    monkeypatch.setenv("MLTRAQ_DS_HOME", str(places["here"] / "nothing"))
    with pytest.raises(UsageError, match="MLTRAQ_DS_HOME.*no folder"):
        options.reload()


def test_a_folder_that_may_not_be_searched(places, monkeypatch):
    """The user's own folder is as good as empty then; that of the variable, which somebody chose, is refused."""
    closed = str(places["user"])
    look = os.stat

    def stat(path, **keywords):
        if os.fspath(path).startswith(closed):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return look(path, **keywords)

    monkeypatch.setattr(os, "stat", stat)
    create_session()
    monkeypatch.setenv("MLTRAQ_DS_HOME", closed)
    with pytest.raises(UsageError, match="MLTRAQ_DS_HOME.*may be searched"):
        create_session()


@pytest.mark.parametrize(
    ("variable", "text", "error", "sentence"),
    [
        ("MLTRAQ_DS_DATABASE_URI", "x", UnknownOptionError, "Did you mean MLTRAQ_DS_DATABASE_URL"),
        ("MLTRAQ_DS_EXECUTION_N_JOBS", "many", UsageError, "expects an int.*MLTRAQ_DS_EXECUTION_N_JOBS"),
        ("MLTRAQ_DS_STORAGE_OPTIONS", "[1]", UsageError, "dictionary.*MLTRAQ_DS_STORAGE_OPTIONS"),
        ("MLTRAQ_DS_STORAGE_OPTIONS", "{" * 100_000, UsageError, "MLTRAQ_DS_STORAGE_OPTIONS"),
        ("MLTRAQ_DS_DATABASE_URL", "", UsageError, "MLTRAQ_DS_DATABASE_URL is empty"),
        ("MLTRAQ_DS_DATABASE_URL", "nonsense", UsageError, "not of the form.*MLTRAQ_DS_DATABASE_URL"),
        ("MLTRAQ_DS_ARTIFACT_STORAGE_DIR", "s4://b", UsageError, "no scheme 's4'.*MLTRAQ_DS_ARTIFACT_STORAGE_DIR"),
    ],
)
def test_bad_variables(variable, text, error, sentence, monkeypatch):
    """What cannot be used in a variable is refused when a session is made, with the name of the variable."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(error, match=sentence):
        create_session()


def test_two_variables_of_one_option(monkeypatch):
    """A variable and LineaPy's may say the same, and nothing else."""
    monkeypatch.setenv("MLTRAQ_DS_ARTIFACT_STORAGE_DIR", "a")
    monkeypatch.setenv("MLTRAQ_DS_DATASTORE_URL", "a")
    assert options.get("datastore.url") == "a"
    monkeypatch.setenv("MLTRAQ_DS_DATASTORE_URL", "b")
    with pytest.raises(
        UsageError, match="two values, in MLTRAQ_DS_ARTIFACT_STORAGE_DIR and in MLTRAQ_DS_DATASTORE_URL"
    ):
        options.reload()
    with pytest.raises(UsageError, match="two values under two names"):
        resolve({"datastore.url": "a", "artifact_storage_dir": "b"})


def test_read_when_a_session_is_made(places, monkeypatch):
    """Variables and file are read when a session is made; sessions made before keep their place."""
    first = create_session()
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", "sqlite:///other.db")
    monkeypatch.setenv("MLTRAQ_DS_ARTIFACT_STORAGE_DIR", "elsewhere")
    assert options.get("database.url") == "sqlite:///mltraq.db"
    second = create_session()
    assert options.get("database.url") == "sqlite:///other.db"
    assert first.database.url == f"sqlite:///{places['here']}/mltraq.db"
    assert second.database.url == f"sqlite:///{places['here']}/other.db"
    assert [session.storage.url.rpartition("/")[2] for session in (first, second)] == ["mltraq.datastore", "elsewhere"]
    options.set("artifact_storage_dir", "third")
    assert create_session().storage.url.endswith("/third")
    assert second.storage.url.endswith("/elsewhere")


def test_the_working_folder_cannot_allow_pickle(places, monkeypatch):
    """A file that came with somebody else's folder cannot let code run; that of the user and of the home can."""
    text = "[serialization]\nallow_pickle = true\n"
    (places["here"] / NAMES[0]).write_text(text)
    with pytest.raises(UsageError, match=r"allow_pickle.*toml:2"):
        create_session()
    monkeypatch.setenv("MLTRAQ_DS_HOME", str(places["home"]))
    with pytest.raises(UsageError, match="allow_pickle"):
        create_session()
    (places["home"] / NAMES[0]).write_text(text)
    create_session()
    assert options.get("serialization.allow_pickle") is True
    (places["here"] / NAMES[0]).write_text("serialization.allow_pickle = false")
    monkeypatch.delenv("MLTRAQ_DS_HOME")
    create_session()
    assert options.get("serialization.allow_pickle") is False


@pytest.mark.parametrize("name", ["mlflow.tracking_uri", "mlflow_tracking_uri", "mlflow.registry_uri"])
def test_the_working_folder_cannot_name_an_mlflow(places, monkeypatch, name):
    """Models are loaded by code that their MLflow keeps, so a file that came with a folder cannot say which it is."""
    text = f'{name} = "http://attacker.example"\n'
    (places["here"] / NAMES[0]).write_text(text)
    with pytest.raises(UsageError, match=r"mlflow\.(tracking|registry)_uri.*toml:1.*Set it in .*variable or in your"):
        create_session()
    (places["here"] / NAMES[0]).rename(places["home"] / NAMES[0])
    monkeypatch.setenv("MLTRAQ_DS_HOME", str(places["home"]))
    create_session()
    assert options.get(ALIASES.get(name, name)) == "http://attacker.example"


def test_no_secret_in_messages(places, monkeypatch):
    """No message, listing or pickle has a secret, wherever it was given."""
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"postgresql://ada:{SECRET}@h/lab")
    monkeypatch.setenv("MLTRAQ_DS_MLFLOW_TRACKING_URI", f"http://ada:{SECRET}@h:5000")
    (places["here"] / NAMES[0]).write_text(f'[storage_options]\nkey = "{SECRET}"\n')
    settings = resolve()
    texts = [
        repr(options),
        repr(settings),
        pickle.dumps(settings).decode("latin-1"),
        settings.origin("storage_options"),
    ]
    assert settings["storage_options"] == {"key": SECRET}
    monkeypatch.setenv("MLTRAQ_DS_EXECUTION_N_JOBS", SECRET)
    (places["here"] / NAMES[0]).write_text(f'tqdm.disable = "{SECRET}"\n')
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            options.reload()
        texts += [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
        monkeypatch.delenv("MLTRAQ_DS_EXECUTION_N_JOBS", raising=False)
    assert not [text for text in texts if SECRET in text]


def read_options(run):
    """Note what a step sees."""
    run.fields.n = options.get("reproducibility.random_seed")
    run.fields.verify = options.get("datastore.verify")
    run.fields.pid = os.getpid()
    try:
        run.fields.database = options.get("database.url")
    except UsageError as error:
        run.fields.database = str(error)


@pytest.mark.parametrize("backend", ["loky", "threading", "sequential"])
def test_workers_have_the_options_of_the_caller(backend, places, monkeypatch):
    """Steps see the options that the caller had, in threads and processes; a secret comes from the environment only."""
    options.set("datastore.verify", "digest")
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"postgresql://ada:{SECRET}@h/lab")
    with options.ctx({"reproducibility.random_seed": 7}):
        experiment = create_session(url="sqlite:///a.db").create_experiment().add_runs(x=[1, 2])
        experiment.execute(read_options, n_jobs=2, backend=backend)
    for run in experiment.runs.values():
        assert (run.fields.n, run.fields.verify) == (7, "digest")
        assert (run.fields.pid == os.getpid()) == (backend != "loky")
        assert SECRET in run.fields.database or "may hold a secret" in run.fields.database


def test_settings_travel_without_secrets(monkeypatch):
    """A secret that was set stays behind, and asking for it is an error; one from the environment is read there."""
    options.set("database.url", f"postgresql://ada:{SECRET}@h/lab")
    sent = pickle.dumps(resolve({"execution.n_jobs": 3}))
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", "sqlite:///wrong.db")
    options.reset()
    with options.given(pickle.loads(sent)):
        assert options.get("execution.n_jobs") == 3
        with pytest.raises(UsageError, match="secret"):
            options.get("database.url")
        assert resolve({"database.url": "sqlite://"})["database.url"] == "sqlite://"
        with options.ctx({"execution.n_jobs": 4}):
            assert options.get("execution.n_jobs") == 4
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"postgresql://ada:{SECRET}@h/lab")
    options.reset()
    sent = pickle.dumps(resolve())
    assert SECRET.encode() not in sent
    options.reset()
    with options.given(pickle.loads(sent)):
        assert SECRET in options.get("database.url")


def test_threads_reading_at_once(places):
    """Many threads that make sessions while variables change see one state or the other, and none fails."""
    seen, errors = set(), []

    def work():
        try:
            for _ in range(20):
                seen.add(create_session().database.url.rpartition("/")[2])
        except UsageError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40):
        os.environ["MLTRAQ_DS_DATABASE_URL"] = f"sqlite:///{number % 2}.db"
    del os.environ["MLTRAQ_DS_DATABASE_URL"]
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen <= {"0.db", "1.db", "mltraq.db"}


def test_importing_reads_nothing(places):
    """A broken file and a broken variable are no matter until options are asked for."""
    (places["here"] / NAMES[0]).write_text("nonsense")
    script = "import mltraq_ds, mltraq_ds.settings, mltraq_ds.tracking\nprint('imported')\nmltraq_ds.create_session()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MLTRAQ_DS_NONSENSE": "1"}
    child = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert child.stdout == "imported\n"
    assert "MLTRAQ_DS_NONSENSE is refused" in child.stderr
