"""A database that cannot be used is an error as soon as it is asked, and the text says which option, and from where."""

import pytest

from mltraq_ds import Database, artifact_store, create_session, options
from mltraq_ds.errors import DatabaseUnavailableError, MissingExtraError, MltraqDSError, UsageError
from mltraq_ds.tracking.default import default_session

#: URL to the error and its reason.
URLS = {
    "foo://x": (UsageError, "SQLAlchemy knows no 'foo'"),
    "postgresql://ada:canary@127.0.0.1:9/lab": (DatabaseUnavailableError, "the server does not answer"),
    "mysql+mysqldb://ada:canary@127.0.0.1:9/lab": (MissingExtraError, "driver cannot be imported"),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return an empty working folder that is ``MLTRAQ_DS_HOME`` too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLTRAQ_DS_HOME", str(tmp_path))
    options.set("tqdm.disable", True)
    return tmp_path


def asked():
    session = create_session()
    yield session.ls
    yield lambda: session.load_experiment("x")
    yield lambda: session.create_experiment("x").persist()
    yield session.database.check
    yield session.database.write_probe
    yield artifact_store


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("place", ["variable", "file"])
def test_what_is_unusable_is_told_with_its_place(home, monkeypatch, url, place):
    """Each way to the database says why it cannot be used, and names the variable, or the file and its line."""
    kind, reason = URLS[url]
    if place == "variable":
        monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", url)
        origin = "MLTRAQ_DS_DATABASE_URL"
    else:
        (home / "mltraq_ds_config.toml").write_text(f'# mine\n[database]\nurl = "{url}"\n')
        origin = "mltraq_ds_config.toml:3"
    for ask in asked():
        with pytest.raises(kind, match=reason) as caught:
            ask()
        assert str(caught.value).count("Option 'database.url' is from: ") == 1
        assert origin in str(caught.value)
        assert "canary" not in str(caught.value)
    assert not (home / "mltraq.datastore").exists()


def test_an_open_database_is_no_option(home, monkeypatch):
    """An error about a statement says nothing of where the URL is from."""
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", "sqlite:///lab.db")
    session = create_session()
    session.create_experiment("x").persist()
    with pytest.raises(UsageError, match="gives no rows") as caught:
        session.query("DELETE FROM mltraq_runs")
    assert "is from" not in str(caught.value)
    session.close()


@pytest.mark.parametrize("url", URLS)
def test_the_caller_knows(home, url):
    """A URL that was given in the call needs no origin; without a store too it is an error."""
    session = create_session(url)
    with pytest.raises(URLS[url][0]) as caught:
        session.ls()
    assert "is from" not in str(caught.value)
    with pytest.raises(MltraqDSError):
        Database(url).check()


def test_looking_makes_nothing(home):
    """Where there is neither store nor database there is nothing, and looking makes nothing."""
    options.set("database.url", f"sqlite:///{home}/lab.db")
    session = create_session()
    assert len(session.ls()) == len(artifact_store()) == 0
    assert list(home.iterdir()) == []
    default_session().close()


def test_a_database_in_no_folder(home):
    """A file of SQLite in a folder that is missing is no empty store."""
    with pytest.raises(DatabaseUnavailableError, match="its file cannot be opened"):
        create_session(f"sqlite:///{home}/no/such/lab.db").ls()
