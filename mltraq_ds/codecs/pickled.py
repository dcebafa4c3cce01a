"""Pickles: written only for a `Pickled`, read only when the reader says so."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any

from mltraq_ds.codecs.base import Codec, Member, MemberSource, Parts
from mltraq_ds.codecs.census import LARGE_BYTES
from mltraq_ds.errors import PickleRefusedError, UnsupportedTypeError

__all__ = ["Pickled", "PickledCodec"]


class Pickled:
    """A value stored as a pickle, for types that no codec takes.

    Wrapping a value is the opt-in of the *writer*.  What is loaded is a `Pickled` again; its `value` runs the code that
    the pickle names, so it is refused unless the *reader* opted in.  Nothing in a blob can do that in his place.

    Parameters
    ----------
    value : object
        Anything that `pickle` takes.

    Examples
    --------
    >>> Pickled({1, 2}).value
    {1, 2}
    """

    __slots__ = ("_allowed", "_stored", "_value")

    def __init__(self, value: object) -> None:
        self._value: Any = value
        self._stored: tuple[Any, Sequence[MemberSource]] | None = None
        self._allowed = True

    @classmethod
    def _from_stored(cls, stream: Any, members: Sequence[MemberSource]) -> Pickled:
        pickled = cls(None)
        pickled._stored, pickled._allowed = (stream, members), False
        return pickled

    def allow(self) -> None:
        """Let `value` run the code that the pickle names; called for a reader who opted in."""
        self._allowed = True

    @property
    def value(self) -> Any:
        """The value, unpickled at the first use.

        Raises
        ------
        PickleRefusedError
            If the reader did not opt in.  No code has run.
        """
        if not self._allowed:
            raise PickleRefusedError(
                "A pickled value cannot be read because loading a pickle runs code, and this reader did not allow it. "
                "If you trust who wrote it, load with allow_pickle=True or set the option serialization.allow_pickle."
            )
        if self._stored is not None:
            stream, members = self._stored
            content = stream if isinstance(stream, bytes) else members[0].read()
            buffers = [member.read() for member in (members if isinstance(stream, bytes) else members[1:])]
            self._value, self._stored = pickle.loads(content, buffers=buffers), None
        return self._value

    def __eq__(self, other: object) -> bool:
        if type(other) is not Pickled:
            return NotImplemented
        return self is other or bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]  # the value may be mutable

    def __repr__(self) -> str:
        return "Pickled(<not read>)" if self._stored is not None else f"Pickled({self._value!r})"

    def __reduce__(self) -> Any:
        # Through another process the permission must not travel with the value.
        return Pickled, (self.value,)


class PickledCodec(Codec):
    """`Pickled`, by pickle protocol 5 with large buffers as members.

    Preserves what the pickle of the value preserves, in an environment where its classes can be imported.
    """

    name = "mltraq_ds.pickled/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return type(value) is Pickled

    def encode(self, value: Any) -> Parts:  # docstring inherited
        if value._stored is not None:  # not unpickled: copied as it is
            stream, sources = value._stored
            members = [
                Member("pkl" if i == 0 and stream is None else "bin", s.size, partial(_read, s))
                for i, s in enumerate(sources)
            ]
            return Parts(stream, members)
        views: list[memoryview] = []

        def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
            try:
                view = buffer.raw()
            except BufferError:  # not contiguous
                return True
            if view.nbytes < LARGE_BYTES:
                return True
            views.append(view)
            return False

        kind = type(value.value)
        try:
            stream = pickle.dumps(value.value, protocol=5, buffer_callback=keep_in_band)
        except Exception as error:  # whatever a __reduce__ raises
            raise UnsupportedTypeError(
                f"it cannot be pickled ({type(error).__name__}: {error!s:.200}); its type is "
                f"{kind.__module__}.{kind.__qualname__}"
            ) from error
        large = [Member("bin", view.nbytes, partial(_whole, view)) for view in views]
        if len(stream) < LARGE_BYTES:
            return Parts(stream, large)
        return Parts(None, [Member("pkl", len(stream), partial(_whole, stream)), *large])

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        if not (type(meta) is bytes or (meta is None and members)):
            raise ValueError("a pickle without its stream")
        return Pickled._from_stored(meta, members)


def _read(source: MemberSource) -> tuple[memoryview]:
    return (source.read(),)


def _whole(view: bytes | memoryview) -> tuple[bytes | memoryview]:
    return (view,)
