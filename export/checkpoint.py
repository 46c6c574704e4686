"""Checkpoint files, as published, to plain containers of tensors. The files are not trusted."""

from __future__ import annotations

import codecs
import collections
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from engines.errors import CheckpointError
from export.pickles import (
    PICKLE_ERRORS,
    Ordered,
    RefusedContentError,
    RefusedGlobalError,
    RestrictedUnpickler,
    globals_of,
    kind_of,
    numpy_globals,
    plain,
    require_keys,
)

_ZIP_START: Final = b"PK\x03\x04"
#: The number that torch wrote first before its files were zip files, as a pickle of protocol 2.
_LEGACY_START: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#: Pickles without a protocol number begin with an empty container or a global.
_PICKLE_START: Final = re.compile(rb"\x80[\x01-\x05]|\([dl](?:p\d|[\n.])|\(?[ci][\w.]+\n[\w.]+\n|[\]}]q|\((?:S'|V)")
#: Legacy files hold the magic number, a version, facts of the system, the object, and the keys of its storages.
_LEGACY_PICKLES: Final = 5

#: Narrower than what torch allows with weights_only: neither tensors by size nor byte arrays by length, which would let
#: a small file claim all memory.
_TORCH_GLOBALS: Final = re.compile(
    r"torch\.(?:cuda\.)?\w+Storage|torch\.storage\.(?:Typed|Untyped)Storage"
    r"|torch\._utils\._rebuild_(?:tensor|tensor_v2|parameter)|torch\.nn\.parameter\.Parameter"
    r"|torch\.(?:Size|device|bfloat16|bool|double|half|float|int|long|short|uint8|(?:float|int)\d+)"
    r"|collections\.(?:OrderedDict|Counter)|_codecs\.encode|(?:__builtin__|builtins)\.set"
)
#: Those of them that are called. Storages are only referred to: called with a size, they would claim any memory.
_TORCH_CALLS: Final = re.compile(
    r"torch\._utils\._rebuild_(?:tensor|tensor_v2|parameter)|torch\.nn\.parameter\.Parameter|torch\.(?:Size|device)"
)
#: More than any tensor has.
_MOST_DIMENSIONS: Final = 64
#: What torch writes for a storage: its kind, class, key, device, length, and in legacy files the part of it.
_STORAGE_ID: Final = (5, 6)
_VIEW: Final = 3
#: What torch and the system say when they refuse an allocation.
_NO_MEMORY: Final = re.compile(r"DefaultCPUAllocator|[Cc]an(?:not|'t) allocate memory")
#: Training state that lies beside the weights. What is a dict may be read as one.
_DICTS: Final = ("easydict.EasyDict",)


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """Reads a checkpoint of torch (both of its formats) or of detectron2's model zoo (a pickle of arrays).

    What the file is, its content says, not its name. Nothing in it is run: names outside a short list are refused.

    Args:
        path: the file.

    Returns:
        Plain dicts, lists and tuples. Tensors are `torch.Tensor` on the CPU, and may be views of the file:
        clone what outlives it. Arrays of a pickle are read-only numpy arrays.

    Raises:
        CheckpointError: There is no such file, it is damaged, no checkpoint, names what weights do not need, or does
            not fit into the memory.
    """
    head = _head(path)
    try:
        if head.startswith(_ZIP_START):
            content = _read_zip(path)
        elif head.startswith(_LEGACY_START):
            content = _read_legacy(path)
        elif _PICKLE_START.match(head):
            with path.open("rb") as stream:
                content = RestrictedUnpickler(stream, path.stat().st_size).load()
        else:
            raise CheckpointError(f"{path} is no checkpoint: {_guess(head)}; give the .ckpt, .pth or .pkl as published")
        size = path.stat().st_size
        content = plain(content, lambda leaf: _checked(leaf, size))
    except CheckpointError:
        raise
    except RefusedGlobalError as error:
        raise CheckpointError(
            f"{path} names {shown(*error.names)}, which weights do not need and which could run code; nothing of it "
            "was run; get the file from its authors, or save only its tensors with torch.save"
        ) from None
    except RefusedContentError as error:
        raise CheckpointError(
            f"{path} has {shown(str(error))}, which weights never need; get it from its authors"
        ) from None
    except (*PICKLE_ERRORS, OSError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) needs more memory than is free; close other programs, or get "
                "the file from its authors if it is small"
            ) from None
        raise CheckpointError(
            f"{path} is damaged or cut off ({shown(str(error) or type(error).__name__)}); download it again"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict of tensors")
    return dict(content)


def require_file(path: Path) -> None:
    """Makes sure that there is something to read.

    Raises:
        CheckpointError: No such file, a folder, or nothing in it.
    """
    _head(path)


def _head(path: Path) -> bytes:
    if not path.exists():
        raise CheckpointError(f"{path} is not there; expected a checkpoint file: check the path")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise CheckpointError(f"{path} is {kind}; expected a checkpoint file: give the file itself")
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from None
    if not head:
        raise CheckpointError(f"{path} is empty; expected a checkpoint file: download it again")
    return head


def _guess(head: bytes) -> str:
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page, which is what a dead link leaves"
    if start.startswith(b"version https://git-lfs"):
        return "it is a git LFS pointer, not the file behind it"
    if head[8:10] == b'{"':
        return "it may be a safetensors file, which none of the published checkpoints is"
    try:
        # The cut may have gone through a letter, which this leaves out.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return f"it begins with the bytes {head[:8].hex(' ')}"
    return f"it is text that begins {shown(text[:40])}"


def shown(*names: str, most: int = 5) -> str:
    """A few names for an error message, on one line whatever is in them."""
    shown = [" ".join(name.encode("unicode_escape").decode().split())[:160] for name in names[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown) + more


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise CheckpointError(f"{path} is a zip file, but none that torch.save wrote; give the checkpoint itself")
        if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
            raise CheckpointError(f"{path} is a TorchScript program; expected a checkpoint with weights only")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise CheckpointError(f"{path} has been compressed, which torch.save never does; save it again with torch")
        with archive.open(pickles[0]) as stream:
            _refuse_strange_globals(stream, 1)
        with archive.open(pickles[0]) as stream:
            _Rehearsal(stream, path.stat().st_size).load()
    return _load(path, mmap=True)


def _read_legacy(path: Path) -> object:
    with path.open("rb") as stream:
        _refuse_strange_globals(stream, _LEGACY_PICKLES)
        stream.seek(0)
        size = path.stat().st_size
        _, version, _, _, keys = [_Rehearsal(stream, size).load() for _ in range(_LEGACY_PICKLES)]
        # torch writes the one into a message and looks the others up.
        if not isinstance(version, int) or not isinstance(keys, list):
            raise RefusedContentError(f"{kind_of(version)} as its version and {kind_of(keys)} as its keys")
        require_keys(keys)
    return _load(path, mmap=False)


class _Made:
    """Stands in for a global of torch, or for what it makes."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: object) -> _Made:
        """Looks at what torch would be called with."""
        if not _TORCH_CALLS.fullmatch(self._name):
            raise RefusedContentError(f"a call of {self._name or 'a tensor'}")
        for argument in arguments:
            if not _is_flat(argument):
                raise RefusedContentError(f"{kind_of(argument)} in a call of {self._name}")
        return _Made("")


def _is_flat(argument: object) -> bool:
    """Whether it is what tensors are made of, which is nothing that would take long to hash, compare or write out."""
    if isinstance(argument, dict):
        return all(value is None or isinstance(value, str | int) for value in argument.values())
    if isinstance(argument, tuple | list):
        return len(argument) <= _MOST_DIMENSIONS and all(isinstance(n, int) for n in argument)
    return argument is None or isinstance(argument, str | bytes | int | _Made)


class _Rehearsal(RestrictedUnpickler):
    """Reads a pickle of torch before torch does, with stand-ins for all of torch.

    torch refuses to run what is not on its list, but hashes and writes out what it is given, and makes room for
    whatever size a storage claims.
    """

    def __init__(self, stream: Any, size: int) -> None:
        super().__init__(stream, size)
        self._size = size
        self._seen: set[str | bytes] = set()
        self._claimed = 0
        self._allowed |= dict.fromkeys(_DICTS, Ordered) | {"collections.Counter": _counter}
        self._allowed |= {"__builtin__.set": _set, "builtins.set": _set}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        return (
            _Made(full)
            if _TORCH_GLOBALS.fullmatch(full) and full not in self._allowed
            else super().find_class(module, name)
        )

    def persistent_load(self, pid: object) -> _Made:
        if not isinstance(pid, tuple) or len(pid) not in _STORAGE_ID or pid[0] not in ("storage", b"storage"):
            raise RefusedContentError(f"a reference to {kind_of(pid)} outside of itself")
        _, kind, key, device, length, *view = pid
        fits = isinstance(kind, _Made) and isinstance(key, str | bytes) and isinstance(device, str | bytes)
        if not fits or type(length) is not int or length < 0 or not _is_view(*view):
            raise RefusedContentError("a reference to a storage that torch did not write")
        # Files that were saved honestly hold all of every storage.
        self._claimed += 0 if key in self._seen else length
        self._seen.add(key)
        if self._claimed > self._size:
            raise pickle.UnpicklingError(
                f"its tensors claim {self._claimed} numbers, but the file has {self._size} bytes"
            )
        return _Made("")


def _is_view(view: object = None) -> bool:
    if not isinstance(view, tuple):
        return view is None
    return len(view) == _VIEW and isinstance(view[0], str | bytes) and all(type(n) is int for n in view[1:])


def _counter(*given: object) -> Ordered:
    if not all(isinstance(part, dict) for part in given):
        raise RefusedContentError("a Counter of something else than a dict")
    return Ordered(*given)


def _set(*given: object) -> set[Any]:
    for members in given:
        if not isinstance(members, list | tuple | set):
            raise RefusedContentError(f"a set of {kind_of(members)}")
        require_keys(members)
    return set(*given)


def _refuse_strange_globals(stream: Any, pickles: int) -> None:
    """Looks through all globals before torch sees any: its own list is wider, and its messages name one at a time."""
    known = numpy_globals()
    strange: dict[str, None] = {}
    for _ in range(pickles):
        for name in globals_of(stream):
            if name not in known and name not in _DICTS and not _TORCH_GLOBALS.fullmatch(name):
                strange[name] = None
    if strange:
        raise RefusedGlobalError(*strange)


def _load(path: Path, *, mmap: bool) -> object:
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in numpy_globals().items()]
    stand_ins += [(collections.OrderedDict, name) for name in _DICTS]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        # Old storage classes and protocols are what old files are made of.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            # torch's advice, how to switch its protection off, is not ours.
            reason = re.search(r"WeightsUnpickler error: (.*)", str(error))
            raise pickle.UnpicklingError(reason[1] if reason else "torch does not read it") from None


def _checked(leaf: object, size: int) -> object:
    """A tensor may repeat its storage, and so claim any size; files that were saved honestly hold every value."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.numel() * leaf.element_size() > size:
        raise ValueError(f"a tensor claims the shape {tuple(leaf.shape)}, but the file has {size} bytes")
    return leaf.detach()
