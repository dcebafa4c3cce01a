"""SIGKILL at each seam of a persist and at each step of a delete, in a process of its own."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import ACTIONS, Scene, build, check_promise

from mltraq_ds.store.commit import SEAMS, Persist
from mltraq_ds.tracking import session as session_module

COMMITTED = SEAMS[SEAMS.index("end_replaced") :]


def act(root: Path, name: str, seam: str) -> None:
    """Do it, and die at the seam."""
    dying = functools.partial(Persist, on_seam=lambda met: met == seam and os.kill(os.getpid(), signal.SIGKILL))
    session_module.Persist = dying
    ACTIONS[name].run(Scene(root).session())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("template") / "scene")


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("name", ["new", "update", "replace"])
def test_killed_at_a_seam(template, tmp_path, name, seam):
    """Killed before the commit the old version is there, killed after it the new one, and work goes on at once."""
    scene = template.copy_to(tmp_path / "scene")
    child = children.run(tmp_path, act, scene.root, name, seam)
    assert child.wait() == children.KILLED, child.said()
    started = time.monotonic()
    action = ACTIONS[name]
    check_promise(scene, action, must_be=action.after if seam in COMMITTED else action.before)
    assert time.monotonic() - started < 10  # a lease would be ten minutes


@pytest.mark.parametrize("seam", SEAMS)
def test_killed_at_two_seams_in_a_row(template, tmp_path, seam):
    """A second process that recovers from the first and is killed at the same seam leaves nothing worse."""
    scene = template.copy_to(tmp_path / "scene")
    for name in ("replace", "update", "replace"):
        child = children.run(tmp_path, act, scene.root, name, seam)
        assert child.wait() == children.KILLED, child.said()
    action = ACTIONS["replace"]
    check_promise(scene, action, must_be=action.after if seam in COMMITTED else action.before)
