"""What ends a run or an execution: any text is kept and persisted, and nothing that was done is lost."""

import pickle

import pytest

from mltraq_ds import Run, create_session, options
from mltraq_ds.errors import RunError, RunFailedWarning, UsageError

CHARACTERS = {"NUL": ("\0", r"\x00"), "surrogate": ("\udcff", r"\udcff")}


@pytest.fixture
def session(tmp_path):
    with options.ctx({"tqdm.disable": True}):
        yield create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")


class SilentError(Exception):
    """An error whose text cannot be made."""

    def __str__(self):
        raise TypeError("no text")


def fail_with_any_text(run):
    run.fields.x = run.params.x
    if run.params.x == 1:
        raise RuntimeError(f"the child printed {CHARACTERS[run.params.kind][0]} and more")


def fail_without_text(run):
    if run.params.x == 1:
        raise SilentError


@pytest.mark.parametrize("kind", CHARACTERS)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_whatever_an_error_says_the_experiment_can_be_persisted(session, kind, n_jobs):
    """Characters that no database takes are escaped in the text of an error; all runs are persisted and found."""
    character, kept = CHARACTERS[kind]
    experiment = session.create_experiment("e").add_runs(x=[0, 1], kind=[kind])
    with pytest.warns(RunFailedWarning):
        experiment.execute(fail_with_any_text, n_jobs=n_jobs)
    good, failed = experiment.persist().reload().runs.values()
    assert (good.status, good.fields.x) == ("success", 0)
    assert (failed.status, failed.fields.x) == ("failed", 1)
    assert failed.exception.message == f"RuntimeError: the child printed {kept} and more"
    assert kept in failed.exception.traceback
    assert character not in failed.exception.traceback
    found = session.query("select exception from mltraq_runs where exception is not null").exception.tolist()
    assert found == [failed.exception.message]


@pytest.mark.parametrize("kind", CHARACTERS)
def test_an_error_of_ones_own_making_can_be_persisted(session, kind):
    """`fail` escapes type, message and traceback alike, and so does a block that raises."""
    character, kept = CHARACTERS[kind]
    experiment = session.create_experiment("e").add_run()
    experiment.runs.first().fail(RunError(f"a{character}", f"b{character}", f"c{character}"))
    with pytest.raises(RuntimeError), experiment.run():
        raise RuntimeError(character)
    one, two = experiment.persist().reload().runs.values()
    error = pickle.loads(pickle.dumps(one.exception))
    assert (error.message, error.type_name, error.traceback) == (f"a{kept}", f"b{kept}", f"c{kept}")
    assert two.exception.message == f"RuntimeError: {kept}"


def test_an_error_whose_text_cannot_be_made_ends_its_run_only(session):
    """A class whose `__str__` raises is kept by name, and the other runs go on."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2])
    with pytest.warns(RunFailedWarning, match="SilentError"):
        experiment.execute(fail_without_text)
    failed, good = experiment.persist().reload().runs.values()
    assert failed.exception.message == "SilentError: its text cannot be made"
    assert good.status == "success"


def test_what_is_no_experiment_and_no_config_is_refused_by_name(session):
    """A number in place of an experiment or a config is one sentence, and no run is executed."""
    with pytest.raises(UsageError, match="Experiment is persisted, not int"):
        session.persist_experiment(3)
    experiment = session.create_experiment("e").add_run(x=1)
    with pytest.raises(UsageError, match="config of a run is a dictionary, not a int"):
        experiment.execute(fail_without_text, config=3)
    assert experiment.runs.first().status == "created"


def test_only_a_run_error_is_the_exception_of_a_run():
    """Another exception would not survive the process; it is refused where it is set, with what to write."""
    run = Run()
    with pytest.raises(UsageError, match=r"not a ValueError\. Use run\.fail\(RunError\('bad', 'ValueError'\)\)"):
        run.exception = ValueError("bad")
    assert run.exception is None


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+05:00", "yesterday"])
def test_times_that_are_none(tmp_path, text):
    """A time that is no instant is in the record, for people, and keeps neither persist nor rebuild from their work."""
    url = f"sqlite:///{tmp_path}/times.db"
    session = create_session(url=url, store=tmp_path / "times")
    experiment = session.create_experiment("x")
    with experiment.run() as run:
        run.fields.a = 1
    run.started = text
    experiment.persist()
    experiment.persist("update")
    session.rebuild_index()
    again = create_session(url=url, store=tmp_path / "times").load_experiment("x")
    assert again.runs.first().started == text
    assert session.query("SELECT started_at FROM mltraq_runs").started_at.tolist() == [None]
