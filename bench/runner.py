"""Runner: measures the contestants of a row, interleaved, each in a fresh process and folder."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.row import OURS, Row, Target

__all__ = ["Figure", "Figures", "Plan", "measure"]

#: Another interpreter for a contestant whose dependencies do not fit ours: MLTRAQ_DS_BENCH_PYTHON_MLTRAQ=/path/python
_PYTHON_VARIABLE = "MLTRAQ_DS_BENCH_PYTHON_"


@dataclass(frozen=True)
class Plan:
    """How much is measured; without names in `contestants` all take part."""

    is_full: bool
    repeats: int
    contestants: frozenset[str] = frozenset()

    def size_of(self, row: Row) -> Mapping[str, Any]:
        """Return the sizes of a row."""
        return row.full if self.is_full or row.quick is None else row.quick

    def names_of(self, row: Row) -> list[str]:
        """Return who takes part."""
        needed = {OURS, *(t.contestant for t in row.targets), *(t.reference for t in row.targets)}
        return [
            contestant.name
            for contestant in row.contestants
            if self.is_full or contestant.is_quick
            if not self.contestants or contestant.name in self.contestants | needed
        ]


@dataclass
class Figure:
    """What one contestant needed for one label."""

    seconds: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    anonymous_bytes: int | None = None
    disk_bytes: int | None = None

    @property
    def median(self) -> float:
        """Median of the rounds (s)."""
        return statistics.median(self.seconds)

    def as_json(self, reference: Figure | None) -> dict[str, Any]:
        """Return all of it; the ratio is the median of the ratios of the same rounds."""
        return {
            "median_s": self.median,
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
            "seconds": self.seconds,
            "ratio": ratio(self, reference) if reference else None,
            "extra_rss_bytes": max(self.rss_bytes, default=None),
            "extra_anonymous_bytes": self.anonymous_bytes,
            "disk_bytes": self.disk_bytes,
        }


def ratio(ours: Figure, reference: Figure) -> float:
    """Return the median of the ratios, each of one round: neighbours in time share their noise."""
    return statistics.median(a / b for a, b in zip(ours.seconds, reference.seconds, strict=True))


@dataclass
class Figures:
    """What was measured of a row."""

    row: Row
    size: Mapping[str, Any]
    found: dict[tuple[str, str], Figure] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def figure(self, label: str, contestant: str) -> Figure:
        """Return the figure, empty if there is none yet."""
        return self.found.setdefault((label, contestant), Figure())

    def reference(self, label: str) -> Figure | None:
        """Return what the others are compared with."""
        target = next((t for t in self.row.targets if t.label == label and t.reference and not t.reference_label), None)
        return self.found.get((label, target.reference)) if target else None

    def reached(self, target: Target) -> float | None:
        """Return our figure in the unit of the target (a ratio or s); None if one of both was not measured."""
        ours = self.found.get((target.label, target.contestant))
        if ours is None or not ours.seconds:
            return None
        if not target.reference:
            return ours.median
        reference = self.found.get((target.reference_label or target.label, target.reference))
        return ratio(ours, reference) if reference and reference.seconds else None


def measure(row: Row, plan: Plan, folder: Path) -> Figures:
    """Measure a row: `repeats` rounds, each with all contestants in turn; with all sizes also one for the memory."""
    _compile_modules()
    figures = Figures(row, plan.size_of(row))
    names = plan.names_of(row)
    for name in names:
        for phase in row.prepare:
            _run(figures, name, phase, folder / name, 0)
    for number in range(plan.repeats + plan.is_full):
        is_watched = number == plan.repeats
        # Each round begins with another one, so that none is always the neighbour of the same.
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            if name not in figures.skipped:
                _round(figures, name, folder / name, number, is_watched)
    shutil.rmtree(folder, ignore_errors=True)
    return figures


@cache
def _compile_modules() -> None:
    """Write the bytecode of our modules, as pip does when it installs those of the others.

    An editable installation is compiled at first use, or at each with ``PYTHONDONTWRITEBYTECODE``.
    """
    root = Path(__file__).parent.parent
    for folder in ("bench", "mltraq_ds"):
        if not compileall.compile_dir(root / folder, quiet=1):
            raise AssertionError(f"the modules in {root / folder} cannot be compiled")


def _round(figures: Figures, name: str, folder: Path, number: int, is_watched: bool) -> None:
    row = figures.row
    for phase in row.phases:
        answered = _run(figures, name, phase, folder, number, is_watched=is_watched)
        size = _size_of(folder)
        for label, found in answered.items():
            figure = figures.figure(label, name)
            figure.disk_bytes = size
            if is_watched:
                figure.anonymous_bytes = int(found["anonymous_bytes"])
            else:
                figure.seconds.append(found["seconds"])
                figure.rss_bytes.append(int(found["rss_bytes"]))
    if not row.prepare:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    figures: Figures, name: str, phase: str, folder: Path, number: int, *, is_watched: bool = False
) -> dict[str, Any]:
    if name in figures.skipped:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    order = {
        "row": figures.row.name,
        "contestant": name,
        "phase": phase,
        "folder": str(folder),
        "size": dict(figures.size),
        "round": number,
        "is_watched": is_watched,
    }
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    python = os.environ.get(_PYTHON_VARIABLE + name.split()[0].upper(), sys.executable)
    done = subprocess.run(
        [python, "-m", "bench.worker", json.dumps(order)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"{figures.row.name}, {name}, {phase} failed:\n{done.stderr[-3000:]}")
    answer = json.loads(done.stdout.rstrip().splitlines()[-1])
    if "skipped" in answer:
        figures.skipped[name] = answer["skipped"]
        return {}
    found: dict[str, Any] = answer["figures"]
    return found


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def targets_of(figures: Sequence[Figures]) -> list[tuple[Figures, Target, float | None]]:
    """Return every target with what was reached."""
    return [(each, target, each.reached(target)) for each in figures for target in each.row.targets]
