from __future__ import annotations

import io
import struct

import pytest
from pydantic import ValidationError

from stream.metrics import Snapshot
from stream.service.worker_messages import LOG_LINE, PREVIEW, REPORT, Order, Report, receive, send


def test_messages_arrive_as_they_were_sent() -> None:
    pipe = io.BytesIO()
    report = Report(beats=3, state="running", snapshot=Snapshot(frames={"anonymized": 3}))
    sent = [(REPORT, report.model_dump_json().encode()), (PREVIEW, bytes(100_000)), (LOG_LINE, b"")]
    for letter, content in sent:
        send(pipe, letter, content)
    pipe.seek(0)
    received = list(receive(pipe))
    assert received == sent
    assert Report.model_validate_json(received[0][1]) == report


@pytest.mark.parametrize("lost", [1, 3, 50])
def test_half_a_message_is_none(lost: int) -> None:
    pipe = io.BytesIO()
    send(pipe, REPORT, b"one")
    send(pipe, REPORT, b"t" * 45)
    half = io.BytesIO(pipe.getvalue()[:-lost])
    assert list(receive(half)) == [(REPORT, b"one")]


def test_a_length_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="announced a message"):
        list(receive(io.BytesIO(struct.pack("<cI", b"R", 2**31))))


def test_an_order_that_cannot_be_read_shows_nothing_of_itself() -> None:
    with pytest.raises(ValidationError) as raised:
        Order.model_validate_json('{"name": "a", "source": "rtsp://a:geheim@b", "parent": "geheim"}')
    assert "geheim" not in str(raised.value)
