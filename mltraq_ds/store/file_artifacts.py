"""Artifacts in files: bytes under fresh names, and a manifest of one entry each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mltraq_ds.errors import (
    CorruptBlobError,
    DanglingReferenceError,
    KeyMissingError,
    MltraqDSError,
    NotFoundError,
    StaleReferenceError,
    StorageError,
    UsageError,
    ValueChangedError,
)
from mltraq_ds.ids import validate_key
from mltraq_ds.storage.base import Buffer, Source
from mltraq_ds.storage.streams import stream_of
from mltraq_ds.store import descriptors, file_layout, layout, run_mapping
from mltraq_ds.store.file_scope import FileScope
from mltraq_ds.store.types import ArtifactDescriptor

__all__ = ["FileArtifacts"]

_STEP = 1 << 20


class _Bytes:
    """Bytes, or those of a file, in pieces, with the SHA-256 of what was given out last."""

    def __init__(self, data: bytes | Path) -> None:
        self._data = data
        self.digest = ""
        if isinstance(data, bytes | bytearray | memoryview):
            self.size = memoryview(data).nbytes
        elif isinstance(data, str | os.PathLike):
            self.size = self._size_of(Path(data))
        else:
            raise UsageError(f"An artifact is bytes or the path of a file, not {type(data).__name__}. Use bytes(...).")

    @staticmethod
    def _size_of(path: Path) -> int:
        try:
            if path.is_dir():
                raise UsageError(f"{path} is a folder, and an artifact is one file. Put an archive of it.")
            return path.stat().st_size
        except OSError as error:
            raise StorageError(
                f"The artifact cannot be put because {path} cannot be read: {error.strerror}."
            ) from error

    def __iter__(self) -> Iterator[Buffer]:
        hashed = hashlib.sha256()
        for piece in self._pieces():
            hashed.update(piece)
            yield piece
        self.digest = f"sha256:{hashed.hexdigest()}"

    def _pieces(self) -> Iterator[Buffer]:
        if isinstance(self._data, bytes | bytearray | memoryview):
            view = memoryview(self._data).cast("B")
            yield from (view[start : start + _STEP] for start in range(0, len(view), _STEP))
            return
        with open(self._data, "rb") as file:
            while piece := file.read(_STEP):
                yield piece


class FileArtifacts(FileScope):
    """The verbs for artifacts."""

    def put_artifact(self, data: bytes | Path, descriptor: ArtifactDescriptor) -> ArtifactDescriptor:
        """Write an artifact; an earlier one of this name in this run is replaced, and removed after that.

        Parameters
        ----------
        data : bytes or path
            What to keep; a file is read in pieces.
        descriptor : ArtifactDescriptor
            With `run_id` and `name`.  A `content_hash` in it is compared with the bytes.

        Returns
        -------
        ArtifactDescriptor
            With `uri`, `content_hash` and `size_bytes`.

        Raises
        ------
        UsageError
            If the descriptor names no run, or cannot be kept.  Nothing was written.
        ValueChangedError
            If the bytes are not those of `content_hash`, or the file changed meanwhile.  Nothing is visible.
        StorageError
            If file or storage refuse.  The earlier artifact is complete.
        """
        run_id = run_mapping.check_text(descriptor.run_id, "run of the artifact")
        name = run_mapping.check_text(descriptor.name, "name of the artifact")
        if not run_id:
            raise UsageError(f"Artifact {name!r:.80} needs a run. Use ArtifactDescriptor(…, run_id=…).")
        run_mapping.descriptor_to(descriptor)
        folder, content = self._folder, _Bytes(data)
        entry = file_layout.entry_key(folder, run_id, name)
        done: list[ArtifactDescriptor] = []

        def put() -> str:
            before = self._entry(entry)
            key = file_layout.artifact_key(folder, run_id, name)
            self.storage.put(key, content, size=content.size, parents=True)
            new = replace(descriptor, uri=key, content_hash=content.digest, size_bytes=content.size)
            if descriptor.content_hash not in (None, content.digest):
                self.storage.delete(key)
                raise ValueChangedError(
                    f"Artifact {name!r:.80} of run {run_id!r:.80} was not put because its bytes have {content.digest} "
                    f"and {descriptor.content_hash} was announced. Read it again at its source."
                )
            try:
                self._put(entry, descriptors.to_bytes("artifact", {"descriptor": run_mapping.descriptor_to(new)}))
            except BaseException:
                self._undo(entry, key)
                raise
            done[:] = [new]
            if before is not None and before.uri != key:
                self.storage.delete(before.uri)
            return entry

        self._write(put)
        return done[0]

    def _is_there(self, key: str) -> bool:
        """Tell whether a file is there and, if it is an entry, its bytes: an end may have taken these before it."""
        if not file_layout.is_entry(self._folder, key):
            return super()._is_there(key)
        found = self._entry(key)
        # Bytes may also be gone because another put has replaced the entry just now.
        return found is not None and (self.storage.exists(found.uri) or self._entry(key) not in (None, found))

    def _undo(self, entry: str, key: str) -> None:
        """Remove bytes that no entry names; if that is not certain they stay, and sweep finds out."""
        with suppress(MltraqDSError):  # another error is on its way
            there = self._entry(entry) if self.storage.is_local else None
            if self.storage.is_local and (there is None or there.uri != key):
                self.storage.delete(key)

    def get_artifact(self, uri: str) -> bytes:
        """Return the bytes of an artifact, verified.

        Parameters
        ----------
        uri : str
            As `put_artifact` and `list_artifacts` say.

        Raises
        ------
        InvalidNameError, UsageError
            If it is no artifact of this store.  Nothing was read.
        NotFoundError, StaleReferenceError
            If there is no such artifact, or another one has its name by now.
        CorruptBlobError, DanglingReferenceError
            If its bytes are gone, or not those that were put.
        """
        descriptor = self._described(uri)
        source = self._open(descriptor)
        try:
            data = bytes(source.read(0, source.size))
        finally:
            source.close()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor.content_hash:
            raise _corrupt(descriptor)
        return data

    def open_artifact(self, uri: str) -> BinaryIO:
        """Return a stream over an artifact; read from begin to end, it is verified when the end is reached.

        Raises
        ------
        NotFoundError and others
            As `get_artifact`; `CorruptBlobError` also while it is read.
        """
        descriptor = self._described(uri)
        source = self._open(descriptor)
        return stream_of(_Verified(source, descriptor).read, source.size)

    def list_artifacts(self, run_id: str) -> list[ArtifactDescriptor]:
        """Return the descriptors of the artifacts of a run, by name.

        Raises
        ------
        CorruptRecordError
            If one cannot be read.
        """
        place = file_layout.entries_folder(self._folder, run_id)
        found = (self._entry(stat.key) for stat in self.storage.list(place) if stat.key.endswith(".json"))
        return sorted((one for one in found if one is not None), key=lambda one: one.name)

    def _described(self, uri: str) -> ArtifactDescriptor:
        key = validate_key(uri, "uri of an artifact")
        self._look()
        folder = key.partition("/")[0]
        entry = file_layout.entry_of(folder, key)
        if entry is None or (self.experiment_id is not None and folder != layout.folder_of(self.experiment_id)):
            raise UsageError(
                f"{uri!r:.200} is no artifact of {self!r}. Use the uri that put_artifact() or list_artifacts() gives."
            )
        descriptor = self._entry(entry)
        if descriptor is None:
            raise NotFoundError(f"No artifact {uri!r:.200} is in {self.storage.url}. Use list_artifacts(run_id).")
        if descriptor.uri != key:
            raise StaleReferenceError(
                f"Artifact {uri!r:.200} is gone because run {descriptor.run_id!r:.80} has another one named "
                f"{descriptor.name!r:.80} by now. Use list_artifacts(run_id) again."
            )
        return descriptor

    def _entry(self, key: str) -> ArtifactDescriptor | None:
        body = self._read_document("artifact", key)
        return None if body is None else run_mapping.entry_from(body, key)

    def _open(self, descriptor: ArtifactDescriptor) -> Source:
        try:
            return self.storage.open(descriptor.uri, size=descriptor.size_bytes)
        except KeyMissingError as error:
            raise DanglingReferenceError(
                f"The bytes of artifact {descriptor.name!r:.80} of run {descriptor.run_id!r:.80} are gone: "
                f"{descriptor.uri}. Restore them from a copy; 'mltraq-ds check' lists all such."
            ) from error


class _Verified:
    """Reads ranges, and takes the digest of what is read in order."""

    def __init__(self, source: Source, descriptor: ArtifactDescriptor) -> None:
        self._source, self._descriptor = source, descriptor
        self._hashed, self._position = hashlib.sha256(), 0

    def read(self, offset: int, size: int) -> memoryview:
        view = self._source.read(offset, size)
        if offset == self._position:
            self._hashed.update(view)
            self._position += size
            if (
                self._position == self._source.size
                and f"sha256:{self._hashed.hexdigest()}" != self._descriptor.content_hash
            ):
                raise _corrupt(self._descriptor)
        return view


def _corrupt(descriptor: ArtifactDescriptor) -> CorruptBlobError:
    return CorruptBlobError(
        f"Artifact {descriptor.name!r:.80} of run {descriptor.run_id!r:.80} does not verify: the bytes of "
        f"{descriptor.uri} differ from those that were put. Restore them from a copy."
    )
