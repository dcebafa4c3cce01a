"""The table of rows, in the order of the report."""

from __future__ import annotations

from bench.row import Row
from bench.rows import arrays, imports, lakes, remotes, scale, stores, tracking, values

__all__ = ["ROWS", "select"]

ROWS: list[Row] = [
    *imports.ROWS,
    *arrays.ROWS,
    *values.ROWS,
    *tracking.ROWS,
    *scale.ROWS,
    *stores.ROWS,
    *lakes.ROWS,
    *remotes.ROWS,
]


def select(names: str, *, is_full: bool) -> list[Row]:
    """Return the rows of these comma-separated names; without names those of the quick subset, or all."""
    wanted = [name for name in names.split(",") if name]
    unknown = set(wanted) - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f"There are no rows {sorted(unknown)}. Known: {[row.name for row in ROWS]}.")
    if wanted:
        return [row for row in ROWS if row.name in wanted]
    return [row for row in ROWS if is_full or row.quick is not None]
