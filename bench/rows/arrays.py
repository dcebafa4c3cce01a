"""Rows: large arrays, one or many, written and read by key."""

from __future__ import annotations

import os
import pickle
from typing import Any

from bench.row import OURS, Contestant, Row, Target
from bench.rows.common import mltraq_session, session, warm_session

__all__ = ["ROWS"]


class _Arrays(Contestant):
    """Save `keys` arrays of `bytes_each`; load one of them."""

    labels = ("save", "one key")
    suffix = "bin"

    def make(self, key: int) -> Any:
        import numpy as np

        return np.arange(self.size["bytes_each"] // 8, dtype=np.float64) * (1.0 + key)

    @property
    def file(self) -> str:
        return self.work.path(f"arrays.{self.suffix}")

    @property
    def wanted(self) -> int:
        return int(self.size["keys"]) // 2

    def save(self) -> None:
        arrays = {f"k{key}": self.make(key) for key in range(self.size["keys"])}
        self.before_save()
        with self.work.timed("save"):
            self.write(arrays)

    def load(self) -> None:
        self.before_load()
        with self.work.timed("one key"):
            found = self.read(f"k{self.wanted}")
        import numpy as np

        assert found.dtype == np.float64
        assert np.array_equal(found, self.make(self.wanted))

    def before_save(self) -> None:
        """Import what is needed, open what stays open."""

    def before_load(self) -> None:
        """Import what is needed, open what stays open."""
        self.before_save()

    def write(self, arrays: dict[str, Any]) -> None:
        raise NotImplementedError

    def read(self, key: str) -> Any:
        raise NotImplementedError


class Bare(_Arrays):
    name = "bare write+fsync"
    is_durable = True

    def write(self, arrays: dict[str, Any]) -> None:
        fd = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o644)
        if not self.is_durable:
            os.posix_fallocate(fd, 0, sum(array.nbytes for array in arrays.values()))
        for array in arrays.values():
            view = memoryview(array).cast("B")
            while view.nbytes:
                view = view[os.write(fd, view) :]
        if self.is_durable:
            os.fsync(fd)
        os.close(fd)

    def read(self, key: str) -> Any:
        import numpy as np

        offset = int(key[1:]) * self.size["bytes_each"]
        return np.fromfile(self.file, dtype=np.float64, count=self.size["bytes_each"] // 8, offset=offset)

    def before_save(self) -> None:
        import numpy  # noqa: F401


class BareRelaxed(Bare):
    name = "bare write, preallocated"
    is_durable = False


class Numpy(_Arrays):
    name = "numpy"
    suffix = "npz"

    def write(self, arrays: dict[str, Any]) -> None:
        import numpy as np

        if len(arrays) == 1:
            np.save(self.file + ".npy", *arrays.values())
        else:
            np.savez(self.file, **arrays)

    def read(self, key: str) -> Any:
        import numpy as np

        if self.size["keys"] == 1:
            return np.load(self.file + ".npy")
        return np.load(self.file)[key]

    def before_save(self) -> None:
        import numpy  # noqa: F401


class NumpyMapped(Numpy):
    name = "numpy, memory-mapped and read"
    is_quick = False

    def write(self, arrays: dict[str, Any]) -> None:
        import numpy as np

        for key, array in arrays.items():
            np.save(self.work.path(f"{key}.npy"), array)

    def read(self, key: str) -> Any:
        import numpy as np

        array = np.load(self.work.path(f"{key}.npy"), mmap_mode="c")
        array.max()
        return array


class Joblib(_Arrays):
    name = "joblib"

    def write(self, arrays: dict[str, Any]) -> None:
        import joblib

        joblib.dump(arrays, self.file)

    def read(self, key: str) -> Any:
        import joblib

        return joblib.load(self.file)[key]

    def before_save(self) -> None:
        import joblib  # noqa: F401


class Pickle(_Arrays):
    name = "pickle 5"
    is_quick = False

    def write(self, arrays: dict[str, Any]) -> None:
        with open(self.file, "wb") as file:
            pickle.dump(arrays, file, protocol=5)

    def read(self, key: str) -> Any:
        with open(self.file, "rb") as file:
            return pickle.load(file)[key]


class Safetensors(_Arrays):
    name = "safetensors"
    needs = ("safetensors",)

    def write(self, arrays: dict[str, Any]) -> None:
        from safetensors.numpy import save_file

        save_file(arrays, self.file)

    def read(self, key: str) -> Any:
        from safetensors import safe_open

        with safe_open(self.file, "numpy") as file:
            return file.get_tensor(key)

    def before_save(self) -> None:
        import safetensors.numpy  # noqa: F401


class Feather(_Arrays):
    name = "pyarrow feather"
    is_quick = False
    needs = ("pyarrow",)

    def write(self, arrays: dict[str, Any]) -> None:
        import pyarrow as pa
        from pyarrow import feather

        feather.write_feather(pa.table(arrays), self.file, compression="uncompressed")

    def read(self, key: str) -> Any:
        from pyarrow import feather

        return feather.read_table(self.file, columns=[key])[key].to_numpy()

    def before_save(self) -> None:
        import pyarrow.feather  # noqa: F401


class H5py(_Arrays):
    name = "h5py"
    is_quick = False
    needs = ("h5py",)

    def write(self, arrays: dict[str, Any]) -> None:
        import h5py

        with h5py.File(self.file, "w") as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array)

    def read(self, key: str) -> Any:
        import h5py

        with h5py.File(self.file, "r") as file:
            return file[key][()]

    def before_save(self) -> None:
        import h5py  # noqa: F401


