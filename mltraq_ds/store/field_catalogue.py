"""The catalogue of fields: which params and metrics there are over all runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FieldInfo", "catalogue"]

_NOT_FINITE = {"NaN", "Infinity", "-Infinity"}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One name among the params or metrics of runs.

    Parameters
    ----------
    part : str
        ``params`` or ``metrics``.
    name : str
        Its name.
    type : str
        ``bool``, ``int``, ``float`` (also if some are integers), ``str``, ``other``, or ``mixed``.
    count : int
        How many runs have it.
    minimum, maximum : float, str or None
        Of finite numbers, or of texts; None if there are none, or kinds are mixed.
    """

    part: str
    name: str
    type: str
    count: int
    minimum: float | str | None = None
    maximum: float | str | None = None


class _Seen:
    def __init__(self) -> None:
        self.types: set[str] = set()
        self.count = 0
        self.ranges: dict[bool, tuple[Any, Any]] = {}

    def add(self, value: Any) -> None:
        self.count += 1
        kind = _kind(value)
        self.types.add(kind)
        if kind == "str" or (kind in ("int", "float") and not isinstance(value, str) and math.isfinite(value)):
            low, high = self.ranges.get(kind == "str", (value, value))
            self.ranges[kind == "str"] = (min(low, value), max(high, value))

    def info(self, part: str, name: str) -> FieldInfo:
        types = self.types - {"int"} if {"int", "float"} <= self.types else self.types
        kind = types.pop() if len(types) == 1 else "mixed"
        low, high = self.ranges.get(kind == "str", (None, None)) if kind != "mixed" else (None, None)
        return FieldInfo(part, name, kind, self.count, low, high)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float) or (isinstance(value, str) and value in _NOT_FINITE):
        return "float"
    return type(value).__name__ if isinstance(value, int | str) else "other"


def catalogue(runs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[FieldInfo]:
    """Return what is known of each param and metric of runs, given as pairs of mappings.

    Examples
    --------
    >>> catalogue([({"lr": 0.1}, {"loss": 2}), ({"lr": 1}, {})])  # doctest: +NORMALIZE_WHITESPACE
    [FieldInfo(part='metrics', name='loss', type='int', count=1, minimum=2, maximum=2),
     FieldInfo(part='params', name='lr', type='float', count=2, minimum=0.1, maximum=1)]
    """
    seen: dict[tuple[str, str], _Seen] = {}
    for params, metrics in runs:
        for part, values in (("params", params), ("metrics", metrics)):
            for name, value in values.items():
                seen.setdefault((part, name), _Seen()).add(value)
    return [found.info(*key) for key, found in sorted(seen.items())]
