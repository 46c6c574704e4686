from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.engine_messages import (
    LONGEST,
    Failed,
    Ping,
    Pulse,
    Run,
    closing,
    has_hung_up,
    is_same_user,
    parse_answer,
    parse_question,
    receive,
    send,
)
from engines.errors import BundleTamperedError, RuntimeFailedError, StandinError, TensorError
from engines.shared_arrays import ArraySpec


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def test_messages_arrive_apart_and_as_they_were(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    run = Run(number=3, arrays=(ArraySpec(name="x", dtype="float16", shape=(1, 2), offset=64),))
    send(one, Ping())
    send(one, run)
    assert parse_question(receive(other)[0]) == Ping()
    assert parse_question(receive(other)[0]) == run
    send(other, Pulse(device="cpu", runs=2))
    assert parse_answer(receive(one)[0]) == Pulse(device="cpu", runs=2)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_FIELDS = (
    "kind",
    "number",
    "arrays",
    "bundle",
    "digest",
    "graph",
    "device",
    "threads",
    "spinning",
    "bfloat16",
    "name",
    "shape",
)


@settings(max_examples=200, deadline=None)
@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(_FIELDS), st.sampled_from(["ping", "open", "run", "done", "failed", "cpu"]) | _VALUES
    ).map(lambda fields: json.dumps(fields).encode())
)
def test_whatever_is_said_is_a_message_or_an_error_of_ours(raw: bytes) -> None:
    for parse in (parse_question, parse_answer):
        with contextlib.suppress(RuntimeFailedError):
            assert parse(raw).kind


def test_a_descriptor_goes_along_and_no_process_inherits_it(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reading, writing = os.pipe()
    with closing(reading):
        with closing(writing):
            send(one, Ping(), writing)
        raw, descriptor = receive(other)
        assert parse_question(raw) == Ping()
        assert descriptor is not None
        with closing(descriptor):
            assert not os.get_inheritable(descriptor)
            os.write(descriptor, b"x")
        assert os.read(reading, 2) == b"x"
        assert os.read(reading, 2) == b"", "somebody still has the other end"


def test_a_message_that_is_too_long_is_refused_on_both_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    arrays = (ArraySpec(name="x" * 200, dtype="bool", shape=(1,) * 8, offset=0),) * 256
    with pytest.raises(RuntimeFailedError, match="expected at most"):
        send(one, Run(number=1, arrays=arrays))
    one.send(b" " * (LONGEST + 1))
    with pytest.raises(RuntimeFailedError, match="more than"):
        receive(other)


def test_hanging_up_shows_without_taking_what_was_said(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    assert not has_hung_up(other)
    send(one, Ping())
    assert not has_hung_up(other)
    assert parse_question(receive(other)[0]) == Ping()
    one.close()
    assert has_hung_up(other)
    assert receive(other) == (b"", None)


def test_the_other_end_is_known_by_its_user(pair: tuple[socket.socket, socket.socket]) -> None:
    assert is_same_user(pair[0])


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (TensorError("x is wrong"), TensorError, "x is wrong"),
        (BundleTamperedError("changed"), BundleTamperedError, "changed"),
        (ZeroDivisionError("by\nzero"), RuntimeFailedError, "ZeroDivisionError: by zero"),
        (RuntimeFailedError("long " * 1000), RuntimeFailedError, "long long"),
    ],
)
def test_errors_travel_as_what_they_are(error: Exception, expected: type[StandinError], text: str) -> None:
    arrived = parse_answer(Failed.of(error, 4).model_dump_json().encode())
    assert isinstance(arrived, Failed)
    assert arrived.number == 4
    assert type(arrived.exception()) is expected
    assert str(arrived.exception()).startswith(text)


@pytest.mark.parametrize("name", ["Exception", "annotations", "__builtins__", "Missing"])
def test_an_error_of_an_unknown_class_is_a_run_that_failed(name: str) -> None:
    assert type(Failed(error=name, text="what").exception()) is RuntimeFailedError