class Zarr(_Arrays):
    name = "zarr"
    is_quick = False
    needs = ("zarr",)

    def write(self, arrays: dict[str, Any]) -> None:
        import zarr

        group = zarr.create_group(self.file)
        for key, array in arrays.items():
            group.create_array(key, data=array, chunks=(2 * 1024 * 1024,), compressors=None)

    def read(self, key: str) -> Any:
        import zarr

        return zarr.open_group(self.file, mode="r")[key][:]

    def before_save(self) -> None:
        import zarr  # noqa: F401


class MLtraq(_Arrays):
    name = "mltraq"
    needs = ("mltraq",)

    def before_save(self) -> None:
        self.session = mltraq_session(self.work)

    def write(self, arrays: dict[str, Any]) -> None:
        from mltraq import DataStore

        experiment = self.session.create_experiment("arrays")
        with experiment.run() as run:
            run.fields.ds = DataStore(arrays)
        experiment.persist()

    def read(self, key: str) -> Any:
        return self.session.load_experiment("arrays").runs.first().fields.ds[key]


class Ours(_Arrays):
    name = OURS
    is_durable = True
    labels = ("save", "one key", "one key, not verified")

    def before_save(self) -> None:
        self.session = warm_session(self.work, is_durable=self.is_durable)

    def write(self, arrays: dict[str, Any]) -> None:
        from mltraq_ds import DataStore

        experiment = self.session.create_experiment("arrays")
        with experiment.run() as run:
            run.fields.ds = DataStore(arrays)
        experiment.persist()

    def before_load(self) -> None:
        import numpy  # noqa: F401

        self.datastore = session(self.work).load_experiment("arrays").runs.first().fields.ds

    def read(self, key: str) -> Any:
        return self.datastore[key]

    def load(self) -> None:
        super().load()
        key = f"k{self.wanted}"
        datastore = session(self.work, verify="none").load_experiment("arrays").runs.first().fields.ds
        with self.work.timed("one key, not verified"):
            found = datastore[key]
        import numpy as np

        assert np.array_equal(found, self.make(self.wanted))


class OursRelaxed(Ours):
    name = f"{OURS}, relaxed"
    is_durable = False


_EVERYONE = (
    Bare, BareRelaxed, Numpy, NumpyMapped, Joblib, Pickle, Safetensors, Feather, H5py, Zarr, MLtraq, Ours, OursRelaxed,
)  # fmt: skip
_MB = 1024 * 1024
_ONE_MS = Target("one key, not verified", seconds=0.001)

ROWS = [
    Row(
        "array",
        "one large array (1 GiB; quick: 64 MiB)",
        phases=("save", "load"),
        contestants=_EVERYONE,
        full={"keys": 1, "bytes_each": 1024 * _MB, "touch_bytes": 1024 * _MB},
        quick={"keys": 1, "bytes_each": 64 * _MB, "touch_bytes": 64 * _MB},
        targets=(
            Target("save", Bare.name, 1.15),
            Target("save", BareRelaxed.name, 1.25, contestant=OursRelaxed.name),
            Target("save", "mltraq", 0.2),
            Target("one key", "numpy", 0.6),
            Target("one key, not verified", seconds=0.003),
        ),
    ),
    Row(
        "arrays",
        "64 arrays of 16 MiB; one key of them",
        phases=("save", "load"),
        contestants=_EVERYONE,
        full={"keys": 64, "bytes_each": 16 * _MB, "touch_bytes": 1024 * _MB},
        targets=(
            Target("save", Bare.name, 1.15),
            Target("one key", seconds=0.005),
            _ONE_MS,
        ),
    ),
    Row(
        "array512",
        "one array of 512 MiB (issue A)",
        phases=("save", "load"),
        contestants=(Bare, Numpy, Joblib, Ours),
        full={"keys": 1, "bytes_each": 512 * _MB, "touch_bytes": 512 * _MB},
        targets=(Target("save", Bare.name, 1.25),),
    ),
]
