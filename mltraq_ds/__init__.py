"""Put anything on a run, persist it, find it, load it.

Public names are loaded when first used (PEP 562): ``import mltraq_ds`` imports nothing else and touches nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltraq_ds import errors as errors
    from mltraq_ds import ids as ids
    from mltraq_ds.bunch import Bunch as Bunch
    from mltraq_ds.settings import options as options

__version__ = "0.1.0"

# Name to the module that has it; a module of ours stands for itself.  `TYPE_CHECKING` above says the same to type
# checkers, and a test compares the two.
_HOMES = {
    "Bunch": "mltraq_ds.bunch",
    "errors": "mltraq_ds.errors",
    "ids": "mltraq_ds.ids",
    "options": "mltraq_ds.settings",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(home)
    value: object = module if home == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
