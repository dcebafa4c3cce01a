"""Runs, steps and tables: grids, failures, workers, seeds, merging."""

import json
import os
import pickle
import random
import re
import warnings

import numpy as np
import pytest

import mltraq_ds
from mltraq_ds import DataStore, DataStoreIO, Experiment, Run, create_experiment, create_session, ids, options
from mltraq_ds.errors import RunError, RunFailedWarning, UsageError, WorkerDiedError
from mltraq_ds.lazy import LazyBunch
from mltraq_ds.tracking import Runs, default_session


@pytest.fixture
def session(tmp_path):
    with options.ctx({"tqdm.disable": True}):
        yield create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")


def square(run):
    run.fields.y = run.params.x**2


def note_process(run):
    run.fields.pid = os.getpid()
    run.fields.draw = random.random()
    run.fields.numpy_draw = float(np.random.random())


def fail_on_two(run):
    if run.params.x == 2:
        raise ValueError("two is too many")
    run.fields.ok = True


def use_the_store(run):
    run.fields.url = DataStoreIO.write(b"from a worker", "mine").url
    run.fields.ds = DataStore(a=np.full(10, run.params.x))


def test_a_grid_is_every_combination_in_order(session):
    """`add_runs` is the Cartesian product, the last name varying fastest."""
    experiment = session.create_experiment("e").add_runs(a=[1, 2], b=("x", "y")).add_run(a=9)
    assert [dict(run.params) for run in experiment.runs.values()] == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}, {"a": 9},
    ]  # fmt: skip
    for wrong in ({"a": "abc"}, {"a": 5}, {"a": b"x"}):
        with pytest.raises(UsageError, match="needs several values"):
            experiment.add_runs(**wrong)
    assert len(experiment.runs) == 5


def test_steps_run_in_order_with_config(session):
    """Steps see params, config and what earlier steps left in fields and vars."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2, 3])

    def scale(run):
        run.vars.scaled = run.fields.y * run.config.factor

    def keep(run):
        run.fields.z = run.vars.scaled

    returned = experiment.execute([square, scale, keep], config={"factor": 10})
    assert returned is experiment
    assert experiment.df().z.tolist() == [10, 40, 90]
    assert {run.status for run in experiment.runs.values()} == {"success"}


def test_workers_give_the_same_as_this_process(session):
    """On joblib's workers results, order and seeded draws are those of sequential execution."""
    tables = []
    for arguments in (
        {},
        {"n_jobs": 2},
        {"n_jobs": 2, "backend": "threading"},
        {"backend": "sequential", "n_jobs": -1},
        {"n_jobs": 2, "backend": "multiprocessing"},
    ):
        experiment = session.create_experiment("e").add_runs(x=range(4))
        experiment.execute([square, note_process], **arguments)
        table = experiment.df()
        assert table.y.tolist() == [0, 1, 4, 9]
        tables.append(table)
    assert set(tables[1].pid) != {os.getpid()}
    assert tables[0].draw.tolist() == tables[1].draw.tolist() == tables[3].draw.tolist() == tables[4].draw.tolist()
    assert tables[0].numpy_draw.tolist() == tables[1].numpy_draw.tolist()
    assert len(set(tables[0].draw)) == 4


def test_seeding_leaves_the_users_generators_alone(session):
    """Executing runs here does not change the state of `random` and numpy outside."""
    random.seed(5)
    np.random.seed(5)
    wanted = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    session.create_experiment("e").add_runs(x=[1]).execute(note_process)
    assert (random.random(), np.random.random()) == wanted


def test_a_failing_step_ends_its_run_only(session):
    """The run keeps type, message and traceback, others go on, it is reported, and all that is persisted."""
    for arguments in ({}, {"n_jobs": 2}):
        experiment = session.create_experiment(f"e{arguments}").add_runs(x=[1, 2, 3])
        with pytest.warns(RunFailedWarning, match="1 of 3 runs failed.*ValueError: two is too many"):
            experiment.execute([fail_on_two, square], **arguments)
        failed = list(experiment.persist().reload().runs.values())[1]
        assert failed.status == "failed"
        assert isinstance(failed.exception, RunError)
        assert failed.exception.type_name == "ValueError"
        assert "fail_on_two" in failed.exception.traceback
        assert "y" not in failed.fields
        assert experiment.df().y.tolist()[::2] == [1, 9]
        shown = session.query("select status, exception from mltraq_runs where exception is not null")
        assert shown.exception.tolist()[-1] == "ValueError: two is too many"


