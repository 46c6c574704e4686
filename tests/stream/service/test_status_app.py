"""The routes: what they answer, through a real server on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason='needs pip install "standin[serve]"')
pytest.importorskip("uvicorn", reason='needs pip install "standin[serve]"')

from prometheus_client.parser import text_string_to_metric_families

from stream.metrics import SinkState, SourceState
from stream.service.control import EngineStatus
from stream.service.status import StatusServer
from tests.stream.service.fake_control import AUTHORIZED, NEW, SNAPSHOT, TOKEN, FakeControl, jpeg, problem, raw, stream

# Looking


def test_streams_are_listed(client: httpx.Client) -> None:
    [listed] = client.get("api/v1/streams").json()
    assert listed["name"] == "door"
    assert listed["snapshot"]["frames"] == {"anonymized": 12345, "withheld": 3, "dropped": 17}
    assert client.get("api/v1/streams/door").json() == listed
    whole = client.get("api/v1/overview").json()
    assert whole["streams"] == [listed]
    assert whole["engines"][0]["device"] == "cuda"


def test_a_preview_is_what_the_control_gives_and_is_never_kept(client: httpx.Client) -> None:
    answer = client.get("api/v1/streams/door/preview.jpg")
    assert answer.content == jpeg()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"


def test_before_the_first_frame_there_is_no_preview(client: httpx.Client, control: FakeControl) -> None:
    control.picture = None
    assert "door" in problem(client.get("api/v1/streams/door/preview.jpg"), 404)


@pytest.mark.parametrize("name", ["nope", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%00b", "a%0a", "A" * 9000, "%ff"])
def test_names_that_are_none_are_not_found(client: httpx.Client, name: str) -> None:
    for path in (f"api/v1/streams/{name}", f"api/v1/streams/{name}/preview.jpg", f"pages/{name}"):
        assert client.get(path).status_code == 404
    assert client.post(f"api/v1/streams/{name}/pause", headers=AUTHORIZED).status_code in (404, 405)


@pytest.mark.parametrize(
    "path",
    [b"/pages/../status.py", b"/pages/..%2fstatus.py", b"/pages/%2e%2e/status.py", b"/pages//etc/passwd", b"/../x"],
)
def test_no_path_leads_to_other_files(server: StatusServer, path: bytes) -> None:
    answer = raw(server.port, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"import" not in answer


def test_metrics_are_what_prometheus_reads(client: httpx.Client) -> None:
    answer = client.get("metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert {"standin_frames", "standin_latency_seconds", "standin_stage_seconds"} <= set(families)


def test_health_asks_nothing_of_the_streams(client: httpx.Client, control: FakeControl) -> None:
    control.answers.clear()
    try:
        assert client.get("healthz").status_code == 200
    finally:
        control.answers.set()


@pytest.mark.parametrize(
    ("state", "ready"),
    [("running", True), ("paused", True), ("ended", True), ("starting", False), ("away", False), ("failed", False)],
)
def test_ready_means_that_what_should_run_runs(
    client: httpx.Client, control: FakeControl, state: str, ready: bool
) -> None:
    control.streams["door"] = stream("door", state=state)
    answer = client.get("readyz")
    assert answer.status_code == (200 if ready else 503)
    assert answer.json() == {"ready": ready, "reasons": [] if ready else [f"stream door is {state}"]}


@pytest.mark.parametrize(
    ("state", "there", "ready"),
    [("running", False, False), ("running", True, True), ("running", None, True), ("paused", False, True)],
)
def test_ready_means_that_no_output_is_away(
    client: httpx.Client, control: FakeControl, state: str, there: bool | None, ready: bool
) -> None:
    away = SinkState(name="rtsp://me:geheim@server/door", there=there, error="rtsp://me:geheim@server/door: refused")
    control.streams["door"] = stream("door", state=state, snapshot=SNAPSHOT.model_copy(update={"sinks": (away,)}))
    answer = client.get("readyz")
    assert answer.status_code == (200 if ready else 503)
    reason = "stream door: rtsp://***@server/door is away: rtsp://***@server/door: refused"
    assert answer.json() == {"ready": ready, "reasons": [] if ready else [reason]}
    # The stream itself goes on, and nothing shows the password.
    shown = client.get("api/v1/streams/door")
    assert shown.json()["state"] == state
    assert "geheim" not in shown.text


@pytest.mark.parametrize("state", ["starting", "away", "restarting"])
def test_why_a_source_is_away_is_told_without_secrets(client: httpx.Client, control: FakeControl, state: str) -> None:
    error = "rtsp://me:geheim@camera/door: 401 Unauthorized"
    source = SourceState(there=False, away=3, error=error)
    snapshot = None if state == "starting" else SNAPSHOT.model_copy(update={"source": source})
    control.streams["door"] = stream("door", state=state, source_error=error, snapshot=snapshot)
    answer = client.get("readyz")
    told = "rtsp://***@camera/door: 401 Unauthorized"
    assert answer.json() == {"ready": False, "reasons": [f"stream door is {state}: {told}"]}
    shown = client.get("api/v1/overview")
    assert shown.json()["streams"][0]["source_error"] == told
    assert "geheim" not in shown.text


@pytest.mark.parametrize(
    ("state", "seconds", "ready"),
    [("running", 3.2, False), ("running", None, True), ("paused", 3.2, True)],
)
def test_ready_means_that_not_every_frame_is_withheld(
    client: httpx.Client, control: FakeControl, state: str, seconds: float | None, ready: bool
) -> None:
    snapshot = SNAPSHOT.model_copy(update={"last_error": "the engines hang"})
    control.streams["door"] = stream("door", state=state, withheld_for=seconds, snapshot=snapshot)
    answer = client.get("readyz")
    assert answer.status_code == (200 if ready else 503)
    told = "stream door: every frame has been withheld for 3 s: the engines hang"
    assert answer.json()["reasons"] == ([] if ready else [told])


@pytest.mark.parametrize("state", ["restarting", "failed"])
def test_why_a_stream_does_not_run_is_told(client: httpx.Client, control: FakeControl, state: str) -> None:
    control.streams["door"] = stream("door", state=state, last_error="no sign of life for 30 s")
    assert client.get("readyz").json()["reasons"] == [f"stream door is {state}: no sign of life for 30 s"]


def test_health_is_bad_where_nobody_looks_after_the_streams(client: httpx.Client, control: FakeControl) -> None:
    control.still = 3.0
    assert client.get("healthz").status_code == 200
    control.still = 61.4
    answer = client.get("healthz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "stuck for 61 s"}


def test_ready_means_that_engines_answer(client: httpx.Client, control: FakeControl) -> None:
    control.engines = (EngineStatus(device="cuda", running=False),)
    answer = client.get("readyz")
    assert answer.status_code == 503
    assert "cuda" in answer.json()["reasons"][0]


def test_head_is_answered_like_get_without_a_body(client: httpx.Client) -> None:
    answer = client.head("healthz")
    assert answer.status_code == 200
    assert answer.content == b""


def test_secrets_are_in_nothing_that_is_shown(client: httpx.Client, control: FakeControl) -> None:
    address = "rtsp://user:secret@camera/x?key=secret"
    snapshot = SNAPSHOT.model_copy(update={"last_error": f"{address} failed"})
    control.streams["door"] = stream("door", source=address, sinks=(address,), last_error=address, snapshot=snapshot)
    for path in ("api/v1/overview", "api/v1/streams", "api/v1/streams/door", "metrics", "readyz"):
        text = client.get(path).text
        assert "secret" not in text
    answer = client.post("api/v1/streams", json={**NEW, "name": "door"}, headers=AUTHORIZED)
    assert "secret" not in problem(answer, 400)


def test_every_answer_forbids_scripts_from_elsewhere_and_caches(client: httpx.Client) -> None:
    for path in (
        "",
        "docs",
        "pages/status.js",
        "api/v1/streams",
        "api/v1/streams/door/preview.jpg",
        "nothing",
        "metrics",
    ):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_pages_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    for path in ("", "docs"):
        page = client.get(path).text
        assert "<script type=" in page
        assert "http://" not in page
        assert "https://" not in page
        assert " onload=" not in page
        assert " style=" not in page


# Changing


def test_streams_are_added_paused_resumed_and_removed(client: httpx.Client, control: FakeControl) -> None:
    added = client.post("api/v1/streams", json=NEW, headers=AUTHORIZED)
    assert added.status_code == 201
    assert added.json()["name"] == "yard"
    assert added.headers["location"] == "/api/v1/streams/yard"
    assert control.added == {"yard": NEW["values"]}
    assert client.post("api/v1/streams/yard/pause", headers=AUTHORIZED).json()["state"] == "paused"
    assert client.post("api/v1/streams/yard/resume", headers=AUTHORIZED).json()["state"] == "running"
    removed = client.delete("api/v1/streams/yard", headers=AUTHORIZED)
    assert (removed.status_code, removed.content) == (204, b"")
    assert set(control.streams) == {"door"}
    assert "yard" in problem(client.delete("api/v1/streams/yard", headers=AUTHORIZED), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x"}, 422),
        ({"name": "../x", "values": {}}, 422),
        ({"name": "<img>", "values": {}}, 422),
        ({"name": "x", "values": {}, "more": 1}, 422),
        ({"name": "x", "values": []}, 422),
        ({"name": "x", "values": {"input": "gst:videotestsrc"}}, 400),
        ({"name": "x", "values": {"input": "-"}}, 400),
        ({"name": "x", "values": {"input": "/etc/passwd"}}, 400),
        ({"name": "x", "values": {"input": "/dev/video0"}}, 400),
        ({"name": "x", "values": {"face": "keep"}}, 400),
    ],
)
def test_what_cannot_be_meant_is_not_added(
    client: httpx.Client, control: FakeControl, body: dict[str, Any], status: int
) -> None:
    assert problem(client.post("api/v1/streams", json=body, headers=AUTHORIZED), status)
    assert not control.added


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60000, b"\xff\xfe", b"1" * 5000, b'{"a": NaN}'])
def test_what_is_no_json_is_a_readable_problem(client: httpx.Client, body: bytes) -> None:
    answer = client.post("api/v1/streams", content=body, headers={**AUTHORIZED, "Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_files_inside_the_allow_list_may_be_added(control: FakeControl, tmp_path: Path) -> None:
    values = {"input": "rtsp://camera/x", "output": f"{tmp_path}/out.mkv"}
    with StatusServer(control, port=0, token=TOKEN, allow_paths=[tmp_path]) as running:
        answer = httpx.post(f"{running.url}api/v1/streams", json={"name": "x", "values": values}, headers=AUTHORIZED)
    assert answer.status_code == 201
    assert control.added["x"]["output"] == str(tmp_path.resolve() / "out.mkv")


def test_the_description_says_which_routes_need_the_token(client: httpx.Client) -> None:
    described = client.get("openapi.json").json()
    operations = {
        (method, path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert {key for key, operation in operations.items() if "security" in operation} == {
        ("post", "/api/v1/streams"),
        ("post", "/api/v1/streams/{name}/pause"),
        ("post", "/api/v1/streams/{name}/resume"),
        ("delete", "/api/v1/streams/{name}"),
    }
    problems = operations["get", "/api/v1/streams"]["responses"]["4XX"]["content"]
    assert set(problems) == {"application/problem+json"}
    assert "422" not in str(described)
    preview = operations["get", "/api/v1/streams/{name}/preview.jpg"]["responses"]["200"]
    assert set(preview["content"]) == {"image/jpeg"}


def test_an_error_inside_is_no_traceback_outside(client: httpx.Client, control: FakeControl) -> None:
    control.streams["door"] = None  # type: ignore[assignment]
    answer = client.get("api/v1/streams")
    detail = problem(answer, 500)
    assert "NoneType" not in detail
    assert client.get("healthz").status_code == 200
