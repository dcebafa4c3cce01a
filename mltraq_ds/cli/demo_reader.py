"""The second process of the demo: loads one run, predicts again from its weights, and prints that as JSON."""

from __future__ import annotations

import json
import os
import sys

from mltraq_ds.cli.demo_steps import digits, features, predict, split
from mltraq_ds.tracking import create_session

__all__ = ["main"]


def main(database: str, store: str, name: str, id_run: str) -> None:
    """Print ``{"process": id, "predictions": […]}``; of the run's values only weights and bias are read."""
    run = create_session(database, store).load_experiment(name).runs[id_run]
    _, test = split(run.config.n_train, run.config.seed)
    rows = features(digits()[0][test], run.params.features)
    predictions = predict(rows, run.fields.ds.weights, run.fields.ds.bias)
    print(json.dumps({"process": os.getpid(), "predictions": predictions.tolist()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
