"""The work of the demo: linear classifiers of handwritten digits, as steps that are executed on runs.

A module of its own, because workers and the process that predicts again import it.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mltraq_ds.datastore import DataStore
from mltraq_ds.errors import MissingExtraError

if TYPE_CHECKING:
    from mltraq_ds.tracking import Run

__all__ = ["CONFIG", "GRID", "STEPS", "digits", "features", "predict", "split"]

#: What distinguishes the runs: 18 of them.
GRID = {
    "classifier": ["logistic", "ridge", "svm"],
    "features": ["pixels", "pairs"],
    "strength": [0.1, 1.0, 10.0],
}
#: What all runs share.
CONFIG = {"n_train": 1200, "seed": 0}


@functools.cache
def digits() -> tuple[np.ndarray[Any, Any], Any]:
    """Return the scans, shape ``(1797, 8, 8)`` with ink from 0 to 1, and which digit each is (a Series).

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "The demo cannot start because scikit-learn, which brings the scans of digits, is not installed. "
            'Use pip install "mltraq_ds[demo]".'
        ) from error
    bunch = load_digits(as_frame=True)
    return bunch.images / 16, bunch.target


def split(n_train: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the positions of the scans to learn from and of those to test with."""
    order = np.random.default_rng(seed).permutation(len(digits()[0]))
    return order[:n_train], order[n_train:]


def features(images: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Return one row for each scan: its 64 pixels, and with ``pairs`` the products of neighbours too (274)."""
    parts = [images]
    if kind == "pairs":
        parts += [
            images[:, :, 1:] * images[:, :, :-1],
            images[:, 1:] * images[:, :-1],
            images[:, 1:, 1:] * images[:, :-1, :-1],
            images[:, 1:, :-1] * images[:, :-1, 1:],
        ]
    return np.hstack([part.reshape(len(images), -1) for part in parts])


def predict(rows: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> Any:
    """Return the digit of the highest score for each row: all that is left of a classifier is its weights."""
    return np.argmax(rows @ weights + bias, axis=1)


def fit(run: Run) -> None:
    """Learn from the first scans; keeps weights and the time it took."""
    images, truth = digits()
    train, _ = split(run.config.n_train, run.config.seed)
    classifier = _classifier(run.params.classifier, run.params.strength)
    rows = features(images[train], run.params.features)
    start = time.perf_counter()
    classifier.fit(rows, truth.iloc[train])
    run.fields.seconds = time.perf_counter() - start
    run.fields.ds = DataStore()
    run.fields.ds.weights = classifier.coef_.T.copy()
    run.fields.ds.bias = classifier.intercept_


def _classifier(name: str, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.svm import LinearSVC

    if name == "logistic":
        return LogisticRegression(C=strength, max_iter=5000)
    if name == "ridge":
        return RidgeClassifier(alpha=1 / strength)
    return LinearSVC(C=strength, max_iter=20_000, random_state=0)


def evaluate(run: Run) -> None:
    """Predict the other scans; keeps accuracy, predictions, confusion matrix and the scans it got wrong."""
    images, digit = digits()
    _, test = split(run.config.n_train, run.config.seed)
    ds = run.fields.ds
    truth = digit.iloc[test].rename("is")
    ds.predictions = predict(features(images[test], run.params.features), ds.weights, ds.bias)
    is_wrong = truth.to_numpy() != ds.predictions
    run.fields.accuracy = float(1 - is_wrong.mean())
    run.fields.wrong = int(is_wrong.sum())
    table = truth.groupby([truth, ds.predictions]).size().unstack(fill_value=0)
    ds.confusion = table.reindex(index=range(10), columns=range(10), fill_value=0)
    ds.misclassified = images[test][is_wrong]


STEPS = [fit, evaluate]
