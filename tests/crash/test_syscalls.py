"""The system itself refuses: system calls made to fail by strace, full file systems, folders that are read-only."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import ACTIONS, SUBJECT, Action, Scene, build, check_promise, fill

from mltraq_ds import DataStoreIO, options
from mltraq_ds.errors import MltraqDSError, MltraqDSWarning
from mltraq_ds.tracking import Session

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
_OUTCOME_BYTES = 2**16
#: What else is done to a store, beside the writes that the other tests share.
WORK = {
    **ACTIONS,
    "copy": Action(lambda session: session.load_experiment(SUBJECT).copy_to(name="copy"), "copy", None, 1),
    "sweep": Action(lambda session: session.sweep(dry_run=False, grace_s=0), SUBJECT, 1, 1),
    "rebuild": Action(lambda session: session.rebuild_index(), SUBJECT, 1, 1),
    "check": Action(lambda session: session.check(deep=True), SUBJECT, 1, 1),
    "write": Action(lambda session: DataStoreIO.write(b"of the user", "self_managed/x", store=session), SUBJECT, 1, 1),
}
needs_root = pytest.mark.skipif(not IS_ROOT, reason="mounting needs root")
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed; .ci/run installs it, or: apt-get install strace"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("template") / "scene")


def act(root: Path, name: str, gate: Path | None, user: int | None, outcome: Path) -> None:
    """Do it with full durability, once the gate is open; leave the error, or "done", in a file."""
    options.set("tqdm.disable", True)
    with options.ctx({"datastore.durability": "full"}):
        session = Session(Scene(root).database_url, Scene(root).store)
    session.ls()  # everything is imported and open before calls begin to fail
    with open(outcome, "r+b") as file:
        telling = mmap.mmap(file.fileno(), _OUTCOME_BYTES)  # memory: no call that could be made to fail
    if gate is not None:
        (gate / "ready").touch()
        while not (gate / "open").exists():
            time.sleep(0.005)
    if user is not None:
        os.setgid(user)
        os.setuid(user)
    result: object = "done"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            WORK[name].run(session)
        except MltraqDSError as error:
            result = error
    foreign = [w.message for w in told if not issubclass(w.category, (MltraqDSWarning, ResourceWarning))]
    if foreign:
        result = AssertionError(foreign)
    data = pickle.dumps(result)
    telling[: len(data)] = data


def outcome_of(tmp_path: Path, root: Path, name: str, *, inject: str | None = None, user: int | None = None) -> object:
    """Do it in a child, under strace if something is to be injected; return its error, or "done"."""
    outcome = tmp_path / "outcome"
    outcome.unlink(missing_ok=True)
    outcome.write_bytes(bytes(_OUTCOME_BYTES))
    outcome.chmod(0o666)
    if inject is None:
        child = children.run(tmp_path, act, root, name, None, user, outcome)
    else:
        gate = tmp_path / "gate"
        shutil.rmtree(gate, ignore_errors=True)
        gate.mkdir()
        child = children.start(tmp_path, act, root, name, gate, user, outcome)
        _wait_for(gate / "ready", child)
        command = ["strace", "-f", "-qq", "-o", str(tmp_path / "strace"), "-p", str(child.process.pid), "-e", inject]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
            _wait_until_traced(child, strace)
            (gate / "open").touch()
            child.wait()
    data = outcome.read_bytes()
    assert data.strip(b"\0"), child.said()
    result = pickle.loads(data)
    assert not isinstance(result, AssertionError), result
    return result


def struck(tmp_path: Path) -> int:
    """Return how many calls strace made fail in the last child."""
    return (tmp_path / "strace").read_text(errors="replace").count("(INJECTED)")


def _wait_for(path: Path, child: children.Child) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, child.said()
        assert child.process.exitcode is None, child.said()
        time.sleep(0.005)


def _wait_until_traced(child: children.Child, strace: subprocess.Popen) -> None:
    deadline = time.monotonic() + 30
    while "TracerPid:\t0" in Path(f"/proc/{child.process.pid}/status").read_text():
        if strace.poll() is not None or time.monotonic() > deadline:
            child.kill()
            raise AssertionError(f"strace could not attach: {strace.stderr.read().decode()}")
        time.sleep(0.005)


def check_message(error: object, number: int) -> None:
    """An error of the storage has its number, and says in one sentence what failed and what to do."""
    assert isinstance(error, OSError), repr(error)
    assert isinstance(error, MltraqDSError)
    assert error.errno == number, repr(error)
    assert errno.errorcode[number] in str(error)
    assert "\n" not in str(error)
    assert " failed because of: " in str(error)


INJECTIONS = [
    ("link", "ENOSPC"),
    ("link", "EIO"),
    ("fsync", "EIO"),
    ("fsync", "ENOSPC"),
    ("rename", "EIO"),
    ("mkdir", "ENOSPC"),
    ("write,writev", "ENOSPC"),
    ("write,writev", "EIO"),
    ("unlink", "EIO"),
]


@needs_strace
@pytest.mark.parametrize(("calls", "code"), INJECTIONS, ids=lambda value: value.replace(",", "-"))
@pytest.mark.parametrize("name", ["update", "replace"])
def test_a_system_call_fails_once(template, tmp_path, name, calls, code):
    """Whichever call of a kind fails, once, the old or the new version is complete and the error says what to do."""
    action = ACTIONS[name]
    errors = 0
    for when in (1, 2, 4, 7):
        scene = template.copy_to(tmp_path / f"{when}")
        error = outcome_of(tmp_path, scene.root, name, inject=f"inject={calls}:error={code}:when={when}")
        try:
            found = check_promise(scene, action, goes_on=when == 1)
            if error == "done":
                assert found == action.after
            else:
                errors += 1
                check_message(error, getattr(errno, code))
        except BaseException as failure:
            failure.add_note(f"{calls} number {when} failed; the writer got {error!r}")
            raise
    # A name that cannot be removed is a leftover and no error; only a replace makes folders.
    assert errors or calls in ("unlink", "rename") or (calls == "mkdir" and name == "update")


@needs_strace
@pytest.mark.soak
@pytest.mark.parametrize(
    ("calls", "code"),
    [*INJECTIONS, ("rename", "ENOSPC"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("fdatasync", "EIO")],
    ids=lambda value: value.replace(",", "-"),
)
@pytest.mark.parametrize("name", [*ACTIONS, "copy", "sweep"])
def test_every_system_call_fails(template, tmp_path, name, calls, code):
    """As above, for every single call, and for all calls from one on, until no call is left to fail."""
    action = WORK[name]
    n_runs = 0
    for suffix in ("", "+"):
        for when in itertools.count(1):
            scene = template.copy_to(tmp_path / f"{when}{suffix}")
            error = outcome_of(tmp_path, scene.root, name, inject=f"inject={calls}:error={code}:when={when}{suffix}")
            if calls == "fdatasync" or name == "sweep":
                # What SQLite could not flush it calls failed, and the next process finds it carried out: a dead claim.
                # A sweep that could not remove its lease is run again, as a user would.
                scene.session().sweep(dry_run=False, grace_s=0)
            found = check_promise(scene, action)
            assert found == action.after or error != "done", (calls, code, when, suffix)
            shutil.rmtree(scene.root)
            if not struck(tmp_path):
                assert error == "done"
                break
            n_runs += 1
    print(f"{name}: {calls} failed with {code} in {n_runs} runs")


@contextmanager
def mounted(folder: Path, *options_: str):
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *options_, str(folder)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=50"])
def test_a_full_file_system(tmp_path, limit):
    """With no bytes or inodes left a persist fails with ENOSPC, changes nothing, and works when there is room again."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", limit, "none") as folder:
        ballast = [folder / f"ballast-{number}" for number in range(10)]
        for path in ballast:
            path.write_bytes(bytes(30_000))
        session = Session(Scene(tmp_path).database_url, folder / "store")
        fill(session.create_experiment("one"), 1).persist()
        others = []
        with pytest.raises(OSError) as caught:
            for number in range(100):
                others.append(fill(session.create_experiment(f"more {number}"), 2))
                others[-1].persist()
        check_message(caught.value, errno.ENOSPC)
        with pytest.raises(OSError) as caught:  # the lease of a sweep is a file, too
            while True:
                session.sweep(dry_run=False, grace_s=0)
                DataStoreIO.write(bytes(100 if limit.startswith("nr") else 3000), "filling/up", store=session)
        check_message(caught.value, errno.ENOSPC)
        DataStoreIO.delete("filling", store=session)
        failed = others.pop()
        assert set(session.ls().name) == {"one", *(other.name for other in others)}
        assert not list((folder / "store").rglob(".tmp-*"))
        assert not list((folder / "store/_pending").iterdir())
        for path in ballast:  # a delete is a commit, and needs a little room itself
            path.unlink()
        failed.persist()
        assert failed.name in set(session.ls().name)


