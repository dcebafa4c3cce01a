"""Flavors: which of MLflow's modules takes a model, told by its class, without importing any library."""

from __future__ import annotations

import sys
from types import MappingProxyType

__all__ = ["FLAVORS", "flavor_of"]

#: Flavor (a module of MLflow) -> where its classes are.  The first that fits is taken: models of xgboost and lightgbm
#: with the interface of scikit-learn are estimators of that library too.
FLAVORS = MappingProxyType(
    {
        "xgboost": ("xgboost:Booster", "xgboost:XGBModel"),
        "lightgbm": ("lightgbm:Booster", "lightgbm:LGBMModel"),
        "prophet": ("prophet:Prophet",),
        "statsmodels": ("statsmodels.base.wrapper:ResultsWrapper", "statsmodels.base.model:Results"),
        "pytorch": ("torch.nn:Module",),
        "sklearn": ("sklearn.base:BaseEstimator",),
    }
)


def flavor_of(value: object) -> str | None:
    """Return the flavor that takes a value, None if there is none; subclasses are taken too.

    Whoever has made a value has imported its class, so it is enough to look among the modules that are there.
    """
    for flavor, places in FLAVORS.items():
        if any(isinstance(value, kind) for kind in map(_imported, places) if kind is not None):
            return flavor
    return None


def _imported(place: str) -> type | None:
    module, _, name = place.partition(":")
    found = getattr(sys.modules.get(module), "__dict__", {}).get(name)  # not by getattr: it could import
    return found if isinstance(found, type) else None
