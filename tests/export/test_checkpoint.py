from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import CheckpointError
from export.checkpoint import read_checkpoint, require_file
from tests.export.helpers import Payload, as_pickle, as_torch, easydict_class, payloads, rezipped

#: How a hostile object can be wrapped: every format, plain or deep inside something harmless.
FORMATS: dict[str, Callable[[Any], bytes]] = {
    "pickle 0": lambda content: as_pickle(content, 0),
    "pickle 1": lambda content: as_pickle(content, 1),
    "pickle 2": lambda content: as_pickle(content, 2),
    "pickle 4": lambda content: as_pickle(content, 4),
    "pickle 5": lambda content: as_pickle(content, 5),
    "torch zip": as_torch,
    "torch legacy": lambda content: as_torch(content, legacy=True),
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda payload: payload,
    "nested": lambda payload: {"model": {"a.weight": np.ones(2), "b": [1, (2, [payload])]}},
}


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def given_as(folder: Path, data: bytes) -> Path:
    path = folder / "model.ckpt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("which", range(4))
def test_nothing_of_a_hostile_file_is_run(tmp_path: Path, form: str, place: str, which: int) -> None:
    marker = tmp_path / "it ran"
    name, payload = list(payloads(marker).items())[which]
    path = given_as(tmp_path, FORMATS[form](PLACES[place](payload)))
    message = refused(path)
    assert not marker.exists()
    assert "nothing of it was run" in message
    if form != "torch zip" or place == "alone":
        assert name.rpartition(".")[2] in message


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("which", range(4))
def test_control_the_same_bytes_do_run_where_nothing_is_refused(tmp_path: Path, form: str, which: int) -> None:
    marker = tmp_path / "it ran"
    path = given_as(tmp_path, FORMATS[form](PLACES["nested"](list(payloads(marker).values())[which])))
    torch_file = form.startswith("torch")
    opened: Any = torch.load(path, weights_only=False) if torch_file else pickle.loads(path.read_bytes())
    assert marker.exists()
    left = opened["model"]["b"][1][1][0]
    if isinstance(left, io.IOBase):
        left.close()


def test_a_payload_put_into_an_honest_zip_file_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    payload = next(iter(payloads(marker).values()))
    data = rezipped(as_torch({"a": torch.ones(2)}), {"data.pkl": as_pickle(payload)})
    path = given_as(tmp_path, data)
    assert "system" in refused(path)
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017 (whatever torch makes of a plain number)
        torch.load(path, weights_only=False)["a"]
    assert marker.exists(), "the control did not run"


@pytest.mark.parametrize("call", [Payload(bytearray, 10**12), Payload(torch.FloatTensor, 10**11)])
@pytest.mark.parametrize("legacy", [False, True])
def test_calls_that_only_claim_memory_are_refused_though_torch_allows_them(
    tmp_path: Path, call: Payload, legacy: bool
) -> None:
    data = as_pickle({"x": call})
    if legacy:
        honest = as_torch({}, legacy=True)
        empty = pickle.dumps({}, protocol=2)
        assert honest.count(empty) == 1
        data = honest.replace(empty, data)
    else:
        data = rezipped(as_torch({"a": torch.ones(2)}), {"data.pkl": data})
    assert "nothing of it was run" in refused(given_as(tmp_path, data))


def torch_file(pickled: bytes, *, legacy: bool, keys: bytes = b"\x80\x02].", version: bytes = b"") -> bytes:
    """A file of torch with other pickles than torch wrote."""
    if not legacy:
        return rezipped(as_torch({"a": torch.ones(2)}), {"data.pkl": pickled})
    honest = as_torch({}, legacy=True)
    head = honest.index(b".", 2) + 1
    assert honest[head:].startswith(b"\x80\x02M\xe9\x03.")
    system = honest[head + 6 : honest.index(pickle.dumps({}, protocol=2))]
    return honest[:head] + (version or honest[head : head + 6]) + system + pickled + keys


#: A tuple of tuples, in 40 steps: to hash or to write it out takes 2 ** 40.
TUPLES = b"\x80\x02K\x01q\x00" + b"".join(
    b"h%bh%b\x86q%b" % (bytes([i]), bytes([i]), bytes([i + 1])) for i in range(40)
)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
NUMBERS = b"K\x00K\x02\x85K\x01\x85\x89NtR"
STORAGE = b"ctorch\nFloatStorage\n"