@needs_root
def test_a_file_system_that_turns_read_only(template, tmp_path):
    """On a file system that was remounted read-only every write fails with EROFS, reading goes on, nothing changes."""
    scene = template.copy_to(tmp_path / "scene")
    with mounted(scene.store, "--bind", str(scene.store)) as folder:
        before = scene.state()
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        for name in ("new", "update", "replace", "delete", "copy", "sweep", "write"):
            check_message(outcome_of(tmp_path, scene.root, name), errno.EROFS)
        for name in ("check", "rebuild"):  # they read; the database is elsewhere
            assert outcome_of(tmp_path, scene.root, name) == "done"
        assert scene.state() == before
        subprocess.run(["mount", "-o", "remount,rw,bind", str(folder)], check=True)
        check_promise(scene, ACTIONS["update"], must_be=1)


@needs_root
def test_a_folder_of_somebody_else(template):
    """A user who may only read gets EACCES from every write, and nothing changes."""
    root = Path("/var/tmp") / f"mltraq-ds-{os.getpid()}"  # a folder that another user may enter
    try:
        scene = template.copy_to(root)
        root.chmod(0o755)
        before = scene.state()
        for path in root.glob("index.db*"):
            path.chmod(0o666)
        root.chmod(0o777)
        for name in ("new", "update", "replace", "delete"):
            error = outcome_of(root, scene.root, name, user=65534)
            check_message(error, errno.EACCES)
        assert scene.state() == before
    finally:
        shutil.rmtree(root, ignore_errors=True)
