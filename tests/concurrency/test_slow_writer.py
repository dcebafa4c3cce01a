"""A slow writer beside a quick one: one operation of its storage is late, each in turn, and the other persists.

The interleavings stop a writer for as long as the other wants; here real time passes, and both go on together.
"""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from scene import SUBJECT, build, swept
from test_interleavings import first, judge, judge_delete, replace, update

from mltraq_ds.errors import MltraqDSWarning
from mltraq_ds.store import lease, survey
from mltraq_ds.testing import Delay, FaultStorage


def delete(scene):
    session = scene.session()
    identity = session.load_experiment(SUBJECT).id_experiment
    return lambda: session.delete_experiment(id_experiment=identity)


#: What the slow one does, what the quick one does, and who judges the outcome.
RACES = {
    "update-update": (partial(update, version=2), partial(update, version=3), partial(judge, "update-update")),
    "replace-replace": (partial(replace, version=2), partial(replace, version=3), partial(judge, "replace-replace")),
    "update-replace": (partial(update, version=2), partial(replace, version=3), partial(judge, "update-replace")),
    "replace-update": (partial(replace, version=2), partial(update, version=3), partial(judge, "update-replace")),
    "first-first": (partial(first, version=2), partial(first, version=3), partial(judge, "first-first")),
    "delete-update": (delete, partial(update, version=2), partial(judge_delete, "update")),
    "delete-replace": (delete, partial(replace, version=2), partial(judge_delete, "replace")),
}


class Racer:
    """A thread and the error of what it does."""

    def __init__(self, act) -> None:
        self.act = act
        self.error: BaseException | None = None
        self.thread = Thread(target=self.run, daemon=True)

    def run(self) -> None:
        try:
            self.act()
        except BaseException as error:  # noqa: BLE001 - judged by the test
            self.error = error


@pytest.mark.parametrize(("step", "seconds"), [(4, 0.15), pytest.param(1, 0.3, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", RACES)
def test_a_slow_writer_beside_a_quick_one(tmp_path, monkeypatch, name, step, seconds):
    """Whichever operation of the slow one is late, nothing is lost, errors are typed, and sweep finds nothing."""
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    monkeypatch.setattr(survey, "_MOMENT_S", 0.0)
    template = build(tmp_path / "template")
    slowly, quickly, judged = RACES[name]
    for n in itertools.count(1 + len(name) % step, step):
        scene = template.copy_to(tmp_path / f"{n}")
        storage = FaultStorage(scene.local())
        racers = [Racer(slowly(SimpleNamespace(session=partial(scene.session, storage)))), Racer(quickly(scene))]
        storage.plan = {len(storage.log) + n: Delay(seconds)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MltraqDSWarning)
            racers[0].thread.start()
            while not storage.fired and racers[0].thread.is_alive():
                time.sleep(0.001)
            racers[1].thread.start()
            for racer in racers:
                racer.thread.join()
        try:
            judged(scene, racers)
            swept(scene)
        except BaseException as failure:
            failure.add_note(f"{name}, operation {n} {storage.fired} was late; {[racer.error for racer in racers]}")
            raise
        if not storage.fired:
            break
    assert n > 5
    print(f"{name}: {(n - 1) // step} races")
