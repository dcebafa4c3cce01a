"""Codecs: value to tree and members, and back.  The table of all of them is here.

Which codec writes is decided by one rule: the exact type in the tables of plain types, then the codecs of the library
that defines the type from top to bottom, then those registered by users, then those of installed packages (entry points
``mltraq_ds.codecs``), then an error.  Which codec reads is decided by the name in the blob alone, looked up here: a
name that was read is never imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mltraq_ds.codecs.base import Codec, Encoded, Member, MemberSource, Parts
from mltraq_ds.codecs.census import MAX_DEPTH
from mltraq_ds.errors import FormatError, MissingExtraError, UnsupportedTypeError, UsageError

if TYPE_CHECKING:
    from mltraq_ds.codecs.directory import Directory
    from mltraq_ds.codecs.files import File
    from mltraq_ds.codecs.pickled import Pickled

__all__ = [
    "CODECS",
    "MAX_DEPTH",
    "Codec",
    "Directory",
    "Encoded",
    "File",
    "Member",
    "MemberSource",
    "Parts",
    "Pickled",
    "decode",
    "encode",
    "prepare_to_decode",
    "register",
]

_ENTRY_POINTS = "mltraq_ds.codecs"
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+/[1-9][0-9]*")

# Name in the blob -> where the class is; sorted. Imported on use: no module below is needed to persist a float.
_codecs: dict[str, str | type[Codec]] = {
    "mltraq_ds.directory/1": "mltraq_ds.codecs.directory:DirectoryCodec",
    "mltraq_ds.file/1": "mltraq_ds.codecs.files:FileCodec",
    "mltraq_ds.pickled/1": "mltraq_ds.codecs.pickled:PickledCodec",
    "numpy.ndarray/1": "mltraq_ds.codecs.ndarray:NdarrayCodec",
    "pandas.array/1": "mltraq_ds.codecs.arrow:PandasArrayCodec",
    "pandas.dataframe/1": "mltraq_ds.codecs.arrow:PandasDataFrameCodec",
    "pandas.index/1": "mltraq_ds.codecs.arrow:PandasIndexCodec",
    "pandas.scalar/1": "mltraq_ds.codecs.arrow:PandasScalarCodec",
    "pandas.series/1": "mltraq_ds.codecs.arrow:PandasSeriesCodec",
    "polars.dataframe/1": "mltraq_ds.codecs.arrow:PolarsDataFrameCodec",
    "polars.series/1": "mltraq_ds.codecs.arrow:PolarsSeriesCodec",
    "pyarrow.table/1": "mltraq_ds.codecs.arrow:ArrowTableCodec",
    "torch.tensor/1": "mltraq_ds.codecs.tensor:TorchTensorCodec",
}
assert list(_codecs) == sorted(_codecs)

#: Read-only view of the table: name -> class, or ``module:class`` where it was not imported yet.
CODECS: Mapping[str, str | type[Codec]] = MappingProxyType(_codecs)

#: Names of the codecs given by users and packages, in the order they are asked in.
_registered: list[str] = []
_instances: dict[str, Codec] = {}
_broken_entry_points: list[str] | None = None  # None: not loaded yet

# Imported by the first value: looking an import up again takes as long as encoding a small array.
_encode_value: Callable[..., Encoded] | None = None
_decode_tree: Callable[..., Any] | None = None

_LAZY = {"Directory": "directory", "File": "files", "Pickled": "pickled"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def encode(value: object, *, name: str = "", is_nested: Callable[[object], bool] | None = None) -> Encoded:
    """Turn a value into a tree and members; reads no file and copies no large buffer.

    Parameters
    ----------
    value : object
        Any supported value; containers may be nested `MAX_DEPTH` deep.
    name : str
        The key of the value; the names of the members start with it.
    is_nested : callable, optional
        Tells whether an object is kept elsewhere (a DataStore).  It is appended to `Encoded.nested`, and the tree holds
        its position.

    Raises
    ------
    UnsupportedTypeError
        If no codec takes something in the value; where it is, and the ways out, are named.
    TooDeepError
        If containers are nested too deeply, or in a circle.

    Examples
    --------
    >>> decode(encode((1, {2, 3})).tree)
    (1, {2, 3})
    """
    return (_encode_value or _import_encoder())(value, name, _codec_for, is_nested)


def decode(
    tree: bytes,
    members: Sequence[MemberSource] = (),
    *,
    nested: Callable[[int], object] | None = None,
    allow_pickle: bool = False,
) -> Any:
    """Turn a tree and its members back into a value equal to the one encoded; runs no code that the blob brings.

    Parameters
    ----------
    tree : bytes
        `Encoded.tree`.
    members : sequence of MemberSource
        In the order of `Encoded.members`; only those that are needed are read.
    nested : callable, optional
        Returns the object at a position of `Encoded.nested`.
    allow_pickle : bool
        Let `Pickled.value` load its pickle.

    Raises
    ------
    CorruptBlobError
        If tree or members are not what `encode` made.  Memory stays in proportion to their size.
    FormatError
        If a codec or mark is unknown here: written by a newer version, or by a codec that is not installed.
    MissingExtraError
        If the library of a value is not installed.
    """
    return (_decode_tree or _import_decoder())(tree, members, codec_named, nested, allow_pickle)


def prepare_to_decode() -> None:
    """Import what decodes, so that the first value that a process reads does not take the time."""
    if _decode_tree is None:
        _import_decoder()
        if "numpy" in sys.modules:
            _instance("numpy.ndarray/1")


def _import_encoder() -> Callable[..., Encoded]:
    global _encode_value
    from mltraq_ds.codecs.encoder import encode_value

    _encode_value = encode_value
    return encode_value


def _import_decoder() -> Callable[..., Any]:
    global _decode_tree
    from mltraq_ds.codecs.decoder import decode_tree

    _decode_tree = decode_tree
    return decode_tree


def register(codec_class: type[Codec]) -> type[Codec]:
    """Add a codec for a type of yours; usable as a decorator.

    It is asked after the built-in ones.  Whoever reads such a value needs the codec too: put it in an importable module
    and register it there, or name it in an entry point ``mltraq_ds.codecs`` of your package.

    Raises
    ------
    UsageError
        If it is not a subclass of `Codec`, or its name is not of the form ``family.thing/1`` or is taken.
    """
    if not (isinstance(codec_class, type) and issubclass(codec_class, Codec)):
        raise UsageError(
            f"{codec_class!r} cannot be registered because it is not a subclass of mltraq_ds.codecs.Codec."
        )
    name = getattr(codec_class, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"The codec {codec_class.__qualname__} cannot be registered because its name {name!r} is not of the form "
            "'family.thing/1'. Set the class attribute `name`."
        )
    taken = _codecs.get(name)
    if taken is not None and taken is not codec_class:
        raise UsageError(
            f"The codec {codec_class.__qualname__} cannot be registered because the name {name!r} is taken by "
            f"{taken!r}. Choose another family, or the next version number."
        )
    if taken is None:
        _instances[name] = codec_class()  # an abstract one fails here, before it is entered
        _codecs[name] = codec_class
        _registered.append(name)
    return codec_class


def codec_named(name: str) -> Codec:
    """Return the codec of this name.

    Raises
    ------
    FormatError
        If there is none.
    MissingExtraError
        If the library that it needs is not installed.
    """
    if name not in _codecs:
        _load_entry_points()
    if name not in _codecs:
        family = name.partition(".")[0]
        known = [other for other in _codecs if other.partition("/")[0] == name.partition("/")[0]]
        remedy = (
            f"This version knows {', '.join(known)}. Upgrade: pip install --upgrade mltraq_ds."
            if known
            else f"Install or import the package that registers the codecs of {family!r:.50}, or upgrade mltraq_ds."
        )
        raise FormatError(
            f"A value cannot be decoded because its codec {name!r:.100} is not known here. {remedy}{_broken()}"
        )
    return _instance(name)


def _instance(name: str) -> Codec:
    codec = _instances.get(name)
    if codec is None:
        place = _codecs[name]
        if isinstance(place, str):
            module, _, attribute = place.partition(":")
            try:
                place = getattr(importlib.import_module(module), attribute)
            except ModuleNotFoundError as error:
                library = name.partition(".")[0]
                raise MissingExtraError(
                    f"The codec {name!r} cannot be used because {error.name!r} is not installed. Run: pip install "
                    f"{library}."
                ) from error
        codec = _instances[name] = place()
    return codec


def _codec_for(value: object) -> Codec | None:
    for codec in _candidates(value):
        if codec.accepts(value):
            return codec
    if _broken_entry_points:
        raise UnsupportedTypeError(f"no codec takes it.{_broken()}")
    return None


def _candidates(value: object) -> Iterator[Codec]:
    # Only the library that defines the type is looked at, so that no other is imported.
    family = f"{type(value).__module__.partition('.')[0]}."
    for name in [*_codecs]:
        if name.startswith(family) and name not in _registered:
            yield _instance(name)
    yield from map(_instance, _registered)
    known = len(_registered)
    _load_entry_points()
    yield from map(_instance, _registered[known:])


def _load_entry_points() -> None:
    global _broken_entry_points
    if _broken_entry_points is not None:
        return
    _broken_entry_points = []
    for entry_point in importlib.metadata.entry_points(group=_ENTRY_POINTS):
        try:
            register(entry_point.load())
        # One broken package must not make the values of all others unreadable; it is named where a codec is missed.
        except (ImportError, AttributeError, UsageError, TypeError) as error:
            _broken_entry_points.append(f"{entry_point.name}: {error}")


def _broken() -> str:
    return f" Entry points that could not be loaded: {'; '.join(_broken_entry_points)}" if _broken_entry_points else ""
