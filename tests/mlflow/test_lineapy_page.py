"""The page on storage backends, with lineapy replaced by mltraq_ds and "lineapy" as a backend by "native"."""

import numpy as np
import pytest

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sklearn")

from sklearn.linear_model import LinearRegression  # noqa: E402

import mltraq_ds  # noqa: E402

#: Given to log_model, which otherwise tries out for ten seconds what a model needs.
QUICK = {"pip_requirements": ["scikit-learn"]}
X = np.arange(12.0).reshape(6, 2)


def fitted():
    return LinearRegression().fit(X, X[:, 0] * 3)


def keeper(*arguments, **named):
    """Save, and tell who keeps the model; native values are wrapped, since pickles are never written unasked."""
    try:
        return mltraq_ds.save(fitted(), *arguments, **named, **QUICK).storage_backend
    except mltraq_ds.errors.UsageError:
        return mltraq_ds.save(mltraq_ds.Pickled(fitted()), *arguments, **named).storage_backend


def test_only_the_tracking_uri_is_set(home, tracking):
    """Only mlflow_tracking_uri is set, and not default_ml_models_storage_backend."""
    mltraq_ds.options.set("mlflow_tracking_uri", tracking)
    assert keeper("model") == "mlflow"
    assert keeper("model", storage_backend="mlflow") == "mlflow"
    assert keeper("model", storage_backend="native") == "native"


def test_the_default_is_mlflow(home, tracking):
    """Both are set, the default to "mlflow"."""
    mltraq_ds.options.set("mlflow_tracking_uri", tracking)
    mltraq_ds.options.set("default_ml_models_storage_backend", "mlflow")
    assert keeper("model") == "mlflow"
    assert keeper("model", storage_backend="mlflow") == "mlflow"
    assert keeper("model", storage_backend="native") == "native"


def test_the_default_is_ours(home, tracking):
    """Both are set, the default to "lineapy", which is "native" here."""
    mltraq_ds.options.set("mlflow_tracking_uri", tracking)
    mltraq_ds.options.set("default_ml_models_storage_backend", "native")
    assert keeper("model") == "native"
    assert keeper("model", storage_backend="mlflow") == "mlflow"
    assert keeper("model", storage_backend="native") == "native"


def test_retrieving_from_both(home, tracking):
    """Configuring MLflow, a registered model name, and retrieving the artifact from both."""
    model = fitted()
    mlflow.set_tracking_uri(tracking)
    mlflow.set_registry_uri(tracking)
    mltraq_ds.options.set("mlflow_tracking_uri", tracking)
    mltraq_ds.options.set("mlflow_registry_uri", tracking)
    try:
        mltraq_ds.save(model, name="model", storage_backend="mlflow", registered_model_name="clf", **QUICK)
        artifact = mltraq_ds.get("model")
        our_model = artifact.get_value()
        client = mlflow.MlflowClient()
        latest_version = client.search_model_versions("name='clf'")[0].version
        mlflow_model = mlflow.sklearn.load_model(f"models:/clf/{latest_version}")
        assert np.array_equal(our_model.predict(X), model.predict(X))
        assert np.array_equal(mlflow_model.predict(X), our_model.predict(X))
        assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == (tracking, tracking)
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
