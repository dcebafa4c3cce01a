"""Models of larger libraries kept by MLflow, as far as they are installed (tox environment ``mlflow-heavy``)."""

import numpy as np
import pytest

mlflow = pytest.importorskip("mlflow")

from mltraq_ds import get, save  # noqa: E402

QUICK = {"pip_requirements": []}
X = np.random.default_rng(7).normal(size=(60, 3))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


def kept(value, flavor, **arguments):
    name = f"heavy-{flavor}-{type(value).__name__}"
    artifact = save(value, "model", registered_model_name=name, **QUICK, **arguments)
    assert artifact.storage_backend == "mlflow"
    assert artifact.get_metadata()["flavor"] == flavor
    return get("model").get_value()


def test_xgboost_with_the_interface_of_sklearn(home):
    """A classifier of xgboost is xgboost's although it is an estimator of scikit-learn; subclasses too."""
    xgboost = pytest.importorskip("xgboost")

    # As a class of this module, since MLflow looks there when it loads.
    mine_class = globals()["Mine"] = type("Mine", (xgboost.XGBRegressor,), {"__module__": __name__})
    value = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(X, Y)
    assert np.array_equal(kept(value, "xgboost").predict_proba(X), value.predict_proba(X))
    mine = mine_class(n_estimators=4, max_depth=2).fit(X, Y)
    assert np.array_equal(kept(mine, "xgboost").predict(X), mine.predict(X))


def test_xgboost_booster(home):
    """A booster of xgboost comes back with equal predictions."""
    xgboost = pytest.importorskip("xgboost")
    table = xgboost.DMatrix(X, label=Y)
    value = xgboost.train({"max_depth": 2}, table, num_boost_round=4)
    assert np.array_equal(kept(value, "xgboost").predict(table), value.predict(table))


def test_lightgbm(home):
    """A booster and a classifier of lightgbm come back with equal predictions."""
    lightgbm = pytest.importorskip("lightgbm")
    value = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(X, Y)
    assert np.array_equal(kept(value, "lightgbm").predict_proba(X), value.predict_proba(X))
    booster = value.booster_
    assert np.array_equal(kept(booster, "lightgbm").predict(X), booster.predict(X))


def test_prophet(home):
    """A forecast of prophet comes back equal."""
    prophet = pytest.importorskip("prophet")
    import pandas as pd

    days = pd.DataFrame({"ds": pd.date_range("2026-01-01", periods=40), "y": np.arange(40.0)})
    value = prophet.Prophet(uncertainty_samples=0).fit(days)
    assert np.allclose(kept(value, "prophet").predict(days).yhat, value.predict(days).yhat)


def test_torch(home):
    """A module of torch comes back with equal outputs."""
    torch = pytest.importorskip("torch")
    value = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    inputs = torch.from_numpy(X).float()
    with torch.no_grad():
        assert torch.equal(kept(value, "pytorch", serialization_format="pickle")(inputs), value(inputs))