def test_an_error_in_the_block_is_kept_and_raised(session):
    """An error inside ``with experiment.run()`` reaches the user, and the run knows it."""
    experiment = session.create_experiment("e")
    with pytest.raises(ZeroDivisionError):
        with experiment.run() as run:
            run.fields.before = 1
            1 / 0  # noqa: B018 - raises
    assert (run.status, run.exception.type_name, run.fields.before) == ("failed", "ZeroDivisionError", 1)
    with pytest.raises(KeyboardInterrupt):
        with experiment.run() as run:
            raise KeyboardInterrupt
    assert run.status == "failed"
    assert len(experiment.runs) == 2


def test_workers_use_the_store_of_the_session(session):
    """DataStoreIO and DataStores work in other processes, and come back."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2]).execute(use_the_store, n_jobs=2).persist()
    for number, run in enumerate(experiment.reload().runs.values(), 1):
        assert session.io(run.fields.url).read() == b"from a worker"
        assert run.fields.ds.a.tolist() == [number] * 10


def test_a_store_of_this_process_is_not_sent_to_workers():
    """A step that asks for a memory:// store in another process is told so, in its own run's exception."""
    session = create_session(url="sqlite://", store="memory://not-sent")
    experiment = session.create_experiment("e").add_runs(x=[1, 2])
    with pytest.warns(RunFailedWarning, match="cannot be reached from this process"):
        experiment.execute(use_the_store, n_jobs=2)
    experiment.execute(use_the_store)
    assert {run.status for run in experiment.runs.values()} == {"success"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_jobs": 0}, "n_jobs.*other than 0"),
        ({"n_jobs": -2}, "n_jobs=-2"),
        ({"backend": "spark"}, "'spark' is unknown"),
    ],
)
def test_execution_refuses_what_it_cannot_do(session, arguments, text):
    """Numbers of workers and backends that do not exist are refused before anything runs."""
    experiment = session.create_experiment("e").add_runs(x=[1])
    with pytest.raises(UsageError, match=text):
        experiment.execute(square, **arguments)
    with pytest.raises(UsageError, match="cannot be called"):
        experiment.execute([square, 5])
    assert experiment.runs.first().status == "created"


def test_a_progress_bar_is_shown(session, capsys):
    """With the option left alone, executing shows a bar on the terminal's error stream."""
    with options.ctx({"tqdm.disable": False}):
        session.create_experiment("e").add_runs(x=[1, 2]).execute(square)
    assert "2/2" in capsys.readouterr().err


def test_tables_keep_params_and_fields_apart(session):
    """A param whose name a field has too becomes ``params.<name>``; unread values are described, not read."""
    experiment = session.create_experiment("e").add_run(x=1, y=2)
    experiment.runs.first().fields.update(x="field", big=np.arange(5000), ds=DataStore(a=1))
    row = experiment.df().iloc[0]
    assert (row["params.x"], row["y"], row["x"]) == (1, 2, "field")
    loaded = experiment.persist().reload()
    row = loaded.runs.first().df().iloc[0]
    assert row["big"] == "<ndarray, not read yet>"
    assert row["ds"] == "<DataStore of 1>"
    assert not isinstance(loaded.runs.first().fields.ds._peek("a"), int)
    assert session.create_experiment("empty").df().columns.tolist() == ["id_run"]


def test_a_column_is_a_param_or_a_field_for_all_runs(session):
    """A param is never found in the column of a field, also of runs that failed before they had that field."""
    experiment = session.create_experiment("e").add_runs(epochs=[10, 20])
    experiment.runs.first().fields.epochs = 7
    for table in (experiment.df(), experiment.persist().reload().df()):
        assert table.columns.tolist() == ["id_run", "params.epochs", "epochs"]
        assert table["params.epochs"].tolist() == [10, 20]
        assert table.epochs[0] == 7
        assert np.isnan(table.epochs[1])


def test_the_id_has_a_column_of_its_own(session):
    """Params and fields named ``id_run`` or like a column that another became take away no column."""
    experiment = session.create_experiment("e").add_run(x=1).add_run(x=2)
    first, second = experiment.runs.values()
    first.params.update({"id_run": "p", "params.x": "q"})
    first.fields.update({"id_run": "f", "x": 3, "fields.id_run": 4})
    second.fields["params.params.x"] = 5
    rows = experiment.df().astype(object).where(lambda table: table.notna(), None).to_dict("records")
    assert rows == [
        {"id_run": first.id_run, "params.params.params.x": 1, "params.id_run": "p", "params.x": "q",
         "fields.fields.id_run": "f", "x": 3, "fields.id_run": 4, "params.params.x": None},
        {"id_run": second.id_run, "params.params.params.x": 2, "params.id_run": None, "params.x": None,
         "fields.fields.id_run": None, "x": None, "fields.id_run": None, "params.params.x": 5},
    ]  # fmt: skip


