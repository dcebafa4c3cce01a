"""Row: one piece of work, who does it, and what we want to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from bench.work import Work

__all__ = ["OURS", "Contestant", "Row", "Target"]

OURS = "mltraq_ds"


class Contestant:
    """Somebody who does the work of a row.

    Each phase of the row is a method, called in a fresh process, all in one folder.  What is inside ``with
    work.timed(label)`` is measured.  A later phase asserts that it reads what an earlier one wrote.
    """

    name: ClassVar[str]
    #: Modules that it cannot do without, and what pip calls them.
    needs: ClassVar[Sequence[str]] = ()
    #: Programs that it cannot do without, and the package of pip that has each.
    programs: ClassVar[Mapping[str, str]] = {}
    #: Whether it takes part without ``--full``.
    is_quick: ClassVar[bool] = True
    #: The labels that it measures.
    labels: ClassVar[Sequence[str]] = ()

    def __init__(self, work: Work) -> None:
        self.work = work
        self.size: Mapping[str, Any] = work.size


@dataclass(frozen=True)
class Target:
    """What is wanted of our figure: at most `factor` times that of `reference`, or at most `seconds`.

    The figure of the reference is that of the same label, or of `reference_label`.
    """

    label: str
    reference: str = ""
    factor: float = 0.0
    seconds: float = 0.0
    contestant: str = OURS
    reference_label: str = ""

    def text(self) -> str:
        """Say it."""
        if not self.reference:
            return f"≤ {self.seconds * 1000:g} ms"
        what = f"{self.reference}, {self.reference_label}" if self.reference_label else self.reference
        return f"≤ {self.factor:.4g} × {what}"


@dataclass(frozen=True)
class Row:
    """One piece of work.

    Parameters
    ----------
    name, title : str
        For the command line, and for people.
    phases : sequence of str
        Methods of the contestants, in order, each in a process of its own.
    contestants : sequence of type
        Who takes part.
    quick, full : mapping
        Sizes; with `quick` None the row is measured with ``--full`` only.
    targets : sequence of Target
        What is wanted.
    prepare : sequence of str
        Phases that are done once before the rounds, which then share the folder.
    """

    name: str
    title: str
    phases: Sequence[str]
    contestants: Sequence[type[Contestant]]
    full: Mapping[str, Any]
    quick: Mapping[str, Any] | None = None
    targets: Sequence[Target] = ()
    prepare: Sequence[str] = ()
    labels: Sequence[str] = ()

    def contestant(self, name: str) -> type[Contestant]:
        """Return the one of this name."""
        return next(contestant for contestant in self.contestants if contestant.name == name)

    def labels_of(self, name: str) -> Sequence[str]:
        """Return what a contestant measures in this row."""
        return self.contestant(name).labels or self.labels
