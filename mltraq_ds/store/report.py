"""Reports: what check found, what sweep removed, what a rebuild read; each for people, programs and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["REMEDIES", "Finding", "RebuildReport", "Report", "SweepReport", "finding", "size_text"]

_RESTORE = "Restore it from a copy of the store."
_SWEEP = "Use sweep(dry_run=False), which removes it when it is older than the grace."

#: Every kind of finding, in words, and what to do about it.
REMEDIES = {
    "corrupt blob": _RESTORE,
    "dangling reference": "Restore the file from a copy of the store, or persist the experiment without the value.",
    "dead claim": "Use sweep(dry_run=False), which gives the name free.",
    "dead intent": "Open a session, or use sweep(): both finish what a dead writer has begun, unless more is said.",
    "foreign file": "Move it out of the store; sweep leaves it alone.",
    "index drift": "If the files are as they should be, use rebuild_index(); if files were lost, restore them first.",
    "leftover": _SWEEP,
    "moved store": "Use the store where it is now; remove what is left here, and never restore its _store.json.",
    "orphan": _SWEEP,
    "store identity": "Use mltraq_ds.store.maintenance.renew_store_id() on the copy, then rebuild_index() there.",
    "unfinished delete": "Use sweep(dry_run=False), which removes what is left.",
    "unfinished write": _SWEEP,
    "unlisted reference": _RESTORE,
    "unreachable remote": "Look whether it is there and at the credentials; 'remote verify' asks for every blob.",
    "unreachable database": "Start it or look at its URL. If it is lost, or damaged and moved away: rebuild_index().",
    "unreadable descriptor": _RESTORE,
    "unreadable generation": _RESTORE,
    "unreadable intent": "Remove the file if no writer is at work.",
    "unreadable pointer": "Restore it from a copy, such as the last commit in git.",
    "unreadable record": _RESTORE,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Parameters
    ----------
    kind : str
        One of `REMEDIES`; in notes also ``self-managed``, ``at work`` and the like.
    key : str
        Store-relative name of the file; empty for the database.
    experiment : str
        Id of the experiment, if it belongs to one.
    size_bytes : int
        Size of what was found, or of what is missing.
    detail, remedy : str
        What is wrong, and what to do.
    """

    kind: str
    key: str = ""
    experiment: str = ""
    size_bytes: int = 0
    detail: str = ""
    remedy: str = ""


def finding(kind: str, key: str = "", experiment: str = "", size_bytes: int = 0, detail: str = "") -> Finding:
    """Return a finding with the remedy of its kind."""
    return Finding(kind, key, experiment, size_bytes, detail, REMEDIES[kind])


@dataclass(frozen=True)
class _Listed:
    """What the reports share: a sequence of findings with a table, JSON and an exit code."""

    findings: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of all findings (bytes)."""
        return sum(found.size_bytes for found in self.findings)

    def kinds(self) -> dict[str, int]:
        """Return how many findings there are of each kind."""
        found: dict[str, int] = {}
        for one in self.findings:
            found[one.kind] = found.get(one.kind, 0) + 1
        return dict(sorted(found.items()))

    def df(self) -> pd.DataFrame:
        """Return a table with one row per finding; columns as the fields of `Finding`."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.findings], columns=list(Finding.__slots__))

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps({"count": len(self), **asdict(self)}, indent=1)


@dataclass(frozen=True)
class Report(_Listed):
    """What `check` found.  ``len(report) == 0`` means clean.

    Parameters
    ----------
    findings : tuple of Finding
        What is not as it should be.
    notes : tuple of Finding
        What is worth knowing and in order: writers at work, folders that users manage themselves.
    store : str
        URL of the store.
    experiments, blobs : int
        How many were looked at.
    is_deep : bool
        Whether every byte was read.
    """

    store: str = ""
    experiments: int = 0
    blobs: int = 0
    is_deep: bool = False

    @property
    def exit_code(self) -> int:
        """0 if clean, else 1."""
        return 1 if self.findings else 0

    def __str__(self) -> str:
        looked = f"{_counted(self.experiments, 'experiment')} with {_counted(self.blobs, 'blob')} in {self.store}"
        how = "every byte read" if self.is_deep else "sizes and descriptors only"
        first = f"{_counted(len(self), 'finding')} in {looked} ({how})" if self else f"Clean: {looked} ({how})"
        return "\n".join([first, *_lines(self.findings), *_lines(self.notes, "note: ")])


