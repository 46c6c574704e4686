"""Pickles from strangers: only arrays and plain containers come out, and nothing of the file is run.

A pickle is a program that may call any function it names. Here every name is looked up in a short list, and numpy's own
entries of that list are replaced by stand-ins that check shapes against the bytes that are there.
"""

from __future__ import annotations

import collections
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

#: What damaged or hostile input makes unpicklers raise.
PICKLE_ERRORS: Final = (
    pickle.PickleError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)

_NUMBER = re.compile(r"[<>=|]?(?:[fiu][1248]|b1)\Z")
_DEEPEST = 64
#: As many as numpy has.
_MOST_DIMENSIONS = 64
_WORD_BITS = 64


class RefusedGlobalError(pickle.UnpicklingError):
    """A pickle names something that weights do not need."""

    def __init__(self, *names: str) -> None:
        super().__init__(", ".join(names))
        self.names = names


class RefusedContentError(pickle.UnpicklingError):
    """A pickle does what pickles of weights never do."""


def kind_of(value: object) -> str:
    """Names an untrusted object for a message.

    A few bytes of a pickle can make a list that takes for ever to write out, so only short text is shown.
    """
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


def require_keys(keys: Iterable[object]) -> None:
    """Makes sure that the keys of a dict or the members of a set can be hashed in no time.

    A few bytes can make a tuple of tuples whose hash takes 2 ** 40 steps, which nothing interrupts.

    Raises:
        RefusedContentError: One of them is neither text nor bytes, a small whole number or None.
    """
    for key in keys:
        if isinstance(key, int) and key.bit_length() > _WORD_BITS:
            raise RefusedContentError(f"a number of {key.bit_length()} bits as a key")
        if key is not None and not isinstance(key, str | bytes | int):
            raise RefusedContentError(f"{kind_of(key)} as a key")


class DType:
    """Stands in for `numpy.dtype`: plain numbers only, so that no array can hold objects."""

    __slots__ = ("value",)
    value: np.dtype[Any]

    def __new__(cls, spec: object = None, *_: object) -> DType:
        """Takes the arguments that numpy's own pickles give."""
        if not isinstance(spec, str) or not _NUMBER.match(spec):
            raise pickle.UnpicklingError(f"an array of {kind_of(spec)}, expected numbers")
        made = super().__new__(cls)
        made.value = np.dtype(spec)
        return made

    def __setstate__(self, state: object) -> None:
        """Takes numpy's (version, byte order, sub-array, names, fields, ...)."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of records, expected numbers")
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class Array:
    """Stands in for `numpy.ndarray` while its pickle is read."""

    __slots__ = ("value",)
    value: NDArray[Any] | None

    def __new__(cls, *_: object) -> Array:
        """Makes an array without values, however large it claims to be."""
        made = super().__new__(cls)
        made.value = None
        return made

    def __setstate__(self, state: object) -> None:
        """Takes numpy's (version, shape, dtype, is Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array that numpy did not write")
        self.value = _array(state[1], state[2], state[4], "F" if state[3] else "C")


def _array(shape: object, dtype: object, data: object, order: object) -> NDArray[Any]:
    if isinstance(data, str):
        # Python 2 had no bytes: read as latin1, every byte became one letter.
        data = data.encode("latin1")
    if not isinstance(dtype, DType) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array without bytes of numbers")
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise pickle.UnpicklingError("an array without a shape")
    if not all(type(n) is int and n >= 0 and n.bit_length() < _WORD_BITS for n in shape):
        raise pickle.UnpicklingError("an array without a shape")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array that claims the shape {str(shape)[:60]} but has {len(data)} bytes")
    return np.frombuffer(data, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: object, *_: object) -> Array:
    if kind is not Array:
        raise pickle.UnpicklingError("an array of another class than numpy's own")
    return Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> Array:
    made = Array()
    made.value = _array(shape, dtype, data, order)
    return made


def _scalar(dtype: object, data: object) -> Any:
    return _array((), dtype, data, "C")[()]


def _encode(text: object, encoding: object = None) -> bytes:
    # How Python 3 writes bytes for readers of protocol 2.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes(*values: object) -> bytes:
    # How Python 3 writes empty bytes for readers of protocol 2.
    if values:
        raise pickle.UnpicklingError("bytes made by a call")
    return b""


def numpy_globals() -> dict[str, Any]:
    """What numpy's own pickles name, in the spelling of numpy 1 and 2, and what stands in for it."""
    found: dict[str, Any] = {"numpy.ndarray": Array, "numpy.dtype": DType}
    found |= {"__builtin__.bytes": _no_bytes, "builtins.bytes": _no_bytes}
    for package in ("numpy.core", "numpy._core"):
        found[f"{package}.multiarray._reconstruct"] = _reconstruct
        found[f"{package}.multiarray.scalar"] = _scalar
        found[f"{package}.numeric._frombuffer"] = _frombuffer
    return found


class Ordered(collections.OrderedDict[Any, Any]):
    """Stands in for `collections.OrderedDict`: looks at every key, however it comes in."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Sets one item; called for those that it is made of, too."""
        require_keys((key,))
        super().__setitem__(key, value)


