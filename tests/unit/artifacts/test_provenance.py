"""The code that saved an artifact: found, kept, and without secrets."""

import linecache
import os
import platform
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest

from mltraq_ds import get, options, save
from mltraq_ds.artifacts import provenance
from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.settings import resolve

SCRIPT = """\
import mltraq_ds as m
import numpy as np
m.options.set("database.url", "sqlite:///index.db")
m.options.set("datastore.url", "store")
m.save(np.ones(3), "x")  # this line
"""


def git(folder, *words):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("layout", ["loose", "packed", "detached", "worktree"])
def test_a_script_in_git(tmp_path, layout):
    """The whole script, its line, the commit (however git keeps it), Python and what was imported."""
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "train.py").write_text(SCRIPT)
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "train.py")
    git(repository, "commit", "-q", "-m", "x")
    folder = repository
    commit = git(repository, "rev-parse", "HEAD")
    if layout == "packed":
        git(repository, "pack-refs", "--all")
    elif layout == "detached":
        git(repository, "checkout", "-q", "--detach")
    elif layout == "worktree":
        folder = tmp_path / "tree"
        git(repository, "worktree", "add", "-q", str(folder))
    assert provenance._commit_of(folder) == commit
    if layout != "loose":
        return  # the rest is the same
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, folder / "train.py"], cwd=tmp_path, check=True, env=environment)
    options.set("datastore.url", str(tmp_path / "store"))
    options.set("database.url", f"sqlite:///{tmp_path}/index.db")
    code = get("x").get_code()
    assert str(code) == code.source == SCRIPT
    assert (code.file, code.line) == ("train.py", 5)
    assert code.git_commit == commit
    assert code.python == platform.python_version()
    assert code.packages["numpy"] == version("numpy")


def test_a_notebook_cell(home, monkeypatch):
    """Of a cell its own source is kept and no other; notebooks give Python the sources of cells by `linecache`."""
    cell = "# this cell\nfrom mltraq_ds import save\nsave(1, 'of a cell')\n"
    monkeypatch.setitem(linecache.cache, "<cell-7>", (len(cell), None, cell.splitlines(keepends=True), "<cell-7>"))
    exec(compile(cell, "<cell-7>", "exec"), {"__name__": "__main__"})
    code = get("of a cell").get_code()
    assert (code.source, code.file, code.line) == (cell, "<cell-7>", 3)


def test_code_without_source(home):
    """Where Python has no source (``-c``, exec) the rest is kept."""
    exec("from mltraq_ds import save; save(1, 'x')", {"__name__": "nowhere"})
    code = get("x").get_code()
    assert code.source == ""
    assert code.packages["mltraq_ds"]


def test_secrets_of_options_are_taken_out(tmp_path):
    """A script that sets a secret as an option, or has it in a URL, is kept without the secret."""
    path = tmp_path / "script.py"
    path.write_text(
        "options.set('datastore.storage_options', {'key': 'AKIA-canary-1', 'client': {'secret': 'canary-2-x'}})\n"
        "options.set('mlflow.registry_uri', 'http://ada:canary-3@127.0.0.1:9')\n"
        "url = 'postgresql://ada:canary-4@db.example/lab?password=canary-5'\n"
        "found = capture(resolve())\n"
    )
    names = {"__name__": "script", "options": options, "capture": provenance.capture, "resolve": resolve}
    exec(compile(path.read_text(), str(path), "exec"), names)
    source = names["found"]["source"]
    assert "canary" not in source
    assert source.count("***") >= 5
    assert source.count("\n") == 4


SECRETS = """\
import os; é = "öffentlich"
open_storage("s3://x", storage_options={"secret": "canary-1", "anon": False})
os.environ["AWS_SECRET_ACCESS_KEY"] = "canary-2"
connect("x", password=b"canary-3", token=f"canary-4{é}"); os.environ.setdefault("API_TOKEN", "canary-5")
db_password: str = (
    "canary-6"
    "canary-7"
)
token = os.environ["NAME_TOKEN"] or os.getenv("OTHER_TOKEN")
title = "\\d stays"  # é
print("canary-8 of the environment")
"""


@pytest.mark.parametrize("first", ["", "%magic of a notebook\n"])
def test_secret_literals_are_taken_out(monkeypatch, first):
    """What is given to a name of a secret, and secrets of the environment, are taken out; all else stays as it is."""
    monkeypatch.setenv("SOME_SECRET", "canary-8")
    lines = (first + SECRETS).splitlines() if not first else [first.strip(), *SECRETS.splitlines()[:3]]
    source = "\n".join(lines) + "\n"
    found = provenance._without_secrets(source, resolve())
    assert "canary" not in found
    assert found.count("\n") == source.count("\n")
    if not first:
        assert found.splitlines()[0] == lines[0]
        assert found.splitlines()[-3:-1] == lines[-3:-1]
        assert 'storage_options={"secret": "***", "anon": False})' in found
        assert 'os.environ["AWS_SECRET_ACCESS_KEY"] = "***"' in found


def test_long_sources_are_cut(home, tmp_path, monkeypatch):
    """A source beyond the limit is kept up to it, and says so."""
    monkeypatch.setattr(provenance, "_MAX_CHARACTERS", 100)
    save(1, "x")
    assert "cut here" in get("x").get_code().source


def test_git_that_cannot_be_read(tmp_path):
    """A repository that is damaged or names strange places gives no commit, and no error."""
    for head in ("ref: refs/../../x", "nonsense", "ref: refs/heads/none"):
        (tmp_path / ".git").mkdir(exist_ok=True)
        (tmp_path / ".git" / "HEAD").write_text(head)
        assert provenance._commit_of(tmp_path) is None


def test_damaged_code(home):
    """Code that is not of its form is an error of its own; the value is still readable."""
    artifact = save(1, "x")
    artifact._version = replace(artifact._version, code={"sauce": ""})
    with pytest.raises(CorruptRecordError, match="code of version 1"):
        artifact.get_code()
    assert artifact.get_value() == 1
