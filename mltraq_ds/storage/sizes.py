"""Bounds of what is read whole: files are untrusted, also how large they are, and what they are."""

from __future__ import annotations

import os
import stat

from mltraq_ds.errors import CorruptRecordError

__all__ = ["check_is_regular", "check_size"]


def check_size(key: str, size: int, max_size: int | None) -> None:
    """Raise `CorruptRecordError` if a key is larger (bytes) than anything that is written under such a name."""
    if max_size is not None and size > max_size:
        raise CorruptRecordError(
            f"read {key!r} is refused because it has {size:,} bytes and such a file has at most {max_size:,}, so it "
            "was damaged or put there by somebody else. Restore it from a copy, or remove it."
        )


def check_is_regular(key: str, status: os.stat_result) -> None:
    """Raise `CorruptRecordError` if something that is neither file nor folder has the name of a record."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise CorruptRecordError(
            f"read {key!r} is refused because it is a device, pipe or socket (mode {status.st_mode:o}). Remove it."
        )