class _Bounded:
    """A file that is never asked for more than it has: a claimed length is made room for before it is read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self.readline = stream.readline

    def read(self, size: int) -> bytes:
        if size > self._size:
            raise pickle.UnpicklingError(f"it claims {size} bytes in one piece but has {self._size}")
        return self._stream.read(size)


# Not the C unpickler: it allots its memo by an index that is written in the file, so that ten bytes can claim 64 GB.
# The one in Python keeps a dict, and its one allocation by a claimed length, for a bytearray, is replaced below.
class RestrictedUnpickler(pickle._Unpickler):
    """Reads one pickle; whatever it names outside the list raises before it is called.

    Args:
        stream: the pickle.
        size: how many bytes it has at most.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    _allowed: dict[str, Any]

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(_Bounded(stream, size), encoding="latin1")
        self._allowed = {**numpy_globals(), "collections.OrderedDict": Ordered, "_codecs.encode": _encode}

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands in for a global.

        Raises:
            RefusedGlobalError: It is none of the few that arrays need.
        """
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise RefusedGlobalError(full)
        return self._allowed[full]

    def persistent_load(self, pid: object) -> Any:
        """Refuses references to the outside."""
        raise pickle.UnpicklingError(f"it refers to {kind_of(pid)} outside of itself")


def _checked_build(unpickler: Any) -> None:
    # Without this, a pickle could set attributes of the stand-ins themselves, and so of every later pickle.
    target, state = unpickler.stack[-2:]
    if type(target) not in (Array, DType) and not (type(target) is Ordered and isinstance(state, dict)):
        raise pickle.UnpicklingError("a state for something that has none")
    pickle._Unpickler.dispatch[pickle.BUILD[0]](unpickler)


def _checked_bytearray(unpickler: Any) -> None:
    (size,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(size)))


def _checked_object(unpickler: Any) -> None:
    # What is no class may be a container with an attribute of that name.
    if not isinstance(unpickler.stack[-2], type):
        raise pickle.UnpicklingError(f"an object of {kind_of(unpickler.stack[-2])}, expected a class")
    pickle._Unpickler.dispatch[pickle.NEWOBJ[0]](unpickler)


def _with_keys(opcode: bytes, keys: slice) -> Callable[[Any], None]:
    """An opcode that hashes a part of the stack, after a look at that part."""
    original = pickle._Unpickler.dispatch[opcode[0]]

    def checked(unpickler: Any) -> None:
        require_keys(unpickler.stack[keys])
        original(unpickler)

    return checked


# All but the first find on the stack what came after the last mark.
RestrictedUnpickler.dispatch[pickle.SETITEM[0]] = _with_keys(pickle.SETITEM, slice(-2, -1))
RestrictedUnpickler.dispatch[pickle.SETITEMS[0]] = _with_keys(pickle.SETITEMS, slice(0, None, 2))
RestrictedUnpickler.dispatch[pickle.DICT[0]] = _with_keys(pickle.DICT, slice(0, None, 2))
RestrictedUnpickler.dispatch[pickle.ADDITEMS[0]] = _with_keys(pickle.ADDITEMS, slice(None))
RestrictedUnpickler.dispatch[pickle.FROZENSET[0]] = _with_keys(pickle.FROZENSET, slice(None))
RestrictedUnpickler.dispatch[pickle.NEWOBJ[0]] = _checked_object
RestrictedUnpickler.dispatch[pickle.BUILD[0]] = _checked_build
RestrictedUnpickler.dispatch[pickle.BYTEARRAY8[0]] = _checked_bytearray


def globals_of(stream: BinaryIO) -> Iterator[str]:
    """Names the globals that a pickle would look up, without reading it as a pickle.

    Args:
        stream: a pickle of protocol 2; stands behind it afterwards.

    Raises:
        RefusedGlobalError: One of the names is made up while the pickle runs, so that it cannot be known before.
        ValueError: It is damaged.
    """
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            raise RefusedGlobalError("something by a name that is made up at run time")


def plain(value: object, convert: Callable[[object], object] = lambda leaf: leaf) -> Any:
    """Copies containers into plain ones, with arrays instead of their stand-ins.

    Args:
        value: what an unpickler returned.
        convert: what to do with everything that is no container.

    Raises:
        ValueError: It is nested too deeply, contains itself, or has an array without values.
    """
    return _plain(value, convert, {}, 0)


_PENDING: Final = object()


def _plain(value: Any, convert: Callable[[object], object], done: dict[int, Any], depth: int) -> Any:
    if isinstance(value, Array):
        if value.value is None:
            raise ValueError("an array has no values")
        return value.value
    if not isinstance(value, dict | list | tuple | set):
        return convert(value)
    if depth > _DEEPEST or done.get(id(value)) is _PENDING:
        raise ValueError("it is nested too deeply")
    # The same list may be referred to many times; walking it each time could take for ever.
    if id(value) not in done:
        done[id(value)] = _PENDING
        if isinstance(value, dict):
            made: Any = {key: _plain(item, convert, done, depth + 1) for key, item in value.items()}
        elif isinstance(value, set):
            made = set(value)
        else:
            made = [_plain(item, convert, done, depth + 1) for item in value]
            made = tuple(made) if isinstance(value, tuple) else made
        done[id(value)] = made
    return done[id(value)]
