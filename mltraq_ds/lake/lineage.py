"""Lineage: what a clone got from its source, so that work done in the clone is never taken for an old copy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mltraq_ds.errors import ConflictError, CorruptRecordError, KeyExistsError, KeyMissingError
from mltraq_ds.lake.bytes import Unverified
from mltraq_ds.lake.remotes import pieces, sha256_of
from mltraq_ds.lake.selection import Selected
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.store import descriptors, generations, layout
from mltraq_ds.store.generations import Generation, Ident
from mltraq_ds.store.retire import with_pointers

__all__ = ["Lineage"]

_KEPT = 2  # the version that is there and the one that is coming: a kill may leave either


class Lineage:
    """What came from a source, by ``_clone.json`` of the target: versions of experiments, digests of other files.

    Raises
    ------
    CorruptRecordError
        If that cannot be read.
    """

    def __init__(self, target: Storage, source_id: str) -> None:
        self.target = target
        self._source_id = source_id
        self._sources: dict[str, str] = {}
        self._idents: dict[str, list[list[Any]]] = {}
        self._files: dict[str, str] = {}
        self._lock = threading.Lock()
        try:
            body = descriptors.from_bytes(target.read(layout.CLONE), "clone", layout.CLONE)
        except KeyMissingError:
            return
        experiments, files, sources = body.get("experiments"), body.get("files"), body.get("sources", {})
        if not isinstance(experiments, dict) or not isinstance(files, dict) or not isinstance(sources, dict):
            raise CorruptRecordError(f"{layout.CLONE} of {target.url} cannot be read. Restore it from a copy.")
        self._idents, self._files, self._sources = experiments, files, sources

    def announce(self, selected: Sequence[Selected]) -> None:
        """Note which versions are about to be cloned.

        Raises
        ------
        ConflictError
            If the target has a version that did not come from a clone, or one of them replaces an experiment that was
            changed there.  Nothing was changed.
        """
        for one in selected:
            self.require_ours(one.generation, one.folder)
            self._require_free(one.generation)
            idents = self._idents.get(one.generation.id_experiment, [])
            coming = list(one.generation.ident)
            if coming not in idents:
                self._idents[one.generation.id_experiment] = [*idents, coming][-_KEPT:]
            self._sources[one.generation.id_experiment] = self._source_id
        self.save()

    def require_ours(self, generation: Generation, folder: str) -> Ident:
        """Return number and writer of the version in the target.

        Raises
        ------
        ConflictError
            If it did not come from a clone.
        """
        there = generations.current(self.target, folder)
        known = [list(generation.ident), *self._idents.get(generation.id_experiment, [])]
        if there is not None and list(there.ident) not in known:
            raise ConflictError(
                f"Experiment {generation.name!r} is not cloned because {self.target.url} has generation "
                f"{there.number} of it, which did not come from a clone: somebody has persisted it there. Clone into "
                "another store."
            )
        return there.ident if there is not None else (0, "")

    def _require_free(self, generation: Generation) -> None:
        """Refuse a version that replaces what somebody changed in the target: any session there would remove it."""
        for end in generation.replaces:
            folder = layout.folder_of(end.id_experiment)
            there = generations.current(self.target, folder)
            if there is not None and there.ident == (end.number, end.writer) and not self.is_untouched(there, folder):
                raise ConflictError(
                    f"Experiment {generation.name!r} is not cloned because it replaces {end.id_experiment}, and "
                    f"{self.target.url} has files of that one which did not come from a clone: somebody has changed it "
                    "there. Clone into another store, or delete it there."
                )

    def known(self) -> list[str]:
        """Return the ids of all experiments that came from this source, sorted."""
        return sorted(one for one in self._idents if self._sources.get(one) == self._source_id)

    def is_untouched(self, generation: Generation, folder: str) -> bool:
        """Tell whether a version in the target, and all that lies beside it, is what came from a source.

        Of an end, which nobody clones, the version that ended is meant.
        """
        version = generation.parent_ident if generation.deleted else generation.ident
        if list(version) not in self._idents.get(generation.id_experiment, []):
            return False
        came = {**self._files, **{record.key: record.digest.removeprefix("sha256:") for record in generation.records}}
        blobs = {blob.key for blob in generation.blobs} | (set(generation.retires) - came.keys())
        written_once = {*with_pointers(blobs), layout.meta_key(folder)}
        return all(
            stat.key in written_once
            or layout.generation_number(folder, stat.key) is not None
            or (stat.key in came and self._digest_there(stat.key) == came[stat.key])
            for stat in self.target.list(folder)
        )

    def forget(self, id_experiment: str) -> None:
        """Forget an experiment that is in neither store any more."""
        folder = layout.folder_of(id_experiment)
        self._idents.pop(id_experiment, None)
        self._sources.pop(id_experiment, None)
        self._files = {key: digest for key, digest in self._files.items() if not key.startswith(f"{folder}/")}

    def copy(self, source: Storage, key: str) -> None:
        """Copy one file; what is there already stays if it is the same, and goes only if it came from a clone.

        Raises
        ------
        ConflictError
            If the target has a file of its own under this key.  It was left as it is.
        """
        try:
            here = source.open(key)
        except KeyMissingError:
            return  # removed since it was listed
        try:
            digest = sha256_of(pieces(here))
            found = self._digest_there(key)
            if found != digest:
                if found is not None and found != self._files.get(key) and not _is_copy_for_people(key):
                    raise self._refusal(key)
                self._put(here, key, replace=found is not None)
        finally:
            here.close()
        with self._lock:
            self._files[key] = digest

    def save(self) -> None:
        """Write the notes, if they say something new."""
        body = {
            "experiments": dict(sorted(self._idents.items())),
            "files": dict(sorted(self._files.items())),
            "sources": dict(sorted(self._sources.items())),
        }
        data = descriptors.to_bytes("clone", body)
        try:
            if self.target.read(layout.CLONE) == data:
                return
        except KeyMissingError:
            pass
        self.target.put(layout.CLONE, [data], size=len(data), replace=True, parents=True)

    def _digest_there(self, key: str) -> str | None:
        try:
            there = self.target.open(key)
        except KeyMissingError:
            return None
        try:
            return sha256_of(pieces(there))
        finally:
            there.close()

    def _put(self, here: Source, key: str, *, replace: bool) -> None:
        try:
            self.target.put(key, Unverified(here), size=here.size, replace=replace, parents=True, flush=False)
        except KeyExistsError as error:
            raise self._refusal(key) from error

    def _refusal(self, key: str) -> ConflictError:
        return ConflictError(
            f"{key} is not cloned because {self.target.url} has another file of this name, which did not come from a "
            "clone. It was left as it is; clone into another store."
        )


def _is_copy_for_people(key: str) -> bool:
    return key.partition("/")[2] == layout.META
