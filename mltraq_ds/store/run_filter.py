"""RunFilter: which run records are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.store.types import RunRecord, Status

__all__ = ["RunFilter"]


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Tells whether a run record is wanted.

    Parameters
    ----------
    status : Status or str, optional
        How the run has ended.
    tags : tuple of str
        All of these are among its tags.
    metrics : mapping
        Metrics, and what each is equal to (NaN to NaN); a run without the metric is not wanted.

    Examples
    --------
    >>> wanted = RunFilter("success", ("a",), {"depth": 3})
    >>> wanted(RunRecord.success("1", "x", tags=["a", "b"], metrics={"depth": 3}))
    True
    """

    status: Status | str | None = None
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tags = (self.tags,) if isinstance(self.tags, str) else tuple(self.tags or ())
        object.__setattr__(self, "tags", tags)
        if self.status is None:
            return
        try:
            object.__setattr__(self, "status", Status(self.status))
        except ValueError:
            known = ", ".join(Status)
            raise UsageError(f"No run has the status {self.status!r}. Use one of {known}.") from None

    def __call__(self, record: RunRecord) -> bool:
        return (
            self.status in (None, record.status)
            and set(self.tags) <= set(record.tags)
            and all(name in record.metrics and _equal(record.metrics[name], v) for name, v in self.metrics.items())
        )


def _equal(found: Any, wanted: Any) -> bool:
    return bool(found == wanted) or bool(found != found and wanted != wanted)
