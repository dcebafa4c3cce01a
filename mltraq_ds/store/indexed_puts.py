"""The puts of a store with an index: the files first, then the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from mltraq_ds.orm.index import Index
from mltraq_ds.orm.single_rows import DERIVED, MANIFEST
from mltraq_ds.orm.singles import SingleIndex
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import document_rows, file_layout, generations, layout, run_mapping, single_records
from mltraq_ds.store.document_rows import stamp_of
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.index_link import IndexLink
from mltraq_ds.store.single_index import bare_experiment, refresh, single_row, validate
from mltraq_ds.store.types import RunRecord

if TYPE_CHECKING:
    from mltraq_ds.store.config import StoreConfig

__all__ = ["IndexedPuts"]


class IndexedPuts(FileStore):
    """The verbs that write; each tells the index, by way of its link, what the files say after it.

    Parameters
    ----------
    storage, experiment_id, root
        As of `FileStore`.
    link : IndexLink
        The way to the index.
    config : StoreConfig, optional
        What the store was connected from.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        experiment_id: str | None = None,
        root: str = "",
        link: IndexLink,
        config: StoreConfig | None = None,
    ) -> None:
        super().__init__(storage, experiment_id=experiment_id, root=root)
        self.link = link
        self.config = config

    @property
    def file_store(self) -> FileStore:
        """The same store without its index."""
        files = FileStore(self.storage, experiment_id=self.experiment_id, root=self.root)
        files._looked = self._looked
        return files

    def scoped(self, experiment_id: str) -> Self:
        # docstring inherited
        scoped = self.file_store.scoped(experiment_id)
        config = self.config.scoped(experiment_id) if self.config is not None else None
        own = {"experiment_id": scoped.experiment_id, "root": self.root}
        found = type(self)(self.storage, **own, link=self.link, config=config)  # type: ignore[arg-type]
        found._looked = self._looked
        return found

    def put_run_record(self, record: RunRecord) -> None:
        # docstring inherited
        run_mapping.check_record(record)
        if self.experiment_id is None:
            self.scoped(record.experiment_id).put_run_record(record)
            return
        if record.experiment_id == self.experiment_id:  # else the files say what is wrong
            validate(record)
            self.link.prepare()
        super().put_run_record(record)
        self.link.tell(f"Run {record.run_id!r:.80}", self._telling_run(record.run_id))

    def delete_run(self, run_id: str) -> None:
        # docstring inherited
        self.link.prepare()
        super().delete_run(run_id)
        tell = self._telling_run(run_id)

        def work(index: Index) -> None:
            tell(index)
            SingleIndex(index).remove_documents(self._id, DERIVED, [run_id])

        self.link.tell(f"The end of run {run_id!r:.80}", work)

    def _telling_run(self, run_id: str) -> Callable[[Index], None]:
        """Return what tells the index what the files say of a run now."""

        def work(index: Index) -> None:
            key = layout.run_record_key(self._folder, run_id)
            # In this order: a stamp may be older than the record, never newer.
            stat = self.storage.stat(key)
            generation = generations.current(self.storage, self._folder)
            single = single_records.read(self.storage, key)
            if single is not None:
                is_living = generation is not None and not generation.deleted
                below = self._committed(generation).get(run_id) if generation is not None and is_living else None
                row = single_row(single, below, stamp_of(stat, generation))
                SingleIndex(index).put(bare_experiment(self._id), [row])

        return work

    def put_derived(self, run_id: str, derived: Mapping[str, Any]) -> None:
        # docstring inherited
        self.link.prepare()
        super().put_derived(run_id, derived)
        key = file_layout.derived_key(self._folder, run_id)
        self.link.tell(
            f"What was derived of run {run_id!r:.80}", lambda index: self._tell_document(index, DERIVED, key)
        )

    def put_experiment_manifest(
        self, experiment_id: str, manifest: Mapping[str, Any], timestamp: str | None = None
    ) -> None:
        # docstring inherited
        self.link.prepare()
        super().put_experiment_manifest(experiment_id, manifest, timestamp)
        prefix = file_layout.manifests_prefix(self._folder, experiment_id)

        def work(index: Index) -> None:
            for stat in self.storage.list(f"{self._folder}/experiments"):
                if stat.key.startswith(prefix):
                    self._tell_document(index, MANIFEST, stat.key)

        self.link.tell(f"The manifest of experiment {experiment_id!r:.80}", work)

    def _tell_document(self, index: Index, kind: str, key: str) -> None:
        for row in document_rows.read(self.storage, kind, [self.storage.stat(key)]):
            SingleIndex(index).put_document(bare_experiment(self._id), row)

    def tell_experiment(self, experiment_id: str) -> None:
        """Tell the index what the files say of an experiment, after they were copied here."""
        what = f"Experiment {experiment_id!r:.80}"
        self.link.tell(what, lambda index: refresh(index, self.storage, experiment_id))
