"""A store to be uploaded, and looks at stores and remotes that do not go through the code under test."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.tracking import Session

RUNS = 3


def build(folder: Path) -> Session:
    """Return a session whose store has one experiment: two fields of DataStores, and a direct value, for each run."""
    options.set("tqdm.disable", True)
    session = open_session(folder / "store")
    experiment = session.create_experiment("digits")
    experiment.fields.summary = DataStore(table=np.arange(300.0))
    for number in range(RUNS):
        with experiment.run() as run:
            run.fields.score = number / 4
            run.fields.weights = DataStore(w=np.arange(3000.0) + number, b=np.ones(200) * number)
            run.fields.images = DataStore(pixels=np.full((32, 32), number, dtype="uint8"))
    experiment.persist()
    return session


def open_session(store: object) -> Session:
    """Return a session on a store, with a database of its own that knows it."""
    session = create_session("sqlite:///:memory:", store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session.rebuild_index()
    return session


def values_of(session: Session) -> list[list[object]]:
    """Return every value of the experiment, read now."""
    experiment = session.load_experiment("digits")
    found: list[list[object]] = [[experiment.fields.summary.table.tolist()]]
    for run in experiment.runs.values():
        fields = run.fields
        found.append(
            [fields.score, fields.weights.w.tolist(), fields.weights.b.tolist(), fields.images.pixels.tolist()]
        )
    return found


def expected() -> list[list[object]]:
    """Return what `values_of` gives if nothing was lost."""
    found: list[list[object]] = [[np.arange(300.0).tolist()]]
    for number in range(RUNS):
        weights = (np.arange(3000.0) + number).tolist()
        found.append([number / 4, weights, [float(number)] * 200, np.full((32, 32), number).tolist()])
    return found


@dataclass
class Files:
    """A folder as the operating system sees it."""

    root: Path

    def blobs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.root.glob("*/*") if len(path.name) == 32}

    def pointers(self) -> dict[str, dict[str, object]]:
        return {path.name[:32]: json.loads(path.read_text()) for path in self.root.glob("*/*.remote")}

    def objects(self) -> dict[str, bytes]:
        """Return the objects of a remote, each with the name that its bytes ask for."""
        found = {path.name: path.read_bytes() for path in self.root.iterdir() if not path.name.startswith((".", "_"))}
        assert all(hashlib.sha256(data).hexdigest() == name for name, data in found.items())
        return found
