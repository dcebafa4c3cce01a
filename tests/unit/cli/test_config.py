"""`config show`, `config init` and `config check`."""

import json
import re
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from mltraq_ds import create_session, options
from mltraq_ds.option_files import NAMES, user_folder
from mltraq_ds.option_table import OPTIONS
from mltraq_ds.option_writing import toml_text
from mltraq_ds.settings import resolve

SECRET = "hunter2"
VALUES = {
    "artifacts.default_ml_models_storage_backend": "native",
    "database.echo": True,
    "database.url": 'sqlite:////tmp/a "b"\\\t\x7fü😀.db',
    "datastore.durability": "relaxed",
    "datastore.mmap": False,
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


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path, monkeypatch):
    """Keep the user's own configuration out, and the working folder beside it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def rows(result):
    """Return what a table says, by option."""
    assert result.exit_code == 0, result.output
    return {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines()[1:]}


def test_show(command, monkeypatch):
    """Every option is listed; with `--origin` flag, variable, file and line are named; nothing secret is shown."""
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", f"postgresql://ada:{SECRET}@h/lab")
    Path(NAMES[0]).write_text(f'[storage_options]\nkey = "{SECRET}"\n[tqdm]\ndisable = true\n')
    place = Path(NAMES[0]).absolute()
    found = rows(command("config", "show", "--origin", "--option", "execution.n_jobs=3"))
    assert list(found) == list(OPTIONS)
    assert found["execution.n_jobs"] == "3 command line"
    assert found["database.url"] == "'postgresql://ada:***@h/lab' environment MLTRAQ_DS_DATABASE_URL"
    assert found["datastore.storage_options"] == f"{{***}} file {place}:1"
    assert found["tqdm.disable"] == f"True file {place}:4"
    assert found["datastore.verify"] == "'crc' default"
    assert rows(command("config", "show"))["tqdm.disable"] == "True"
    assert rows(command("options")) == rows(command("config", "show", "--origin"))
    assert SECRET not in command("config", "show", "--origin").output


def test_flags_are_weaker_than_the_program(command):
    """A flag beats a variable and a file; what a program sets beats the flag."""
    options.set("execution.n_jobs", 5)
    assert rows(command("config", "show", "--origin", "--option", "execution.n_jobs=3"))["execution.n_jobs"] == "5 set"
    options.reset()
    assert options.get("execution.n_jobs") == 1


@pytest.mark.parametrize("is_set", [True, False])
def test_what_is_written_reads_back(is_set):
    """The file means the same as the options that it was written from, whatever characters they have."""
    for name, value in VALUES.items() if is_set else ():
        options.set(name, value)
    wanted = dict(resolve())
    text = toml_text(resolve(), may_allow_pickle=True)
    options.reset()
    user_folder().mkdir(parents=True)
    (user_folder() / NAMES[0]).write_text(text, encoding="utf-8")
    assert dict(resolve()) == wanted
    assert {resolve().origin(name).partition(" ")[0] for name in VALUES} == {"file" if is_set else "default"}


def test_every_line_can_be_put_in_force():
    """Each option has its meaning, its default and its variables; with the marks removed the file has the defaults."""
    text = toml_text(resolve())
    assert not [option.name for option in OPTIONS.values() if f"# {option.doc}\n" not in text]
    lines = [re.sub(r"^# (?=[\w.]+ = \S)", "", line) for line in text.splitlines()]
    parsed = tomllib.loads("\n".join(lines))
    Path(NAMES[0]).write_text("\n".join(lines))
    assert dict(resolve()) == {option.name: option.default for option in OPTIONS.values()}
    assert parsed["serialization"] == {"allow_pickle": False, "compression": {"codec": "uncompressed"}}


def test_init(command, monkeypatch, tmp_path):
    """The file has what flags and variables say; one that is there is left as it is."""
    monkeypatch.setenv("MLTRAQ_DS_ARTIFACT_STORAGE_DIR", "elsewhere")
    assert command("config", "init", "--option", "execution.n_jobs=4").exit_code == 0
    monkeypatch.delenv("MLTRAQ_DS_ARTIFACT_STORAGE_DIR")
    found = rows(command("config", "show", "--origin"))
    assert found["execution.n_jobs"].startswith(f"4 file {Path(NAMES[0]).absolute()}:")
    assert found["datastore.url"].startswith("'elsewhere' file")
    before = Path(NAMES[0]).read_bytes()
    result = command("config", "init")
    assert (result.exit_code, Path(NAMES[0]).read_bytes()) == (2, before)
    assert "exists" in result.stderr
    assert command("config", "init", "--user").exit_code == 0
    assert (user_folder() / NAMES[0]).is_file()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("MLTRAQ_DS_HOME", str(tmp_path / "home"))
    assert command("config", "init").exit_code == 0
    assert [path.name for path in (tmp_path / "home").iterdir()] == [NAMES[0]]


@pytest.mark.parametrize(
    "given",
    [
        {"profile": "lab"},
        {"anon": True, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "eu"}},
        {"endpoint_url": 'http://h/"\\', "port": 22, "verify": False},
    ],
)
def test_init_writes_storage_options_without_secrets(command, given):
    """They read back identically."""
    assert command("config", "init", "--option", f"storage_options={json.dumps(given)}").exit_code == 0
    options.reload()
    assert resolve()["datastore.storage_options"] == given
    assert resolve().origin("datastore.storage_options").startswith("file")


@pytest.mark.parametrize(
    "given",
    [
        {"profile": "lab", "secret": SECRET},
        {"client_kwargs": {"aws_secret_access_key": SECRET}},
        {"some_new_option": SECRET},
        {"endpoint_url": f"http://ada:{SECRET}@h"},
        {"profile": None},
        {"profile": ["lab"]},
    ],
)
def test_init_writes_no_storage_options_that_may_hold_a_secret(command, given):
    """One name that is not known to be harmless, or that TOML cannot hold, and none of them is written."""
    result = command("config", "init", "--option", f"storage_options={json.dumps(given)}")
    assert result.exit_code == 0
    assert "Warning: datastore.storage_options was not written" in result.stderr
    assert SECRET not in Path(NAMES[0]).read_text() + result.output
    options.reload()
    assert resolve()["datastore.storage_options"] == {}


def test_init_writes_no_secret(command):
    """Secrets, and what a working folder may not say, are left out, which is said; the file can be read."""
    flags = ["--database", f"postgresql://ada:{SECRET}@h/lab", "--option", f'storage_options={{"key": "{SECRET}"}}']
    flags += ["--option", "mlflow.tracking_uri=http://127.0.0.1:9", "--option", "serialization.allow_pickle=true"]
    result = command("config", "init", *flags)
    assert result.exit_code == 0
    for name in ("database.url", "datastore.storage_options", "mlflow.tracking_uri", "serialization.allow_pickle"):
        assert f"Warning: {name} was not written" in result.stderr
    assert SECRET not in Path(NAMES[0]).read_text() + result.output
    assert rows(command("config", "show", "--origin"))["database.url"] == "'sqlite:///mltraq.db' default"


def test_check(command, experiment):
    """Both are tried, nothing of the probe is left, and it is said whether they belong together."""
    result = command("config", "check", "--store", "new", "--database", "sqlite:///new.db")
    assert result.exit_code == 0, result.output
    assert "together: the store is new" in result.stdout
    assert not Path("new").exists()
    with closing(sqlite3.connect("new.db")) as database:
        assert database.execute("SELECT count(*) FROM mltraq_stores").fetchone() == (0,)
    before = sorted(Path("mltraq.datastore").rglob("*"))
    result = command("config", "check")
    assert result.exit_code == 0, result.output
    assert re.search(r"file: none\ndatabase: .*SQLite 3.*stores: 1, experiments: 1.*deleted", result.stdout)
    assert "the database knows the store" in result.stdout
    assert sorted(Path("mltraq.datastore").rglob("*")) == before


@pytest.fixture
def experiment():
    """Return an experiment that was persisted in the working folder."""
    return create_session().create_experiment("e").persist()


def test_check_of_what_does_not_work(command, experiment, unused_port):
    """Each failure is said with its remedy, the other is tried all the same, and the exit code is 1."""
    result = command("config", "check", "--database", f"postgresql://ada:{SECRET}@127.0.0.1:{unused_port}/lab")
    assert result.exit_code == 1
    assert "database: FAILED." in result.stdout
    assert "Start the server" in result.stdout
    assert "storage: file://" in result.stdout
    assert SECRET not in result.output
    Path("file").write_text("")
    result = command("config", "check", "--store", "file/x")
    assert result.exit_code == 1
    assert "storage: FAILED." in result.stdout


def test_check_of_mismatched_locations(command, experiment):
    """A store that the database does not know is said, with the remedy."""
    result = command("config", "check", "--database", "sqlite:///other.db")
    assert result.exit_code == 1
    assert re.search("together: FAILED.*does not know the store.*rebuild_index", result.stdout)
