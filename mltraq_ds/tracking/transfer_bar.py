"""A progress bar for each long transfer, unless option ``tqdm.disable`` says not to."""

from __future__ import annotations

import threading
from typing import Any

from mltraq_ds.settings import resolve

__all__ = ["TransferBar", "transfer_bar"]


class TransferBar:
    """The bar of one transfer, as `mltraq_ds.storage.transfers.Transfer` has it."""

    def __init__(self, verb: str, key: str) -> None:
        self._text = f"{verb} {key[-40:]}"
        self._bar: Any = None
        self._lock = threading.Lock()

    def set_size(self, size: int) -> None:
        """Show the bar; `size` is that of the whole (bytes)."""
        from tqdm.auto import tqdm

        self._bar = tqdm(total=size, desc=self._text, unit="B", unit_scale=True, leave=False)

    def relative_update(self, inc: int = 1) -> None:
        """Move the bar by `inc` bytes."""
        with self._lock:
            self._bar.update(inc)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def transfer_bar(verb: str, key: str, size: int) -> TransferBar | None:
    """Return a bar for a transfer, or None under ``tqdm.disable``."""
    return None if resolve()["tqdm.disable"] else TransferBar(verb, key)
