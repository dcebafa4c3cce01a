"""Clones and outputs that are brought up to date: what has gone stays unless asked, bytes give way to pointers."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from lake_scene import RUNS, Files, expected, open_session, values_of

from mltraq_ds import DataStore, lake
from mltraq_ds.errors import ConflictError, MltraqDSError, RemotesError, UsageError
from mltraq_ds.lake import following
from mltraq_ds.storage import open_storage
from mltraq_ds.store.files import FileStore

BLOBS = 2 * RUNS + 1

VERBS = {
    "add": lambda session, home, out, **more: lake.add(session, out, remotes=home.root, **more),
    "clone": lambda session, home, out, **more: lake.clone(session, out, **more),
}


def persist_another(session, name="other"):
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.fields.ds = DataStore(w=np.arange(500.0))
    experiment.persist()
    return experiment


def names(store):
    return sorted(open_session(store).ls().name)


def gone(report):
    return [note for note in report.notes if "gone from the source" in note]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", ["deleted", "lost"])
def test_what_has_gone_stays(session, home, tmp_path, verb, how):
    """Deleted cannot be told from lost: the output may have the only copy. It is kept, and that is said each time."""
    other = persist_another(session)
    out = tmp_path / "out"
    assert gone(VERBS[verb](session, home, out)) == []
    before = content(out / other.id_experiment)
    if how == "deleted":
        session.delete_experiment("other")
    else:
        shutil.rmtree(tmp_path / "store" / other.id_experiment)
    for _ in range(2):
        (note,) = gone(VERBS[verb](session, home, out))
        assert note.startswith(f"kept: experiment 'other' ({other.id_experiment})")
        assert "--prune" in note
    assert content(out / other.id_experiment) == before
    assert names(out) == ["digits", "other"]


@pytest.mark.parametrize("verb", VERBS)
def test_what_has_gone_goes_if_asked(session, home, tmp_path, verb):
    """With `prune` it is deleted in the output, and the report says so; nothing of it is left."""
    other = persist_another(session)
    out = tmp_path / "out"
    assert gone(VERBS[verb](session, home, out, prune=True)) == []
    assert names(out) == ["digits", "other"]
    session.delete_experiment("other")
    report = VERBS[verb](session, home, out, prune=True)
    assert gone(report) == [f"removed: experiment 'other' ({other.id_experiment}), gone from the source"]
    assert "note: removed: experiment 'other'" in str(report)
    assert gone(VERBS[verb](session, home, out, prune=True)) == []
    assert names(out) == ["digits"]
    assert not (out / other.id_experiment).exists()
    assert other.id_experiment not in (out / "_clone.json").read_text()
    assert open_session(out).check(deep=True).kinds() == {}
    assert values_of(open_session(out)) == expected()


@pytest.mark.parametrize("verb", VERBS)
def test_what_came_from_elsewhere_stays(session, home, tmp_path, verb):
    """Two stores may go into one output: neither takes away what came from the other, or what was made there."""
    second = open_session(tmp_path / "second")
    persist_another(second)
    out = tmp_path / "out"
    VERBS[verb](second, home, out)
    VERBS[verb](session, home, out)
    persist_another(open_session(out), "made there")
    assert gone(VERBS[verb](session, home, out, prune=True)) == []
    assert gone(VERBS[verb](second, home, out, prune=True)) == []
    assert names(out) == ["digits", "made there", "other"]


def persist_in_clone(session, experiment, out):
    theirs = open_session(out).load_experiment("other")
    theirs.fields.note = "theirs"
    theirs.persist(if_exists="update")


def put_beside(session, experiment, out):
    (out / experiment.id_experiment / "notes.txt").write_text("theirs")


def annotate(session, experiment, out):
    put_notes(out, experiment, "theirs")


def append_log(session, experiment, out):
    with (out / experiment.id_experiment / "logs" / "train.log").open("a") as log:
        log.write("theirs")


def put_notes(store, experiment, notes):
    """Change the record of the only run, as a user of run records does."""
    files = FileStore(open_storage(store)).scoped(experiment.id_experiment)
    files.put_run_record(replace(files.get_run_record(experiment.runs.first().id_run), notes=notes))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", [persist_in_clone, put_beside, annotate, append_log])
def test_what_somebody_went_on_with_stays(session, home, tmp_path, change):
    """Deleted in the source, but changed in the clone: it is theirs now, also where a file that came was changed."""
    out = tmp_path / "out"
    other = persist_another(session)
    put_notes(tmp_path / "store", other, "from the source")
    logs = tmp_path / "store" / other.id_experiment / "logs"
    logs.mkdir(exist_ok=True)
    (logs / "train.log").write_text("from the source")
    lake.clone(session, out)
    change(session, other, out)
    before = content(out / other.id_experiment)
    session.delete_experiment("other")
    (note,) = gone(lake.clone(session, out, prune=True))
    assert note.startswith("kept: experiment 'other'")
    assert note.endswith("changed here since it was cloned")
    assert names(out) == ["digits", "other"]
    assert content(out / other.id_experiment) == before


def replace_other(session):
    experiment = session.create_experiment("other")
    experiment.fields.note = "new"
    experiment.persist(if_exists="replace")
    return experiment


def test_what_was_replaced_goes(session, tmp_path):
    """The version that takes its place says so: wherever that one is, the replaced one counts as deleted."""
    old = persist_another(session)
    lake.clone(session, tmp_path / "out")
    replace_other(session)
    (note,) = gone(lake.clone(session, tmp_path / "out"))
    assert note.startswith(f"removed: experiment 'other' ({old.id_experiment})")
    assert open_session(tmp_path / "out").check(deep=True).kinds() == {}
    assert open_session(tmp_path / "out").load_experiment("other").fields.note == "new"


def test_what_was_replaced_is_kept_if_changed(session, tmp_path):
    """Any session on the clone would remove what the new version replaces, so that one does not come."""
    out = tmp_path / "out"
    old = persist_another(session)
    lake.clone(session, out)
    put_notes(out, old, "theirs")
    before = content(out / old.id_experiment)
    new = replace_other(session)
    with pytest.raises(ConflictError, match="somebody has changed it there"):
        lake.clone(session, out)
    assert not (out / new.id_experiment).exists()
    assert names(out) == ["digits", "other"]
    assert content(out / old.id_experiment) == before


def test_what_the_source_still_has_files_of_stays(session, tmp_path):
    """Its generations are lost in the source, its bytes are not: nobody deleted it."""
    other = persist_another(session)
    lake.clone(session, tmp_path / "out")
    shutil.rmtree(tmp_path / "store" / other.id_experiment / "generations")
    (note,) = gone(lake.clone(session, tmp_path / "out", prune=True))
    assert note.endswith("which still has files of it")
    assert names(tmp_path / "out") == ["digits", "other"]


def test_nothing_goes_if_something_failed(session, files, home, tmp_path):
    """A report that nobody gets says nothing: what is to go waits until everything else was done."""
    other = persist_another(session)
    lake.clone(session, tmp_path / "out")
    session.delete_experiment("other")
    before = content(tmp_path / "out" / other.id_experiment)
    for blob in files.blobs():
        (path,) = (tmp_path / "out").glob(f"*/{blob}")
        path.unlink()
    lake.add(session, remotes=home.root, in_place=True)
    home.root.rename(tmp_path / "away")
    with pytest.raises(RemotesError):
        lake.clone(session, tmp_path / "out", prune=True)
    assert content(tmp_path / "out" / other.id_experiment) == before


def test_prune_needs_an_output(session, home):
    """In place there is nothing to remove from."""
    with pytest.raises(UsageError, match="prune"):
        lake.add(session, remotes=home.root, in_place=True, prune=True)


def test_killed_between_end_and_removal(session, home, tmp_path, monkeypatch):
    """The end is there, its files too: the next time they go."""
    persist_another(session)
    lake.clone(session, tmp_path / "out")
    session.delete_experiment("other")

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(following, "remove_files", stopped)
        lake.clone(session, tmp_path / "out", prune=True)
    assert names(tmp_path / "out") == ["digits"]
    assert gone(lake.clone(session, tmp_path / "out")) == []
    lake.clone(session, tmp_path / "out", prune=True)
    assert open_session(tmp_path / "out").check(deep=True).kinds() == {}


def test_more_keys_the_second_time(session, home, tmp_path):
    """Bytes of the first time give way to pointers once a remote has them, verified."""
    out = Files(tmp_path / "out")
    lake.add(session, out.root, remotes=home.root, keys="weights")
    assert (len(out.pointers()), len(out.blobs())) == (RUNS, BLOBS - RUNS)
    lake.add(session, out.root, remotes=home.root)
    assert (len(out.pointers()), len(out.blobs())) == (BLOBS, 0)
    assert values_of(open_session(out.root)) == expected()


def test_a_clone_becomes_one_of_pointers(session, home, tmp_path):
    """Bytes go only if the remote has them; otherwise they stay, and the command says why."""
    out = Files(tmp_path / "out")
    lake.clone(session, out.root)
    lake.upload(session, remotes=home.root)
    path = max(home.root.iterdir(), key=lambda path: path.stat().st_size)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(RemotesError, match="0 verified copies"):
        lake.clone(session, out.root, mode="REMOTE_FILE")
    assert (len(out.pointers()), len(out.blobs())) == (BLOBS, 1)
    assert values_of(open_session(out.root)) == expected()


def test_another_remote_the_second_time(session, home, tmp_path):
    """The first remote is not forgotten: the second one stands before it."""
    out = Files(tmp_path / "out")
    lake.add(session, out.root, remotes=home.root)
    lake.add(session, out.root, remotes=tmp_path / "second")
    for pointer in out.pointers().values():
        assert [url.rpartition("/")[2] for url in pointer["remotes"]] == ["second", "lake"]


def test_pointers_to_nothing_are_not_cloned(session, home, tmp_path):
    """A clone of pointers alone looks whether anything is behind them."""
    lake.add(session, remotes=home.root, in_place=True)
    home.root.rename(tmp_path / "away")
    with pytest.raises(MltraqDSError, match="No remote has it"):
        lake.clone(session, tmp_path / "out", mode="REMOTE_FILE")