@dataclass(frozen=True)
class SweepReport(_Listed):
    """What `sweep` removed, or would remove.

    Parameters
    ----------
    findings : tuple of Finding
        One for each file.
    notes : tuple of Finding
        What was left alone, and why.
    store : str
        URL of the store.
    dry_run : bool
        Whether nothing was removed.
    young : int
        How many files of experiments stay only because they are younger than the grace.
    """

    store: str = ""
    dry_run: bool = True
    young: int = 0

    def __str__(self) -> str:
        verb = "would be removed" if self.dry_run else "was removed" if len(self) == 1 else "were removed"
        first = f"{_counted(len(self), 'file')} ({size_text(self.size_bytes)}) {verb} from {self.store}"
        kinds = [f"  {number} × {kind}" for kind, number in self.kinds().items()]
        return "\n".join([first, *kinds, *_lines(self.notes, "note: ")])


@dataclass(frozen=True)
class RebuildReport(_Listed):
    """What a rebuild of the index did.

    Parameters
    ----------
    findings : tuple of Finding
        What could not be read, and is not in the index.
    notes : tuple of Finding
        Experiments that count as deleted because another one has taken their place.
    store : str
        URL of the store.
    experiments, runs, blobs : int
        How many were read.
    written, removed, kept : int
        Experiments whose rows were made what the files say, removed, or left to a writer that changed them meanwhile.
    """

    store: str = ""
    experiments: int = 0
    runs: int = 0
    blobs: int = 0
    written: int = 0
    removed: int = 0
    kept: int = 0

    @property
    def exit_code(self) -> int:
        """0 if everything could be read, else 1."""
        return 1 if self.findings else 0

    def __str__(self) -> str:
        first = (
            f"{_counted(self.experiments, 'experiment')}, {_counted(self.runs, 'run')} and "
            f"{_counted(self.blobs, 'blob')} of {self.store} were read: "
            f"{self.written} written, {self.removed} removed, {self.kept} left to writers at work"
        )
        return "\n".join([first, *_lines(self.findings), *_lines(self.notes, "note: ")])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _lines(found: Sequence[Finding], prefix: str = "", limit: int = 100) -> Iterator[str]:
    for one in found[:limit]:
        size = f" ({size_text(one.size_bytes)})" if one.size_bytes else ""
        remedy = f" {one.remedy}" if one.remedy else ""
        yield f"  {prefix}{one.kind}: {one.key or one.experiment}{size}: {one.detail}{remedy}"
    if len(found) > limit:
        yield f"  … and {len(found) - limit} more; df() and to_json() have all"


def size_text(size_bytes: int) -> str:
    """Return a size for people.

    Examples
    --------
    >>> size_text(999), size_text(23_456)
    ('999 B', '23.5 kB')
    """
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:,.1f} {units[0]}"


@dataclass
class Notebook:
    """Where findings and notes are collected."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def add(self, kind: str, key: str = "", experiment: str = "", size_bytes: int = 0, detail: str = "") -> None:
        """Add a finding."""
        self.findings.append(finding(kind, key, experiment, size_bytes, detail))

    def note(self, kind: str, key: str = "", experiment: str = "", size_bytes: int = 0, detail: str = "") -> None:
        """Add a note."""
        self.notes.append(Finding(kind, key, experiment, size_bytes, detail))

    def update(self, other: Notebook) -> None:
        """Add everything of another one."""
        self.findings += other.findings
        self.notes += other.notes

    def parts(self) -> dict[str, Any]:
        """Return both as a report takes them, in the order of keys; what two looks found alike is there once."""
        order = sorted(self.findings, key=lambda one: (one.key, one.experiment, one.kind))
        return {"findings": tuple(dict.fromkeys(order)), "notes": tuple(self.notes)}
