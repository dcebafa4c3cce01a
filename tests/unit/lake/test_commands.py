"""The commands, as typed: what they print, their exit codes, and a store that is versioned by git."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lake_scene import RUNS, Files, expected, open_session, values_of

SECRET = "s3cr3t-canary-51"
BLOBS = 2 * RUNS + 1


def mltraq_ds(*words, **environment):
    """Run a command in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "mltraq_ds.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "MLTRAQ_DS_TQDM_DISABLE": "true", **environment},
        check=False,
    )
    return found.returncode, found.stdout, found.stderr


def test_from_upload_to_clone(session, files, home, tmp_path):
    """The page, in our words: upload, share the pointers, read anywhere, download."""
    store = files.root
    code, out, _ = mltraq_ds("remote", "add", "--input", store, "--output", tmp_path / "out", "--remote", home.root)
    assert (code, f"{BLOBS} uploaded" in out) == (0, True)
    code, out, _ = mltraq_ds("remote", "status", "--input", tmp_path / "out")
    assert (code, f"{BLOBS} remote" in out, "never verified" in out) == (0, True, True)
    code, out, _ = mltraq_ds("remote", "verify", "-i", tmp_path / "out", "--json")
    assert (code, json.loads(out)["actions"]) == (0, {"intact": BLOBS})
    code, _, _ = mltraq_ds("clone", "--input", tmp_path / "out", "--output", tmp_path / "local", "--mode", "DEEP_COPY")
    assert (code, Files(tmp_path / "local").blobs()) == (0, files.blobs())
    code, _, err = mltraq_ds("remote", "remove", "-i", tmp_path / "out", "-r", home.root)
    assert (code, "nowhere else" in err) == (1, True)
    code, _, err = mltraq_ds("remote", "sweep", "-r", home.root, "--refs", tmp_path / "out")
    assert (code, "--yes" in err) == (2, True)
    code, out, _ = mltraq_ds("remote", "sweep", "-r", home.root, "--refs", tmp_path / "out", "--yes", "--grace", "0")
    assert (code, "nothing to do" in out) == (0, True)
    assert values_of(open_session(tmp_path / "out")) == expected()


@pytest.mark.parametrize("verb", ["add", "clone"])
def test_prune_is_asked_for(session, files, home, tmp_path, verb):
    """What has gone from the store is kept, and named; with --prune it goes, and is named too."""
    words = ["remote", "add", "-r", home.root] if verb == "add" else ["clone"]
    words += ["-i", files.root, "-o", tmp_path / "out", "--json"]
    assert mltraq_ds(*words)[0] == 0
    session.delete_experiment("digits")
    code, out, _ = mltraq_ds(*words)
    (note,) = json.loads(out)["notes"]
    assert (code, "kept: experiment 'digits'" in note, "--prune" in note) == (0, True, True)
    assert values_of(open_session(tmp_path / "out")) == expected()
    code, out, _ = mltraq_ds(*words, "--prune")
    (note,) = json.loads(out)["notes"]
    assert (code, "removed: experiment 'digits'" in note) == (0, True)
    assert Files(tmp_path / "out").blobs() == Files(tmp_path / "out").pointers() == {}


def test_failures_have_an_exit_code(session, files, tmp_path):
    """An upload that cannot be done makes the command fail with a summary, not with a debug line."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    code, out, err = mltraq_ds("remote", "upload", "-i", files.root, "-r", blocked)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: ")


def test_secrets_are_written_nowhere(session, files, home, tmp_path):
    """A password in the URL of a remote is in no file, message or traceback."""
    url = f"s3://user:{SECRET}@127.0.0.1:9/bucket?secure=false"
    code, out, err = mltraq_ds("--debug", "remote", "upload", "-i", files.root, "-r", url, "-k", "images")
    assert code != 0
    assert SECRET not in out + err
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.skipif(not os.path.exists("/usr/bin/git"), reason="git is not installed")
def test_the_page_on_git(session, files, home, tmp_path):
    """What the how-to says about git is typed as it stands there: init, commit, push, clone elsewhere, read."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "use-remotes.md").read_text(encoding="utf-8")
    section = page.partition("## Version a store with git")[2].partition("\n## ")[0]
    first, second = re.findall(r"^```(?:console|bash)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "lab").symlink_to(files.root)
    configured = {"user.name": "test", "user.email": "test@example.invalid", "init.defaultBranch": "main"}
    settings = {"GIT_CONFIG_COUNT": str(len(configured))}
    for number, (name, value) in enumerate(configured.items()):
        settings |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    typed = f'python() {{ "{sys.executable}" "$@"; }}\nmltraq-ds() {{ python -m mltraq_ds.cli "$@"; }}'
    said = ""
    for block in (first, second):
        script = re.sub(r"^\$ ", "", block, flags=re.MULTILINE).replace("s3://our-bucket/lake", str(home.root))
        found = subprocess.run(
            ["bash", "-e", "-c", f"{typed}\n{script}"],
            cwd=tmp_path,
            env={**os.environ, **settings, "MLTRAQ_DS_TQDM_DISABLE": "true"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        said = found.stdout
    assert "[3 rows" in said
    assert Files(tmp_path / "elsewhere" / "data").blobs() == {}
    assert values_of(open_session(tmp_path / "elsewhere" / "data")) == expected()


@pytest.mark.skipif(not os.path.exists("/usr/bin/git"), reason="git is not installed")
def test_versioning_with_git(session, files, home, tmp_path):
    """A store of pointers goes through git: two versions, each checked out in a new clone, read their own values."""
    work, bare, other = tmp_path / "work", tmp_path / "bare.git", tmp_path / "other"

    def git(*words, cwd=work):
        who = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *map(str, words)], cwd=cwd, check=True, capture_output=True)

    work.mkdir()
    git("init")
    mltraq_ds("remote", "add", "-i", files.root, "-o", work / "data", "-r", home.root)
    git("add", ".")
    git("commit", "-m", "first version")
    git("tag", "v1")
    experiment = session.load_experiment("digits")
    experiment.runs.first().fields.images.pixels = "replaced"
    experiment.persist(if_exists="update")
    mltraq_ds("remote", "add", "-i", files.root, "-o", work / "data", "-r", home.root)
    git("add", ".")
    git("commit", "-m", "second version")
    changed = subprocess.run(
        ["git", "diff", "--name-status", "v1", "HEAD"], cwd=work, check=True, capture_output=True, text=True
    ).stdout
    assert sorted(line[0] for line in changed.splitlines() if ".remote" in line) == ["A", "D"]
    git("clone", "--bare", work, bare, cwd=tmp_path)
    git("clone", bare, other, cwd=tmp_path)
    newest = open_session(other / "data").load_experiment("digits")
    assert newest.runs.first().fields.images.pixels == "replaced"
    git("checkout", "v1", cwd=other)
    assert values_of(open_session(other / "data")) == expected()
