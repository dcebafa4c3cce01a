"""Keeper: writes the intent of a writer at work, and renews it for as long as the work takes."""

from __future__ import annotations

import _thread
import logging
import threading
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors
from mltraq_ds.store.intents import DONE, Intent, at_work

__all__ = ["Keeper"]

_LOG = logging.getLogger("mltraq_ds")

RENEW_S = 60.0


class Keeper:
    """Write an intent and renew it until told to stop, however long it takes; before `RENEW_S` that costs nothing."""

    def __init__(self, storage: Storage, intent: Intent) -> None:
        self.intent = intent
        self._storage = storage
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def update(self, **changes: Any) -> None:
        """Write a changed intent in place of the present one."""
        with self._lock:
            self.intent = replace(self.intent, **changes)
            self._write()

    def leave(self) -> None:
        """Note that the writer has gone on and others may finish its work; they find out by themselves if this fails.

        Without the note only this process knows at once, others when it ends.
        """
        with suppress(OSError):
            self.update(process=DONE)

    def _write(self) -> None:
        data = descriptors.to_bytes("intent", self.intent.to_body())
        self._storage.put(self.intent.key, [data], size=len(data), parents=True, replace=True)

    def _keep_renewing(self) -> None:
        while not self._stopped.wait(RENEW_S):
            try:
                with self._lock:
                    if not self._stopped.is_set():
                        self._write()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next time may be better
                with suppress(Exception):  # filters of users
                    _LOG.warning("The intent %s was not renewed, and is tried again: %s", self.intent.key, error)

    def _start(self) -> None:
        try:
            # A `threading.Thread` would be waited for until it runs, in every persist.
            _thread.start_new_thread(self._keep_renewing, ())
        except RuntimeError as error:  # too many, or Python is ending: what is short needs no renewal
            _LOG.warning("The intent %s is not renewed: %s", self.intent.key, error)

    def __enter__(self) -> Keeper:
        at_work.add(self.intent.writer)
        try:
            with self._lock:
                self._write()
            self._start()
        except BaseException:
            self._stopped.set()
            at_work.discard(self.intent.writer)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A renewal under way ends first: written after the removal, it would keep a finished intent for ever.
        self._stopped.set()
        try:
            with self._lock:
                pass
        finally:
            at_work.discard(self.intent.writer)
