"""Scalars of the standard library as JSON with a tag, and back; what is read comes from a file and is not trusted."""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import math
import re
import uuid
from collections.abc import Callable
from pathlib import PosixPath, PurePosixPath
from typing import Any

__all__ = ["MAX_INT", "PARSERS", "SCALARS"]

#: Larger integers are tagged: Python refuses to read decimal numbers of more digits than a limit that users may lower.
MAX_INT = 1 << 2000
_FRACTION = re.compile(r"-?[0-9]+(/[0-9]+)?")


def _finite(value: complex) -> bool:
    return math.isfinite(value.real) and math.isfinite(value.imag)


def _fraction_text(value: fractions.Fraction) -> str | None:
    return str(value) if max(abs(value.numerator), value.denominator) < MAX_INT else None


def _fraction(text: str) -> fractions.Fraction:
    if not _FRACTION.fullmatch(text):  # Fraction("1e999999999") would count to that
        raise ValueError(f"{text!r:.40} is not a fraction")
    return fractions.Fraction(text)


#: Type to name, what dumps it (None: it cannot be held exactly) and what parses that.
SCALARS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    complex: ("complex", lambda v: [v.real, v.imag] if _finite(v) else None, lambda p: complex(*map(float, p))),
    bytes: ("bytes", lambda v: base64.b64encode(v).decode(), lambda p: base64.b64decode(p, validate=True)),
    datetime.datetime: ("datetime", lambda v: v.isoformat(), datetime.datetime.fromisoformat),
    datetime.date: ("date", lambda v: v.isoformat(), datetime.date.fromisoformat),
    datetime.time: ("time", lambda v: v.isoformat(), datetime.time.fromisoformat),
    datetime.timedelta: (
        "timedelta",
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda p: datetime.timedelta(*map(int, p)),
    ),
    uuid.UUID: ("uuid", str, uuid.UUID),
    decimal.Decimal: ("decimal", str, decimal.Decimal),
    fractions.Fraction: ("fraction", _fraction_text, _fraction),
    PosixPath: ("path", str, PosixPath),
    PurePosixPath: ("pure_path", str, PurePosixPath),
}
#: Name to what parses its content.
PARSERS = {name: parse for name, _, parse in SCALARS.values()}
