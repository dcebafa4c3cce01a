"""Two writers in every order of their steps: the real code, threads stopped at the seams of the commit.

The seams of a persist are those of `mltraq_ds.store.commit.SEAMS`; a delete has one before each operation of its
storage that changes something.  All orders of eleven seams are up to 705,432 for each story, so here seams are grouped:
*validate* with *intent*; *claim* with *folder*; *blobs* with *records*; *commit*; *end_replaced* with *index*; *retire*
with *done*.  Within a group one step writes under names that nobody else knows yet, so that every adjacent pair of
steps that shares state (claim, folder, generation, rows, removal) is still interleaved with every other one.  Stories
in which the folder is not shared have *blobs* grouped with *claim* too.  The soak takes all eleven seams, in every
order where the claim decides early, and in 500 random orders.  Why these, and what would run more:
docs/decisions/023.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from scene import BYSTANDER, FRESH, SUBJECT, build, fill, find, version_of
from turns import Actor, every_order, play, random_orders

from mltraq_ds.errors import ConflictError, ExperimentNotFoundError, MltraqDSWarning
from mltraq_ds.store.commit import SEAMS, Persist
from mltraq_ds.testing import Callback, FaultStorage
from mltraq_ds.tracking import session as session_module

GROUPED = frozenset({"validate", "claim", "commit", "end_replaced", "retire"})
WITH_FOLDER = GROUPED | {"blobs"}


def is_step_of_delete(call) -> bool:
    """Tell whether an operation looks at the generations, adds one, or removes the folder."""
    looks = call.verb in ("put", "list") and "generations" in call.key and "_pending" not in call.key
    return looks or call.verb in ("move_folder", "delete_folder")


TYPED = (ConflictError, ExperimentNotFoundError)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("template") / "scene")


@pytest.fixture
def persist(monkeypatch):
    """Let each thread that calls `persist` stop at the seams it wants."""
    stops: dict[int, object] = {}

    def on_seam(name):
        import threading

        stop = stops.get(threading.get_ident())
        if stop is not None:
            stop(name)

    monkeypatch.setattr(session_module, "Persist", partial(Persist, on_seam=on_seam))

    def stopping(act, seams, pause):
        import threading

        stops[threading.get_ident()] = lambda name: pause(name) if name in seams else None
        try:
            return act()
        finally:
            del stops[threading.get_ident()]

    return stopping


def update(scene, version, name=None):
    experiment = fill(scene.session().load_experiment(SUBJECT), version)
    experiment.name = name or experiment.name
    return lambda: experiment.persist(if_exists="update")


def replace(scene, version):
    experiment = fill(scene.session().create_experiment(SUBJECT), version)
    return lambda: experiment.persist(if_exists="replace")


def first(scene, version, name=FRESH, id_experiment=None, if_exists="fail"):
    experiment = fill(scene.session().create_experiment(name), version)
    experiment.id_experiment = id_experiment or experiment.id_experiment
    return lambda: experiment.persist(if_exists=if_exists)


SAME_ID = "00000000-0000-4000-8000-000000000001"
#: name -> what each of two writers does, and what the outcome may be: who succeeded, and the versions then found.
STORIES = {
    "update-update": lambda s: (update(s, 2), update(s, 3)),
    "replace-replace": lambda s: (replace(s, 2), replace(s, 3)),
    "update-replace": lambda s: (update(s, 2), replace(s, 3)),
    "first-first": lambda s: (first(s, 2), first(s, 3)),
    "first-replace": lambda s: (first(s, 2), first(s, 3, if_exists="replace")),
    "same-id": lambda s: (first(s, 2, "n", SAME_ID), first(s, 3, "m", SAME_ID)),
    "rename-rename": lambda s: (update(s, 2, "n"), update(s, 3, "m")),
}
ONE_WINS = {"update-update", "first-first", "same-id", "rename-rename"}
EARLY = ("update-update", "first-first")


def story(name, template, tmp_path, persist, seams):
    """Return a function that runs a story once, in an order, and looks at everything afterwards."""
    numbers = itertools.count()

    def run(choose):
        scene = template.copy_to(tmp_path / f"{next(numbers)}")
        acts = STORIES[name](scene)
        actors = [Actor(who, partial(persist, act, seams)) for who, act in zip("AB", acts, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MltraqDSWarning)
            order = play(actors, choose)
        try:
            judge(name, scene, actors)
        except BaseException as failure:
            failure.add_note(f"order: {' '.join(order.told)}; A got {actors[0].error!r}, B got {actors[1].error!r}")
            raise
        return order

    return run


def judge(name, scene, actors):
    """Nothing is lost, only typed errors, the loser left nothing, names have one owner, and the index is the files."""
    winners = [version for version, actor in zip((2, 3), actors, strict=True) if actor.error is None]
    for actor in actors:
        assert actor.error is None or isinstance(actor.error, TYPED), actor.error
    session = scene.session()
    assert find(session, BYSTANDER) == 1
    state = exact(scene)
    found = {
        folder.current["name"]: version_of(session.load_experiment(id_experiment=folder.id_experiment))
        for folder in state.folders.values()
        if folder.is_live and folder.current["name"] != BYSTANDER
    }
    assert winners, "both were refused"
    if name in ONE_WINS:
        assert len(winners) == 1
    before = {SUBJECT} if name in ("first-first", "first-replace", "same-id") else set()
    assert len(found) == 1 + len(before)
    assert {found[n] for n in found if n not in before} <= set(winners)
    session.database.close()


def exact(scene):
    """Return the state, which has no leftovers of any kind."""
    state = scene.state()
    assert state.leftovers == set()
    assert state.rows == state.live
    names = {f.current["name"]: (f.id_experiment, None) for f in state.folders.values()}
    assert state.names == names
    assert len(names) == len(state.folders)
    return state


@pytest.mark.parametrize("name", STORIES)
def test_two_writers_in_every_order(template, tmp_path, persist, name):
    """In every order of two writers nothing is lost, the loser gets a typed error, and what is left is exact."""
    seams = WITH_FOLDER if name == "same-id" else GROUPED
    count = every_order(story(name, template, tmp_path, persist, seams), limit=1000)
    assert count >= 20
    print(f"{name}: {count} orders")


@pytest.mark.soak
@pytest.mark.parametrize("name", EARLY)
def test_two_writers_in_every_order_of_all_seams(template, tmp_path, persist, name):
    """Where the claim of the name decides early, every order of all eleven seams ends well."""
    count = every_order(story(name, template, tmp_path, persist, frozenset(SEAMS)))
    print(f"{name}: {count} orders of all seams")


@pytest.mark.soak
@pytest.mark.parametrize("name", STORIES)
def test_two_writers_at_all_seams(template, tmp_path, persist, name):
    """With no seams grouped, 500 random orders of each story end as well."""
    assert random_orders(story(name, template, tmp_path, persist, frozenset(SEAMS)), range(500)) == 500


def delete_story(other, template, tmp_path, persist, seams):
    numbers = itertools.count()

    def run(choose):
        scene = template.copy_to(tmp_path / f"{next(numbers)}")
        pauses = []
        storage = FaultStorage(
            scene.local(),
            lambda call: Callback(lambda call: pauses[0](call.verb)) if pauses and is_step_of_delete(call) else None,
        )
        deleting = scene.session(storage)
        identity = deleting.load_experiment(SUBJECT).id_experiment

        def delete(pause):
            pauses.append(pause)
            deleting.delete_experiment(id_experiment=identity)

        act = update(scene, 2) if other == "update" else replace(scene, 2)
        actors = [Actor("D", delete), Actor("W", partial(persist, act, seams))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MltraqDSWarning)
            order = play(actors, choose)
        try:
            judge_delete(other, scene, actors)
        except BaseException as failure:
            failure.add_note(f"order: {' '.join(order.told)}; D got {actors[0].error!r}, W got {actors[1].error!r}")
            raise
        return order

    return run


def judge_delete(other, scene, actors):
    """A delete that succeeded is not undone; a new object that succeeded is there; an update lives unless deleted."""
    deleter, writer = actors
    assert deleter.error is None or isinstance(deleter.error, ExperimentNotFoundError)
    assert writer.error is None or isinstance(writer.error, TYPED)
    session = scene.session()
    assert find(session, BYSTANDER) == 1
    exact(scene)
    found = find(session, SUBJECT)
    if other == "update":
        assert deleter.error is None
        assert found is None
    else:
        assert found == (2 if writer.error is None else None)
    session.database.close()


@pytest.mark.parametrize("other", ["update", "replace"])
def test_a_delete_and_a_writer_in_every_order(template, tmp_path, persist, other):
    """A delete beside an update or a replace, in every order: no half of an experiment is left, and none comes back."""
    run = delete_story(other, template, tmp_path, persist, frozenset({"claim", "commit", "retire"}))
    count = every_order(run, limit=1000)
    assert count >= 20
    print(f"delete-{other}: {count} orders")


@pytest.mark.soak
@pytest.mark.parametrize("other", ["update", "replace"])
def test_a_delete_and_a_writer_at_all_seams(template, tmp_path, persist, other):
    """With no seams grouped, 500 random orders of a delete and a writer end as well."""
    assert random_orders(delete_story(other, template, tmp_path, persist, frozenset(SEAMS)), range(500)) == 500