def storage(key: bytes = b"U\x010", length: bytes = b"K\x02", device: bytes = b"U\x03cpu", more: bytes = b"") -> bytes:
    return b"(U\x07storage" + STORAGE + key + device + length + more + b"tQ"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"}h\x28K\x01s", "a tuple as a key", id="dict"),
        pytest.param(b"c__builtin__\nset\n]h\x28a\x85R", "a tuple as a key", id="set"),
        pytest.param(b"ccollections\nCounter\n]h\x28a\x85R", "a Counter of something else", id="counter"),
        pytest.param(b"ccollections\nOrderedDict\n]h\x28K\x01\x86a\x85R", "a tuple as a key", id="pairs"),
        pytest.param(b"ccollections\nOrderedDict\n)R]h\x28K\x01\x86ab", "a state for", id="attributes"),
        pytest.param(b"ceasydict\nEasyDict\n)\x81h\x28K\x01s", "a tuple as a key", id="easydict"),
        pytest.param(b"h\x28)R", "not callable", id="call"),
        pytest.param(b"h\x28)\x81", "an object of a tuple", id="object"),
        pytest.param(b"h\x28Q", "a reference to a tuple", id="reference"),
        pytest.param(storage(key=b"h\x28"), "a storage that torch did not write", id="name of a storage"),
        pytest.param(storage(device=b"h\x28"), "a storage that torch did not write", id="device of a storage"),
        pytest.param(storage(length=b"h\x28"), "a storage that torch did not write", id="length of a storage"),
        pytest.param(storage(more=b"h\x28"), "a storage that torch did not write", id="view of a storage"),
        pytest.param(TENSOR + b"h\x28" + NUMBERS, "a tuple in a call of torch._utils._rebuild_tensor_v2", id="tensor"),
        pytest.param(b"ctorch\ndevice\nh\x28\x85R", "a tuple in a call of torch.device", id="torch.device"),
        pytest.param(b"ctorch\nSize\nh\x28\x85\x85R", "a tuple in a call of torch.Size", id="torch.Size"),
        pytest.param(STORAGE + b"J\xff\xff\xff\x7f\x85R", "a call of torch.FloatStorage", id="storage by length"),
        pytest.param(storage(length=b"J\xff\xff\xff\x7f"), "claim 2147483647 numbers", id="long storage"),
    ],
)  # fmt: skip
def test_small_torch_files_that_claim_much_end_before_torch_sees_them(
    tmp_path: Path, data: bytes, expected: str, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("torch saw it")

    monkeypatch.setattr(torch, "load", never)
    assert expected in refused(given_as(tmp_path, torch_file(TUPLES + data + b".", legacy=legacy)))


@pytest.mark.timeout(30)
def test_what_surrounds_a_legacy_pickle_is_looked_at_too(tmp_path: Path) -> None:
    content = b"\x80\x02}U\x01aK\x01s."
    assert read_checkpoint(given_as(tmp_path, torch_file(content, legacy=True))) == {"a": 1}
    keys = TUPLES + b"]h\x28a."
    assert "a tuple as a key" in refused(given_as(tmp_path, torch_file(content, legacy=True, keys=keys)))
    version = TUPLES + b"."
    assert "a tuple as its version" in refused(given_as(tmp_path, torch_file(content, legacy=True, version=version)))


def test_ordered_dicts_as_python_2_wrote_them_are_read(tmp_path: Path) -> None:
    pairs = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01bK\x02ee\x85R."
    for data in (pairs, torch_file(pairs, legacy=False), torch_file(pairs, legacy=True)):
        assert read_checkpoint(given_as(tmp_path, data)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("legacy", [False, True])
def test_unusual_but_honest_tensors_are_read(tmp_path: Path, legacy: bool) -> None:
    whole = torch.arange(12.0)
    content: dict[str, Any] = {
        "view": whole[3:7],
        "other": whole.view(3, 4).t(),
        "size": whole.view(3, 4).shape,
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "none": torch.empty(0, 3),
        "point": torch.tensor(2),
        "counter": Counter("abba"),
        "bool": torch.tensor([True, False]),
    }
    read = read_checkpoint(given_as(tmp_path, as_torch(content, legacy=legacy)))
    for name in ("view", "other", "none", "point", "bool"):
        assert torch.equal(read[name], content[name]), name
    assert tuple(read["size"]) == (3, 4)
    assert read["device"] == torch.device("cpu")
    assert read["dtype"] == torch.float16
    assert read["counter"] == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: ..."),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_a_refused_allocation_is_said_in_our_words(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", refuse)
    path = given_as(tmp_path, as_torch({"a": torch.ones(2)}))
    message = refused(path)
    assert f"({path.stat().st_size} bytes) needs more memory than is free" in message
    assert "damaged" not in message
    assert "alloc" not in message.replace(str(path), "")


def reading(data: bytes) -> bytes:
    """A pickle of protocol 4 around some opcodes."""
    return b"\x80\x04" + data + b"."


GLOBAL = "c{}\n{}\n".format
RECONSTRUCT = GLOBAL("numpy.core.multiarray", "_reconstruct").encode()
NDARRAY = GLOBAL("numpy", "ndarray").encode()
DTYPE = GLOBAL("numpy", "dtype").encode()
ENCODE = GLOBAL("_codecs", "encode").encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x8e" + struct.pack("<Q", 1 << 40) + b"abc", id="bytes"),
        pytest.param(b"\x96" + struct.pack("<Q", 1 << 40) + b"abc", id="bytearray"),
        pytest.param(b"\x95" + struct.pack("<Q", 1 << 40) + b"abc", id="frame"),
        pytest.param(b"]r\xff\xff\xff\xff", id="memo"),
        pytest.param(b"]p99999999999999\n", id="memo in text"),
        pytest.param(b"I" + b"9" * 100_000 + b"\n", id="number"),
        pytest.param(RECONSTRUCT + b"(" + NDARRAY + b"(J\xff\xff\xff\x7ftC\x01btR", id="array"),
        pytest.param(NDARRAY + b"(J\xff\xff\xff\x7ft\x81", id="array made directly"),
        pytest.param(b"(" * 200_000, id="marks"),
        pytest.param(b"]" * 5000 + b"a" * 4999, id="nesting"),
        pytest.param(b"]\x94h\x00a", id="a list of itself"),
        pytest.param(b"]\x94" + b"".join(b"(h%bh%bl\x94" % ((bytes([i]),) * 2) for i in range(60)), id="doubling"),
    ],
)  # fmt: skip
def test_small_files_that_claim_much_end_at_once(tmp_path: Path, data: bytes) -> None:
    refused(given_as(tmp_path, reading(data)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            RECONSTRUCT + b"(" + GLOBAL("collections", "OrderedDict").encode() + b"K\x00tR", id="another class"
        ),
        pytest.param(DTYPE + b"(X\x01\x00\x00\x00OtR", id="objects"),
        pytest.param(DTYPE + b"(X\x03\x00\x00\x00O8ltR", id="objects by size"),
        pytest.param(DTYPE + b"(X\x02\x00\x00\x00f4tR(K\x03X\x01\x00\x00\x00<K\x01NNtb", id="records"),
        pytest.param(NDARRAY + b")\x81(K\x01K\x02tb", id="state of another kind"),
        pytest.param(RECONSTRUCT + b"}X\x01\x00\x00\x00aK\x01sb", id="state of a function"),
        pytest.param(RECONSTRUCT + b"N}X\x0c\x00\x00\x00__defaults__K\x01s\x86b", id="attribute of a function"),
        pytest.param(NDARRAY + b"}X\x01\x00\x00\x00aK\x01sb", id="state of a class"),
        pytest.param(GLOBAL("builtins", "bytes").encode() + b"(J\xff\xff\xff\x7ftR", id="bytes by length"),
        pytest.param(ENCODE + b"(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR", id="another encoding"),
        pytest.param(b"X\x01\x00\x00\x00aQ", id="persistent id"),
        pytest.param(b"Pa\n", id="persistent id in text"),
        pytest.param(b"\x82\x01", id="extension"),
        pytest.param(b"\x97", id="buffer from outside"),
        pytest.param(GLOBAL("collections", "OrderedDict.fromkeys").encode(), id="attribute of what is allowed"),
        pytest.param(GLOBAL("collections", "namedtuple").encode(), id="neighbour of what is allowed"),
    ],
)
def test_odd_uses_of_what_is_allowed_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(given_as(tmp_path, reading(b"}(X\x01\x00\x00\x00k" + data + b"u")))


