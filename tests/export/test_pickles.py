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

from export.pickles import Array, RefusedGlobalError, RestrictedUnpickler, globals_of, numpy_globals, plain
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
