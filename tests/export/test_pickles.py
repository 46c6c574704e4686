"""The restricted unpickler by itself; what hostile files do to a whole read is in `test_checkpoint.py`."""

from __future__ import annotations

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.pickles import (
    Array,
    RefusedContentError,
    RefusedGlobalError,
    RestrictedUnpickler,
    globals_of,
    numpy_globals,
    plain,
)
from tests.export.helpers import Payload, as_pickle, payloads

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def unpickled(data: bytes, size: int | None = None) -> Any:
    return RestrictedUnpickler(io.BytesIO(data), len(data) if size is None else size).load()


def named(value: object) -> list[str]:
    return list(globals_of(io.BytesIO(as_pickle(value))))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_as_stand_ins_and_plain_makes_them_arrays_again(protocol: int) -> None:
    read = unpickled(as_pickle({"w": VALUES, "n": [1, "a", None, True]}, protocol))
    assert type(read["w"]) is Array
    made = plain(read)
    assert np.array_equal(made["w"], VALUES)
    assert made["w"].dtype == np.float32
    assert made["n"] == [1, "a", None, True]


def test_ordered_dicts_are_allowed_and_come_out_plain() -> None:
    made = plain(unpickled(as_pickle(collections.OrderedDict(b=1, a=2))))
    assert type(made) is dict
    assert list(made.items()) == [("b", 1), ("a", 2)]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_would_run_is_refused_by_name_before_it_does(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "it ran"
    for name, payload in payloads(marker).items():
        data = as_pickle([VALUES, payload], protocol)
        with pytest.raises(RefusedGlobalError) as caught:
            unpickled(data)
        assert [full.rpartition(".")[2] for full in caught.value.names] == [name.rpartition(".")[2]]
        assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy", "ndarray.tofile"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("collections", "OrderedDict.__init__"),
        ("export.pickles", "Array"),
    ],
)
def test_a_name_outside_the_list_is_not_looked_up(module: str, name: str) -> None:
    with pytest.raises(RefusedGlobalError) as caught:
        RestrictedUnpickler(io.BytesIO(b""), 0).find_class(module, name)
    assert caught.value.names == (f"{module}.{name}",)


def test_none_of_numpys_own_functions_is_on_the_list() -> None:
    unpickler = RestrictedUnpickler(io.BytesIO(b""), 0)
    for full, stand_in in numpy_globals().items():
        module, _, name = full.rpartition(".")
        assert unpickler.find_class(module, name) is stand_in
        assert stand_in.__module__ == "export.pickles"


def test_arrays_of_objects_and_of_records_are_refused() -> None:
    for values in (np.array([None, {}], object), np.zeros(2, [("a", "f4")]), np.array(["text"]), np.zeros(1, "M8[s]")):
        with pytest.raises(pickle.UnpicklingError, match="expected numbers"):
            unpickled(as_pickle(values))


def test_subclasses_of_arrays_are_refused() -> None:
    with pytest.raises(RefusedGlobalError):
        unpickled(as_pickle(np.ma.masked_array([1.0], [True])))


def test_a_piece_that_is_longer_than_the_whole_is_not_made_room_for() -> None:
    data = as_pickle(b"x" * 1000, 3)
    assert unpickled(data) == b"x" * 1000
    with pytest.raises(pickle.UnpicklingError, match="claims 1000 bytes in one piece but has 500"):
        unpickled(data, size=500)


def test_references_to_the_outside_are_refused() -> None:
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return "storage" if obj is VALUES else None

    Pickler(stream, 2).dump([VALUES])
    with pytest.raises(pickle.UnpicklingError, match="refers to 'storage' outside of itself"):
        unpickled(stream.getvalue())


def doubled(opcodes: bytes) -> bytes:
    """A number, or what doubles it, 40 times over: to hash or to write it out takes 2 ** 40 steps."""
    return b"\x80\x04K\x01\x94" + b"".join(opcodes.replace(b"#", bytes([i])) + b"\x94" for i in range(40))