def arrays() -> dict[str, Any]:
    return {
        "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big endian": np.arange(4, dtype=">f4"),
        "half": np.ones((1, 2), np.float16),
        "int": np.array([-1, 2]),
        "bool": np.array([True, False]),
        "none": np.empty((0, 3), np.float32),
        "point": np.array(3.5),
        "scalar": np.float64(2.5),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_a_model_zoo_pickle_gives_its_arrays(tmp_path: Path, protocol: int) -> None:
    content = {"model": OrderedDict(arrays()), "__author__": "someone", "matching_heuristics": True}
    read = read_checkpoint(given_as(tmp_path, as_pickle(content, protocol)))
    assert read["__author__"] == "someone"
    assert type(read["model"]) is dict
    for name, values in arrays().items():
        assert np.array_equal(read["model"][name], values), name
        assert np.asarray(read["model"][name]).dtype == np.asarray(values).dtype
        assert np.asarray(read["model"][name]).shape == np.asarray(values).shape


def test_a_pickle_by_python_2_gives_its_arrays(tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 200.0], "<f4")
    raw = values.tobytes()
    assert max(raw) > 127, "bytes that are no ASCII are the point"
    text = b"U" + bytes([len(raw)]) + raw
    state = (
        b"(K\x01(K\x03tq\x03"
        + DTYPE
        + b"(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    )
    data = (
        b"\x80\x02}q\x01U\x05modelq\x02}U\x01w"
        + RECONSTRUCT
        + b"("
        + NDARRAY
        + b"(K\x00tU\x01btR"
        + state
        + text
        + b"tbss."
    )
    read = read_checkpoint(given_as(tmp_path, data))
    assert np.array_equal(read["model"]["w"], values)


def test_both_spellings_of_numpy_are_read(tmp_path: Path) -> None:
    data = as_pickle({"w": np.ones(3, np.float32)}, 2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    for spelling in (old, new):
        changed = data.replace(new, spelling)
        assert spelling in changed
        assert np.array_equal(read_checkpoint(given_as(tmp_path, changed))["w"], np.ones(3))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_gives_its_tensors_and_what_trainers_keep_beside_them(tmp_path: Path, legacy: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    with easydict_class() as easydict:
        state = easydict(next_log_step=3)
        state.__dict__["next_log_step"] = 3
        content = {
            "EMA_generator": module.state_dict(),
            "G_optimizer": optimiser.state_dict(),
            "train_state": state,
            "loss": np.float64(0.5),
            "seen": np.arange(3),
            "half": torch.ones(2, dtype=torch.bfloat16),
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "steps": {1, 2},
        }
        data = as_torch(content, legacy=legacy)
    allowed = set(torch.serialization.get_safe_globals())
    read = read_checkpoint(given_as(tmp_path, data))
    assert all(torch.equal(read["EMA_generator"][name], tensor) for name, tensor in module.state_dict().items())
    assert read["train_state"] == {"next_log_step": 3}
    assert read["loss"] == 0.5
    assert np.array_equal(read["seen"], np.arange(3))
    assert read["half"].dtype == torch.bfloat16
    assert not read["parameter"].requires_grad
    assert read["G_optimizer"]["state"][0]["step"] == 1
    assert set(torch.serialization.get_safe_globals()) == allowed, "what was allowed for this file stayed allowed"


def test_all_refused_globals_of_a_torch_file_are_named(tmp_path: Path) -> None:
    content = {"path": Path("/x"), "slice": Payload(slice, 1), "range": Payload(range, 2)}
    message = refused(given_as(tmp_path, as_torch(content)))
    assert "pathlib" in message
    assert "slice" in message
    assert "range" in message


def test_a_tensor_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    assert "claims the shape" in refused(given_as(tmp_path, as_torch({"w": torch.ones(1).expand(10**9)})))
    # A number of elements that its storage does not have.
    honest = as_torch({"w": torch.ones(1000)})
    path = tmp_path / "honest.ckpt"
    path.write_bytes(honest)
    assert read_checkpoint(path)["w"].shape == (1000,)
    grown = rezipped(honest, {"data.pkl": as_pickle_of_tensor(10**9)})
    refused(given_as(tmp_path, grown))


def as_pickle_of_tensor(length: int) -> bytes:
    """What torch writes for a tensor, with another length than its storage has."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuM\xe8\x03tQ"
    numbers = b"K\x00J" + struct.pack("<i", length) + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers + b"tRs."


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_that_was_cut_off_is_damaged(tmp_path: Path, legacy: bool) -> None:
    data = as_torch({"w": torch.ones(1000), "v": torch.ones(5)}, legacy=legacy)
    for part in (0.05, 0.3, 0.6, 0.99):
        message = refused(given_as(tmp_path, data[: int(len(data) * part)]))
        assert "damaged or cut off" in message
        assert "download it again" in message


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_was_cut_off_is_damaged(tmp_path: Path, protocol: int) -> None:
    data = as_pickle({"model": arrays()}, protocol)
    for part in (0.1, 0.5, 0.99):
        assert "damaged or cut off" in refused(given_as(tmp_path, data[: int(len(data) * part)]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>gone</html>", "a web page, which is what a dead link leaves"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git LFS pointer"),
        (b"some notes\non two lines, ...", "text that begins some notes\\non two lines"),
        (b"(in brackets)", "text that begins (in brackets);"),
        (b"caf\xc3\xa9, cut \xc3", "text that begins caf\\xe9, cut;"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":1}", "safetensors"),
        (b"\x1f\x8b\x08\x00\xff\xfe" * 4, "begins with the bytes 1f 8b"),
        (b"\x00" * 20, "no checkpoint"),
        (as_pickle([1, 2]), "holds a list, expected a dict"),
        (as_pickle(3), "holds a int"),
        (as_torch(torch.ones(3)), "holds a Tensor"),
        (rezipped(as_torch({"a": torch.ones(2)}), {}, compress=True), "has been compressed"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path, data: bytes, expected: str) -> None:
    assert expected in refused(given_as(tmp_path, data))


def test_other_zip_files_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with path.open("wb") as stream:
        np.savez(stream, a=np.ones(3))
    assert "none that torch.save wrote" in refused(path)
    twice = tmp_path / "twice.zip"
    twice.write_bytes(rezipped(as_torch({"a": torch.ones(2)}), {}))
    with pytest.warns(UserWarning, match="Duplicate name"):
        _append(twice)
    assert "none that torch.save wrote" in refused(twice)
    script = tmp_path / "script.pt"
    script.write_bytes(as_torch({"a": torch.ones(2)}))
    _append(script, "archive/constants.pkl")
    assert "TorchScript" in refused(script)


def _append(path: Path, name: str = "") -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name or archive.namelist()[0], b"")


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    assert "is not there" in refused(tmp_path / "missing.ckpt")
    assert "is a folder" in refused(tmp_path)
    with pytest.raises(CheckpointError, match="is not there"):
        require_file(tmp_path / "missing.ckpt")


def reads_or_refuses(path: Path) -> None:
    """Whatever the file is: a dict comes out, or an error of one line."""
    message = ""
    try:
        assert isinstance(read_checkpoint(path), dict)
    except CheckpointError as error:
        message = str(error)
    assert "\n" not in message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    for start in (b"", b"\x80\x02", b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."):
        path.write_bytes(start + data)
        reads_or_refuses(path)


HONEST = {"w": np.arange(4.0, dtype=np.float32), "v": np.ones(2)}
HONEST_FILES = [as_pickle(HONEST, 0), as_pickle(HONEST, 2), as_pickle(HONEST, 5)]
HONEST_FILES += [as_torch({"w": torch.ones(4)}, legacy=legacy) for legacy in (False, True)]


@given(st.sampled_from(HONEST_FILES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, honest: bytes, damage: list[tuple[float, int]]
) -> None:
    changed = bytearray(honest)
    for where, value in damage:
        changed[int(where * (len(changed) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(changed))
    reads_or_refuses(path)
