"""A small store to damage: two experiments, the first in its second generation, and a file of the user's own."""

import hashlib
import uuid
from dataclasses import asdict

import numpy as np

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.index import Index
from mltraq_ds.storage import open_storage
from mltraq_ds.store import descriptors, layout
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.saving import Save


class Scene:
    """One store and one database, and what to break them with."""

    def __init__(self, database, store, *, is_empty=False):
        options.set("tqdm.disable", True)
        options.set("datastore.durability", "relaxed")
        self.url, self.store = str(database), str(store)
        self.session = self.open()
        if is_empty:
            return
        self.first = self.make("first")
        self.first.fields.note = "second version"
        self.first.persist(if_exists="update")
        self.second = self.make("second", nested=True)
        self.session.io.write(b"of the user", "mine/x")

    def open(self, database=None):
        return create_session(database or self.url, self.storage())

    def storage(self):
        return open_storage(self.store)

    def make(self, name, *, nested=False):
        experiment = self.session.create_experiment(name)
        experiment.add_runs(x=[1, 2])
        for number, run in enumerate(experiment.runs.values()):
            run.fields.ds = DataStore(a=np.arange(100) + number)
            if nested:
                run.fields.ds.inner = DataStore(b=np.arange(50) * number)
        return experiment.persist()

    @property
    def objects(self):
        return self.session.objects()

    @property
    def index(self):
        return Index(self.session.database, layout.store_id(self.session.storage))

    def keys(self, experiment, part=""):
        folder = layout.folder_of(experiment.id_experiment)
        return sorted(stat.key for stat in self.session.storage.list(folder) if part in stat.key)

    def blobs(self, experiment):
        return [key for key in self.keys(experiment) if len(key.rpartition("/")[2]) == 32]

    def put(self, key, data=b"x" * 10):
        self.session.storage.put(key, [data], size=len(data), parents=True, replace=True)
        return key

    def flip(self, key, at=20):
        data = bytearray(self.session.storage.read(key))
        data[at] ^= 0xFF
        self.session.storage.delete(key)
        return self.put(key, bytes(data))

    def orphan(self, experiment):
        return self.put(layout.blob_key(layout.folder_of(experiment.id_experiment), uuid.uuid4()))

    def save(self, name):
        """Save an artifact of one blob, below the options of `mltraq_ds.save`; return its version."""
        rows = ArtifactIndex(self.session.database, layout.store_id(self.session.storage))
        saving = Save(self.objects, rows, name, "native")
        return saving.run(lambda one: one.write(np.arange(3000.0)), lambda kept: None)

    def put_alone(self, experiment, fields):
        """Put the record of a run alone, around the code under test; return its key and its put id."""
        body = {"put_id": str(uuid.uuid4()), "id_experiment": experiment.id_experiment, "deleted": False}
        body |= {"id_run": "alone", "status": "success", "exception": None, "started": None, "finished": None}
        body |= {"params": {}, "config": {}, "fields": fields}
        key = layout.run_record_key(layout.folder_of(experiment.id_experiment), "alone")
        return self.put(key, descriptors.to_bytes("run", body)), body["put_id"]

    def intent(self, experiment, *, is_alive=True, action="persist"):
        """Put the intent of a writer on another machine, or of one that is done."""
        intent = Intent(
            writer=str(uuid.uuid4()),
            action=action,
            id_experiment=experiment.id_experiment,
            name=experiment.name,
            parent=experiment.generation,
            number=experiment.generation + 1,
            machine="elsewhere",
            process="1" if is_alive else "done",
        )
        self.put(intent.key, descriptors.to_bytes("intent", asdict(intent)))
        return intent

    def tree(self):
        storage = self.session.storage
        found = [*storage.list(), *storage.list_unfinished()]
        return {stat.key: hashlib.sha256(storage.read(stat.key)).hexdigest() for stat in found}

    def check(self, **how):
        before = self.tree()
        report = self.session.check(**how)
        assert self.tree() == before, "check changed something"
        return report

    def kinds(self, **how):
        return self.check(**how).kinds()

    def sweep(self, *, dry_run=False, grace_s=0.0, session=None):
        return (session or self.open()).sweep(dry_run=dry_run, grace_s=grace_s)

    def values(self):
        """Read every value of every experiment back, in a new session."""
        session = self.open()
        found = {}
        for name in ("first", "second"):
            experiment = session.load_experiment(name)
            found[name] = [run.fields.ds.a.tolist() for run in experiment.runs.values()]
        return found
