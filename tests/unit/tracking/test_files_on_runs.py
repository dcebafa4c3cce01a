"""Files and folders on runs: what is stored is what was there when they were made, and stays it."""

import pytest

from mltraq_ds import DataStore, Directory, File, create_session
from mltraq_ds.errors import ExperimentNotFoundError, UnsupportedTypeError, ValueChangedError


@pytest.fixture
def session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "store")


@pytest.fixture
def source(tmp_path):
    """Return a folder with a file."""
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "a").write_bytes(b"old")
    return tmp_path / "ckpt"


def stored(session):
    """Return the bytes that a new object finds."""
    (run,) = session.load_experiment("e").runs.values()
    ds, fields = run.fields.ds, run.fields
    files = [ds.file, ds.folder["a"], fields.file, fields.folder["a"], run.params.file, fields.listed[0]]
    return [file.read_bytes() for file in files]


def persisted(session, source):
    """Return an experiment with files and folders wherever they can be."""
    experiment = session.create_experiment("e")
    file, folder = File(source / "a"), Directory(source)
    with experiment.run() as run:
        run.params.file = file
        run.fields.update(ds=DataStore(file=file, folder=folder, x=1), file=file, folder=folder, listed=[file])
    return experiment.persist(), run


@pytest.mark.parametrize("place", ["DataStore", "field", "list"])
def test_runs_that_write_the_same_path(session, tmp_path, place):
    """Three runs that keep one path, each with its own content, are refused: nothing is stored under a wrong name."""
    path = tmp_path / "tmp.pt"
    experiment = session.create_experiment("e")
    for number in range(3):
        with experiment.run() as run:
            path.write_bytes(b"weights %d" % number)
            file = File(path)
            run.fields.model = {"DataStore": DataStore(model=file), "field": file, "list": [file]}[place]
    with pytest.raises(
        ValueChangedError, match=r"run .*fields\.model.* cannot be persisted.*/tmp\.pt' .*changed since"
    ):
        experiment.persist()
    with pytest.raises(ExperimentNotFoundError):
        session.load_experiment("e")
    assert not (tmp_path / "store" / experiment.id_experiment).exists()
    for number, run in enumerate(experiment.runs.values()):  # the way out: a path each
        own = tmp_path / f"{number}.pt"
        own.write_bytes(b"weights %d" % number)
        run.fields.model = File(own)
    experiment.persist()
    runs = session.load_experiment("e").runs.values()
    assert [run.fields.model.read_bytes() for run in runs] == [b"weights 0", b"weights 1", b"weights 2"]


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_update_after_the_source_changed(session, source, change):
    """Once persisted, fields and keys keep the bytes; an update neither takes the new ones nor misses the source."""
    experiment, run = persisted(session, source)
    assert stored(session) == [b"old"] * 6
    before = run.fields.ds.to_url()
    del run.fields["listed"]  # inside a list it would still be the source
    if change == "gone":
        (source / "a").unlink()
        source.rmdir()
    else:
        (source / "a").write_bytes(b"new")
    for note in ("more", "and more"):
        run.fields.note = note
        experiment.persist(if_exists="update")
        (again,) = session.load_experiment("e").runs.values()
        assert again.fields.note == note
        ds, fields = again.fields.ds, again.fields
        files = [ds.file, ds.folder["a"], fields.file, fields.folder["a"], again.params.file]
        assert [file.read_bytes() for file in files] == [b"old"] * 5
        assert again.fields.ds.to_url() == before
    assert run.fields.file.read_bytes() == run.fields.ds.folder["a"].read_bytes() == b"old"
    run.fields.ds.x = 2
    experiment.persist(if_exists="update")
    (again,) = session.load_experiment("e").runs.values()
    assert (again.fields.ds.x, again.fields.ds.file.read_bytes()) == (2, b"old")
    assert len(session.check(deep=True)) == 0


def test_a_file_in_a_list_is_protected(session, source):
    """A file inside a list stays at its path: an update after a change is refused and the old bytes stay."""
    experiment, run = persisted(session, source)
    (source / "a").write_bytes(b"new")
    run.fields.note = "more"
    with pytest.raises(ValueChangedError, match=r"fields\.listed cannot be persisted"):
        experiment.persist(if_exists="update")
    assert stored(session) == [b"old"] * 6
    run.fields.listed = [File(source / "a")]
    experiment.persist(if_exists="update")
    assert stored(session) == [b"old"] * 5 + [b"new"]


def test_the_present_state_is_stored_when_asked_for(session, source):
    """A `File` made anew is stored by the next update."""
    experiment, run = persisted(session, source)
    (source / "a").write_bytes(b"new")
    file, folder = File(source / "a"), Directory(source)
    run.params.file = file
    run.fields.update(ds=DataStore(file=file, folder=folder), file=file, folder=folder, listed=[file])
    experiment.persist(if_exists="update")
    assert stored(session) == [b"new"] * 6


def test_many_small_files(session, tmp_path):
    """Files that share a pack are let go of too."""
    experiment = session.create_experiment("e")
    for number in range(40):
        with experiment.run() as run:
            path = tmp_path / f"{number}.txt"
            path.write_text(str(number))
            run.fields.file = File(path)
            run.fields.ds = DataStore(file=File(path))
    experiment.persist()
    for number in range(40):
        (tmp_path / f"{number}.txt").unlink()
    experiment.fields.note = "more"
    experiment.persist(if_exists="update")
    for loaded in (experiment, session.load_experiment("e")):
        runs = loaded.runs.values()
        assert [run.fields.file.read_text() for run in runs] == [str(number) for number in range(40)]
        assert [run.fields.ds.file.read_text() for run in runs] == [str(number) for number in range(40)]


def test_a_refused_persist_lets_go_of_nothing(session, source):
    """After a persist that failed, the files are still at their paths."""
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.update(file=File(source / "a"), bad=DataStore(f=print))
    with pytest.raises(UnsupportedTypeError, match="cannot be persisted"):
        experiment.persist()
    (source / "a").write_bytes(b"new")
    with pytest.raises(ValueChangedError):
        run.fields.file.read_bytes()