def test_merging_keeps_the_left_one(session):
    """``|`` keeps id, name and fields of the left, adds the runs of the right, and persists as an update."""
    left = session.create_experiment("left", note=1).add_runs(x=[1, 2]).persist()
    right = session.create_experiment("right").add_run(x=3)
    right.runs.first().fields.ds = DataStore(a=[3])
    right.persist()
    merged = left
    merged |= right.reload()
    assert (merged.id_experiment, merged.name, merged.fields.note) == (left.id_experiment, "left", 1)
    merged.persist("update")
    right.delete()
    runs = list(left.reload().runs.values())
    assert [run.params.x for run in runs] == [1, 2, 3]
    assert runs[2].fields.ds.a == [3]
    assert {run.id_experiment for run in merged.runs.values()} == {left.id_experiment}
    with pytest.raises(TypeError):
        _ = left | 5
    assert len((left | left).runs) == 2


def test_runs_take_dictionaries(session):
    """Parts of a run may be set as dictionaries; anything else is refused."""
    run = Run()
    run.fields = {"a": 1}
    assert isinstance(run.fields, LazyBunch)
    assert run.fields.a == 1
    with pytest.raises(UsageError, match="is a dictionary"):
        run.params = [1]
    experiment = session.create_experiment("e")
    experiment.fields = {"b": 2}
    assert experiment.fields.b == 2
    assert run.execute(lambda run: run.fields.update(a=5)) is run
    assert run.fields.a == 5


def test_run_without_steps_that_raise_pickles(session):
    """A run with results travels to another process and back."""
    run = Run(params={"x": 1}, fields={"ds": DataStore(a=np.ones(3))})
    copied = pickle.loads(pickle.dumps(run))
    assert copied.params.x == 1
    assert copied.fields.ds.a.sum() == 3
    assert "status='created'" in repr(copied)


def test_no_runs_yet(session):
    """`first` of an experiment without runs says how to add one."""
    with pytest.raises(UsageError, match="has no runs"):
        session.create_experiment("e").runs.first()
    assert isinstance(session.create_experiment("e").runs, Runs)


def test_names_are_derived_or_checked(session):
    """Without a name one is made from the id; a name is a string."""
    experiment = session.create_experiment()
    assert experiment.name == f"experiment-{experiment.id_experiment[-8:]}"
    assert "not persisted" in repr(experiment)
    assert "generation 1" in repr(experiment.persist())
    with pytest.raises(UsageError, match="is a string"):
        session.create_experiment(5)


def test_run_ids_do_not_repeat(session):
    """Predictable ids move on when a run has one already."""
    options.set("reproducibility.sequential_uuids", True)
    experiment = session.create_experiment("e").add_run()
    ids.next_uuid(seed=int(experiment.id_experiment.replace("-", ""), 16))
    experiment.add_run()
    assert len(experiment.runs) == 2


def test_the_default_session_follows_the_options(tmp_path, monkeypatch):
    """`create_experiment` uses a session made from the options; changing them makes another one."""
    monkeypatch.chdir(tmp_path)
    first = default_session()
    assert default_session() is first
    assert create_experiment("e").session is first
    with options.ctx({"datastore.url": "other"}):
        assert default_session() is not first
        assert default_session().storage.url.endswith("/other")
    (tmp_path / "sub").mkdir()
    os.chdir(tmp_path / "sub")
    assert default_session().storage.url.endswith("/sub/mltraq.datastore")
    assert first.storage.url.endswith(f"{tmp_path.name}/mltraq.datastore")


def test_sessions_say_what_they_are(session, tmp_path):
    """The text of a session names database and store; loading takes a name or an id, and one of them."""
    assert repr(session).startswith("Session(database='sqlite:///")
    for call in (session.load_experiment, session.delete_experiment):
        with pytest.raises(UsageError, match="a name or an id_experiment"):
            call()
        with pytest.raises(UsageError):
            call("e", id_experiment="x")
    assert len(session.ls()) == 0
    assert session.query("select 1 as one").one.tolist() == [1]


def test_fields_are_found_in_sql(session):
    """Scalars are JSON in SQL: numbers compare, NaN is the text NaN, dates are text."""
    experiment = session.create_experiment("e")
    for loss in (0.5, 0.1, float("nan")):
        with experiment.run() as run:
            run.fields.loss = np.float64(loss)
    experiment.persist()
    best = session.query("select id_run from mltraq_runs where json_extract(fields, '$.loss') < :top", {"top": 0.2})
    assert best.id_run.tolist() == [list(experiment.runs)[1]]
    diverged = session.query("select id_run from mltraq_runs where json_extract(fields, '$.loss') = 'NaN'")
    assert diverged.id_run.tolist() == [list(experiment.runs)[2]]
    assert json.loads(session.query("select fields from mltraq_runs").fields[0]) == {"loss": 0.5}