TUPLES = doubled(b"h#h#\x86")
LISTS = doubled(b"](h#h#e")
ORDERED = b"ccollections\nOrderedDict\n"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"}h\x28K\x01s", id="dict, one"),
        pytest.param(b"}(K\x01K\x01h\x28K\x01u", id="dict, many"),
        pytest.param(b"(h\x28K\x01d", id="dict, old"),
        pytest.param(b"\x8f(K\x01h\x28\x90", id="set"),
        pytest.param(b"(h\x28\x91", id="frozen set"),
        pytest.param(ORDERED + b")Rh\x28K\x01s", id="ordered dict"),
        pytest.param(ORDERED + b"]h\x28K\x01\x86a\x85R", id="ordered dict of pairs"),
        pytest.param(b"(" + ORDERED + b"]h\x28K\x01\x86ao", id="ordered dict of pairs, old"),
        pytest.param(ORDERED + b")R]h\x28K\x01\x86ab", id="attributes of pairs"),
        pytest.param(ORDERED + b")R(h\x28h\x28\x86tb", id="attributes of a tuple"),
    ],
)
def test_keys_that_would_take_for_ever_to_hash_are_refused(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"a tuple as a key|a state for something"):
        unpickled(TUPLES + data + b".")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"Q", "refers to a list outside"),
        (b"0cnumpy\ndtype\nh\x28\x85R", "an array of a list"),
        (b")\x81", "an object of a list"),
        (b"}(h\x28K\x01u", "a list as a key"),
    ],
)
def test_what_would_take_for_ever_to_write_out_is_not_written_into_messages(data: bytes, expected: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=expected):
        unpickled(LISTS + data + b".")


def test_keys_are_text_bytes_small_numbers_or_none() -> None:
    keys = ["a", b"b", 3, -(2**63), True, None]
    for protocol in range(6):
        assert unpickled(as_pickle(dict.fromkeys(keys, 1), protocol)) == dict.fromkeys(keys, 1)
        assert unpickled(as_pickle(collections.OrderedDict.fromkeys(keys, 1), protocol)) == dict.fromkeys(keys, 1)
    assert unpickled(as_pickle([set(keys), frozenset(keys)], 4)) == [set(keys), frozenset(keys)]
    others: list[Any] = [1.5, (1, 2), 1 << 80, frozenset()]
    for key in others:
        with pytest.raises(RefusedContentError, match="as a key"):
            unpickled(as_pickle({key: 1}, 4))


def test_shapes_are_no_longer_than_numpys() -> None:
    # Their product would need more memory than the file has bytes.
    made = b"cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n(\x8c\x02u1tR%b\x8c\x01CtR."
    long = b"(" + b"K\x01" * 65 + b"t"
    large = b"\x8a\x28" + b"\x01" * 40 + b"K\x00\x86"
    for shape in (long, large):
        with pytest.raises(pickle.UnpicklingError, match="without a shape"):
            unpickled(b"\x80\x04" + made.replace(b"%b", shape))
    assert plain(unpickled(b"\x80\x04" + made.replace(b"%b", b"K\x00\x85"))).shape == (0,)


def test_globals_are_named_without_being_looked_up(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    for name, payload in payloads(marker).items():
        (found,) = named(payload)
        assert found.rpartition(".")[2] == name.rpartition(".")[2]
    assert not marker.exists()
    assert named({"a": 1, "b": [2.5, "text"]}) == []
    assert set(named(VALUES)) <= {*numpy_globals(), "_codecs.encode"}
    # A module that is not there cannot be looked up either.
    assert list(globals_of(io.BytesIO(b"\x80\x02cno.such.module\nname\n."))) == ["no.such.module.name"]


def test_the_stream_stands_behind_the_pickle_that_was_looked_at() -> None:
    stream = io.BytesIO(as_pickle([1]) + as_pickle(Payload(print, "never")))
    assert list(globals_of(stream)) == []
    assert [name.rpartition(".")[2] for name in globals_of(stream)] == ["print"]
    assert stream.read() == b""


def test_names_that_are_made_up_at_run_time_are_refused() -> None:
    with pytest.raises(RefusedGlobalError, match="made up at run time"):
        list(globals_of(io.BytesIO(as_pickle(Payload(print, 1), 4))))


def test_damage_is_a_value_error() -> None:
    for data in (b"", b"\x80\x02", as_pickle(VALUES)[:-9], b"\xff"):
        with pytest.raises(ValueError):
            list(globals_of(io.BytesIO(data)))


def test_plain_converts_leaves_in_every_container_and_leaves_keys() -> None:
    given = collections.OrderedDict([("a", (1, [2])), (3, {"b": 4})])
    assert plain(given, lambda leaf: -1 * leaf if isinstance(leaf, int) else leaf) == {"a": (-1, [-2]), 3: {"b": -4}}
    tensor = torch.ones(2)
    assert plain([tensor])[0] is tensor


def test_plain_walks_what_is_shared_once() -> None:
    shared, seen = [1], list[object]()

    def note(leaf: object) -> object:
        seen.append(leaf)
        return leaf

    made = plain([shared, shared, {"a": shared}], note)
    assert made[0] is made[1] is made[2]["a"]
    assert made[0] is not shared
    assert seen == [1]


def test_plain_refuses_what_contains_itself_and_what_is_too_deep() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(ValueError, match="nested too deeply"):
            plain(value)


def test_plain_refuses_an_array_that_never_got_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        plain({"w": Array()})
