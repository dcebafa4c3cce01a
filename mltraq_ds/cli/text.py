"""What the command line prints: tables, sizes, and text from outside that must not steer the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from mltraq_ds.option_table import redact

__all__ = ["cell", "is_terminal", "one_line", "print_table", "printable", "size_text", "utc_text"]

#: Longest text in a cell (characters).
MAX_CELL = 48
#: Width of what no terminal limits (characters).
WIDEST = 10_000


def printable(text: str) -> str:
    r"""Return a text with control characters as escapes: names are any string, also one that would clear the screen.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """Return a message on one line, without passwords and control characters."""
    return printable(redact(" ".join(text.split())))


def size_text(size_bytes: int) -> str:
    """Return a size for people.

    Examples
    --------
    >>> size_text(999), size_text(23_456), size_text(5_000_000_000)
    ('999 B', '23.5 kB', '5.0 GB')
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:,.1f} TB"


def is_terminal() -> bool:
    """Tell whether progress is shown: somebody is looking."""
    return sys.stderr.isatty()


def utc_text(time: str | datetime) -> str:
    """Return a time for people, in UTC; a text that is no time is returned as it is.

    Examples
    --------
    >>> utc_text("2026-03-04T05:06:07.891011+01:00"), utc_text("at noon")
    ('2026-03-04 04:06:07', 'at noon')
    """
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return printable(str(time))
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def cell(value: Any) -> str:
    """Return a value as the text of a cell: short, and on one line."""
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of numpy says its type otherwise
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return ""
    text = printable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table: as wide as the terminal, or in a file and a pipe as wide as it needs, one line a row.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : iterable of sequence of str
        Texts, one for each column; nothing in them is markup.
    right : sequence of str
        Headings of columns that are aligned to the right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=None if is_terminal else WIDEST)
    with console.capture() as lines:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in lines.get().splitlines()), color=is_terminal)