def test_nothing_is_warned_about_when_all_is_well(session):
    """Making, executing, persisting, loading and deleting give no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment = session.create_experiment("e").add_runs(x=[1]).execute(square).persist()
        assert isinstance(experiment.reload(), Experiment)
        experiment.delete()


def keep_what_cannot_travel(run):
    run.fields.good = run.params.x
    run.vars.handle = (number for number in range(3))
    if run.params.x == 2:
        run.fields.bad = (number for number in range(3))


def die_on_three(run):
    run.fields.y = run.params.x
    if run.params.x == 3:
        os._exit(1)


def test_a_result_that_cannot_travel_fails_its_run_only(session):
    """A generator in the fields of one run of a grid costs that run, by name, and no other."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2, 3])
    with pytest.warns(RunFailedWarning, match=r"1 of 3 runs failed.*fields\.bad"):
        experiment.execute(keep_what_cannot_travel, n_jobs=2)
    assert experiment.df().good.tolist() == [1, 2, 3]
    failed = list(experiment.runs.values())[1]
    assert "fields.bad" in str(failed.exception)
    assert "n_jobs=1" in str(failed.exception)


def test_what_is_done_is_kept_when_a_worker_dies(session):
    """A worker that is killed ends the execution with an error; the runs that were done keep their results."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2, 3, 4])
    with pytest.raises(WorkerDiedError, match=r"[0-3] of 4 runs.*worker process was killed.*Not executed: ") as caught:
        experiment.execute(die_on_three, n_jobs=2)
    done = [run.fields.y for run in experiment.runs.values() if run.status == "success"]
    assert str(caught.value).startswith(f"{len(done)} of 4")
    assert all((run.id_run in str(caught.value)) == (run.status == "created") for run in experiment.runs.values())
    assert len(experiment.persist().reload().df()) == 4
    assert {1, 2} >= set(done) or {1, 2, 4} >= set(done)
    assert list(experiment.df().x) == [1, 2, 3, 4]


def test_what_is_done_is_kept_on_interrupt(session):
    """Ctrl-C in the middle keeps the runs that were done."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2, 3])

    def interrupt(run):
        if run.params.x == 2:
            raise KeyboardInterrupt
        run.fields.y = run.params.x

    with pytest.raises(KeyboardInterrupt):
        experiment.execute(interrupt)
    assert [run.status for run in experiment.runs.values()] == ["success", "failed", "created"]


def test_misspelt_attributes_are_refused(session):
    """An attribute that would not be persisted is refused, with the place where it belongs."""
    experiment = session.create_experiment("e").add_run(x=1)
    with pytest.raises(AttributeError, match=r"run\.fields\.loss"):
        experiment.runs.first().loss = 3
    with pytest.raises(AttributeError, match=r"experiment\.fields\.metrics"):
        experiment.metrics = {}
    experiment.runs = list(experiment.runs.values())
    assert isinstance(experiment.runs, Runs)
    experiment.runs = []
    with pytest.raises(UsageError, match="no runs to execute"):
        experiment.execute(square)


def test_runs_are_shown_short(session):
    """The text of many runs is one line; an index by position says how to get at a run."""
    runs = session.create_experiment("e").add_runs(x=range(300)).runs
    assert repr(runs).endswith("… 295 more)")
    assert repr(Runs()) == "Runs(0)"
    with pytest.raises(KeyError, match=r"runs\.first\(\)"):
        runs[0]
    with pytest.raises(KeyError, match="nobody"):
        runs["nobody"]


@pytest.mark.parametrize("backend", ["sequential", "loky"])
def test_executing_no_step_changes_no_run(session, tmp_path, backend):
    """A failed run that was loaded keeps status, error and times when no step is executed, and is persisted so."""
    experiment = session.create_experiment("e").add_runs(x=[1, 2])
    with pytest.warns(RunFailedWarning):
        experiment.execute(fail_on_two).persist()
    loaded = session.load_experiment("e")
    loaded.execute([], config={"other": 1}, backend=backend, n_jobs=2).persist("update")
    for run in loaded.runs.values():
        assert run.execute([]) is run
    mltraq_ds.run(loaded, [], tmp_path / "results")
    for again in (loaded, session.load_experiment("e")):
        one, two = again.runs.values()
        assert [one.status, two.status, two.exception.type_name] == ["success", "failed", "ValueError"]
        assert two.finished == list(experiment.runs.values())[1].finished
        assert dict(two.config) == {}


@pytest.mark.parametrize("wrong", ["train", None, 3, {"train": square}])
def test_what_is_no_step_is_named_whole(session, wrong):
    """A name instead of a function is refused as it was given, and no run is changed."""
    experiment = session.create_experiment("e").add_run(x=1)
    with pytest.raises(UsageError, match=re.escape(f"The step {wrong!r} cannot".split("<")[0])):
        experiment.execute(wrong)
    with pytest.raises(UsageError, match="cannot be called"):
        experiment.runs.first().execute(wrong)
    assert experiment.runs.first().status == "created"
