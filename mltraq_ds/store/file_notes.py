"""What runs put beside their records: derived metrics, logs, results; and the manifests of experiments."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mltraq_ds.errors import CorruptRecordError, KeyMissingError, UsageError
from mltraq_ds.store import file_layout
from mltraq_ds.store.file_scope import FileScope
from mltraq_ds.store.run_mapping import check_text
from mltraq_ds.store.tagged_values import read_values, tag_values

__all__ = ["FileNotes"]


class FileNotes(FileScope):
    """The verbs for derived metrics, logs, results and manifests.  Each is a file of its own, replaced in one step."""

    def put_derived(self, run_id: str, derived: Mapping[str, Any]) -> None:
        """Write the derived metrics of a run, in place of earlier ones.

        Raises
        ------
        UnsupportedTypeError
            If one is no small value.  Nothing was written.
        """
        where = f"The derived metrics of run {check_text(run_id, 'id of the run')!r:.80}"
        body = {"run_id": run_id, "derived": tag_values(_mapping(derived, where), where)}
        self._put_document("derived", file_layout.derived_key(self._folder, run_id), body)

    def get_derived(self, run_id: str) -> dict[str, Any] | None:
        """Return the derived metrics of a run, None if there are none; `CorruptRecordError` if they do not verify."""
        key = file_layout.derived_key(self._folder, run_id)
        body = self._read_document("derived", key, run_id=run_id)
        return None if body is None else _dictionary(body.get("derived"), key)

    def derived_exists(self, run_id: str) -> bool:
        """Tell whether there are derived metrics of the run."""
        return self.storage.exists(file_layout.derived_key(self._folder, run_id))

    def put_log(self, run_id: str, name: str, content: str, label: str | None = None) -> None:
        """Write a log of a run as text (UTF-8), in place of an earlier one of that name.

        Parameters
        ----------
        run_id, name : str
            Any strings.
        content : str
            The text; it has no digest, since other programs may go on writing to it.
        label : str, optional
            A first line for people: ``# label``.
        """
        check_text(run_id, "id of the run")
        key = file_layout.log_key(self._folder, run_id, check_text(name, "name of the log"))
        text = content if label is None else f"# {label}\n{content}"
        data = text.encode("utf-8", "surrogatepass")
        self._write(lambda: self._put(key, data))

    def get_log(self, run_id: str, name: str) -> str | None:
        """Return a log of a run, None if there is none; `CorruptRecordError` if it is no text."""
        key = file_layout.log_key(self._folder, run_id, name)
        try:
            return self.storage.read(key).decode("utf-8", "surrogatepass")
        except KeyMissingError:
            return None
        except UnicodeDecodeError as error:
            raise CorruptRecordError(f"{key} cannot be read because it is not UTF-8. Read it as bytes.") from error

    def get_log_path(self, run_id: str, name: str) -> Path:
        """Return the path of a log; it may not exist yet.

        Raises
        ------
        UsageError
            If the files are in no folder of this machine.
        """
        return self._path(file_layout.log_key(self._folder, run_id, name))

    def list_logs(self, run_id: str) -> list[str]:
        """Return the names of the logs of a run, sorted."""
        keys = (stat.key for stat in self.storage.list(f"{self._folder}/logs"))
        names = (file_layout.log_name(self._folder, run_id, key) for key in keys)
        return sorted(name for name in names if name is not None)

    def put_result(
        self,
        run_id: str,
        name: str,
        data: Any,
        dtype: str | None = None,
        shape: tuple[int, ...] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a structured result of a run, in place of an earlier one of that name.

        Parameters
        ----------
        run_id, name : str
            Any strings.
        data : object
            Numbers, texts, lists and dictionaries of them, however long.  An array becomes a list; large ones are
            better kept as fields of a run.
        dtype, shape, metadata : optional
            Noted beside it; of an array, type and shape by default.

        Raises
        ------
        UnsupportedTypeError
            If something in it has no form in JSON.  Nothing was written.
        """
        where = (
            f"Result {check_text(name, 'name of the result')!r:.80} of run {check_text(run_id, 'id of the run')!r:.80}"
        )
        if hasattr(data, "tolist") and hasattr(data, "shape"):
            dtype, shape, data = dtype or str(data.dtype), shape or tuple(data.shape), data.tolist()
        body = {
            "run_id": run_id,
            "name": name,
            "data": tag_values(data, where),
            "dtype": dtype,
            "shape": None if shape is None else list(shape),
            "metadata": tag_values(_mapping(metadata or {}, where), where),
        }
        self._put_document("result", file_layout.result_key(self._folder, run_id, name), body)

    def get_result(self, run_id: str, name: str) -> dict[str, Any] | None:
        """Return ``data``, ``dtype``, ``shape`` and ``metadata`` of a result, None if there is none."""
        key = file_layout.result_key(self._folder, run_id, name)
        body = self._read_document("result", key, run_id=run_id, name=name)
        if body is None:
            return None
        shape = body.get("shape")
        return {
            "data": read_values(body.get("data")),
            "dtype": body.get("dtype"),
            "shape": tuple(shape) if isinstance(shape, list) else None,
            "metadata": _dictionary(body.get("metadata"), key),
        }

    def list_results(self, run_id: str) -> list[str]:
        """Return the names of the results of a run, sorted; `CorruptRecordError` if one cannot be read."""
        keys = [stat.key for stat in self.storage.list(file_layout.results_folder(self._folder, run_id))]
        found = (self._read_document("result", key, run_id=run_id) for key in keys if key.endswith(".json"))
        return sorted(str(body.get("name")) for body in found if body is not None)

    def put_experiment_manifest(
        self, experiment_id: str, manifest: Mapping[str, Any], timestamp: str | None = None
    ) -> None:
        """Write what an experiment is started with; earlier manifests stay.

        Parameters
        ----------
        experiment_id : str
            That of this store.
        manifest : mapping
            Small values by name.
        timestamp : str, optional
            Tells manifests apart, and the greatest is the newest; by default the time in UTC.  One that was used before
            is replaced.
        """
        where = f"The manifest of experiment {self._check_id(experiment_id)!r:.80}"
        stamp = timestamp
        if stamp is None:  # random at the end, for two at once
            stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S.%f}-{uuid.uuid4().hex[:8]}"
        check_text(stamp, "timestamp of a manifest")
        body = {
            "experiment_id": experiment_id,
            "timestamp": stamp,
            "manifest": tag_values(_mapping(manifest, where), where),
        }
        self._put_document("manifest", file_layout.manifest_key(self._folder, experiment_id, stamp), body)

    def get_experiment_manifest(self, experiment_id: str) -> dict[str, Any] | None:
        """Return the newest manifest of an experiment, None if there is none."""
        found = self.list_experiment_manifests(experiment_id)
        return found[next(reversed(found))] if found else None

    def list_experiment_manifests(self, experiment_id: str) -> dict[str, dict[str, Any]]:
        """Return all manifests of an experiment by their timestamps, the newest last."""
        prefix = file_layout.manifests_prefix(self._folder, self._check_id(experiment_id))
        found: dict[str, dict[str, Any]] = {}
        for stat in self.storage.list(f"{self._folder}/experiments"):
            if stat.key.startswith(prefix):
                body = self._read_document("manifest", stat.key, experiment_id=experiment_id)
                if body is not None:
                    found[str(body.get("timestamp"))] = _dictionary(body.get("manifest"), stat.key)
        return dict(sorted(found.items()))

    def _check_id(self, experiment_id: str) -> str:
        if experiment_id != self._id:
            raise UsageError(
                f"The store is scoped to {self._id!r:.80} and keeps no manifest of {experiment_id!r:.80}. Use the "
                "store "
                "of the collection, scoped to that one."
            )
        return experiment_id


def _mapping(values: object, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} cannot be kept because it is a {type(values).__name__}, not a dictionary.")
    return dict(values)


def _dictionary(tagged: object, key: str) -> dict[str, Any]:
    values = read_values(tagged)
    if not isinstance(values, dict):
        raise CorruptRecordError(f"{key} cannot be read because it holds no dictionary. Restore it from a copy.")
    return values
