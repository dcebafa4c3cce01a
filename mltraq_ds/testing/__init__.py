"""What we test our storages with, for yours too: conformance suites and a storage that fails on purpose.

`StorageConformance`, `StoreConformance` and `CodecConformance` (need pytest), and `FaultStorage` with its faults;
loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltraq_ds.testing.codec import CodecConformance
    from mltraq_ds.testing.fault_storage import FaultStorage
    from mltraq_ds.testing.faults import Call, Callback, Delay, Fail, Fault, Kill, LoseResponse, Short
    from mltraq_ds.testing.storage import StorageConformance
    from mltraq_ds.testing.store import StoreConformance

__all__ = [
    "Call",
    "Callback",
    "CodecConformance",
    "Delay",
    "Fail",
    "Fault",
    "FaultStorage",
    "Kill",
    "LoseResponse",
    "Short",
    "StorageConformance",
    "StoreConformance",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    places = {
        "CodecConformance": "codec",
        "FaultStorage": "fault_storage",
        "StorageConformance": "storage",
        "StoreConformance": "store",
    }
    module = places.get(name, "faults")
    return getattr(import_module(f"{__name__}.{module}"), name)
