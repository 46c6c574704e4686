"""The status server's routes. Who may ask is settled before them, in `stream.service.api_guard`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from fastapi import FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from stream.address import redacted
from stream.service.api_problems import PROBLEMS, answer_problems, describe_problems
from stream.service.api_values import NAME_PATTERN, check_values
from stream.service.control import GOING_OUT, Control, Overview, StreamStatus, UnknownStreamError
from stream.service.daemon_calls import DaemonCalls
from stream.service.prometheus import metrics_text

T = TypeVar("T")

#: Seconds that a look at the streams may take, and a change: processes that end are given time to drain.
_LOOK_WITHIN: Final = 5.0
_CHANGE_WITHIN: Final = 20.0
#: Seconds without a look at the streams after which the service counts as stuck; it looks many times a second.
_STILL_FOR: Final = 10.0
_PAGES: Final = {"/": "index.html", "/docs": "docs.html"}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: For the description alone; the guard checks the token before any route is looked for.
_Token = Annotated[object, Security(HTTPBearer(auto_error=False, description="The server's API token."))]


class NewStream(BaseModel):
    """A stream to be added.

    Attributes:
        name: not taken yet.
        values: what a `[streams.NAME]` table of the config file may hold, as far as the API takes it.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME_PATTERN, examples=["door"])
    values: dict[str, Any] = Field(
        examples=[{"input": "rtsp://camera.local/stream", "output": "rtsp://server.local/door"}]
    )


class Readiness(BaseModel):
    """Whether all streams that should run do.

    Attributes:
        ready: whether they do.
        reasons: why not; empty for callers who may not read.
    """

    ready: bool
    reasons: tuple[str, ...] = ()


class _Streams:
    """A `Control` as the routes use it: never on the event loop, and never with a secret in what it says."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._calls = DaemonCalls()

    async def overview(self) -> Overview:
        found = await self._calls.call(self._control.overview, _LOOK_WITHIN)
        return found.model_copy(update={"streams": tuple(map(_shown, found.streams))})

    async def one(self, name: str) -> StreamStatus:
        for stream in (await self.overview()).streams:
            if stream.name == name:
                return stream
        raise UnknownStreamError(f"there is no stream {_known(name)!r}")

    def stood_still(self) -> float:
        return self._control.stood_still()

    async def preview(self, name: str) -> bytes | None:
        return await self._calls.call(lambda: self._control.preview(_known(name)), _LOOK_WITHIN)

    async def change(self, make: Callable[[Control], T]) -> T:
        return await self._calls.call(lambda: make(self._control), _CHANGE_WITHIN)


def make_app(control: Control, *, allow_paths: Sequence[Path] = ()) -> FastAPI:
    """The application: pages, probes, metrics and the API.

    Args:
        control: the streams.
        allow_paths: see `stream.api_values.allowed_paths`.
    """
    app = FastAPI(
        title="Standin",
        version=_version(),
        description="Several streams that are anonymized live: what they do, and changes to them.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=PROBLEMS,
        # It would report to whatever the environment names.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    streams = _Streams(control)
    _add_pages(app)
    _add_probes(app, streams)
    _add_looks(app, streams)
    _add_changes(app, streams, allow_paths)
    answer_problems(app)
    describe_problems(app)
    return app


def _add_pages(app: FastAPI) -> None:
    files = {
        entry.name: (entry.read_bytes(), _TYPES[Path(entry.name).suffix])
        for entry in resources.files("stream.service").joinpath("pages").iterdir()
        if Path(entry.name).suffix in _TYPES
    }

    def give(name: str) -> Response:
        # From memory, so that no name can lead to another file.
        if name not in files:
            raise HTTPException(404)
        content, media_type = files[name]
        return Response(content, media_type=media_type)

    for path, name in _PAGES.items():
        app.add_api_route(path, _page(give, name), include_in_schema=False)

    @app.get("/pages/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return give(name)


def _add_probes(app: FastAPI, streams: _Streams) -> None:
    @app.get("/healthz", tags=["probes"])
    async def healthz() -> Response:
        """Whether the service looks after its streams: 200, or 503. What they do themselves is not asked."""
        if (seconds := streams.stood_still()) > _STILL_FOR:
            return JSONResponse({"status": f"stuck for {seconds:.0f} s"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", tags=["probes"], response_model=Readiness)
    async def readyz(request: Request) -> Response:
        """Whether what should run does, no output is away, and engine processes answer: 200 or 503."""
        reasons = _unready(await streams.overview())
        shown = reasons if getattr(request.state, "reader", False) else ()
        body = Readiness(ready=not reasons, reasons=shown).model_dump(mode="json")
        return JSONResponse(body, 503 if reasons else 200)

    @app.get("/metrics", tags=["probes"], response_class=Response, responses=_content("text/plain"))
    async def metrics(request: Request) -> Response:
        """All figures for Prometheus."""
        content, media_type = metrics_text(await streams.overview(), request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})


def _add_looks(app: FastAPI, streams: _Streams) -> None:
    @app.get("/api/v1/overview", tags=["streams"])
    async def overview() -> Overview:
        """All streams and engine processes."""
        return await streams.overview()

    @app.get("/api/v1/streams", tags=["streams"])
    async def list_streams() -> tuple[StreamStatus, ...]:
        """All streams."""
        return (await streams.overview()).streams

    @app.get("/api/v1/streams/{name}", tags=["streams"])
    async def show_stream(name: str) -> StreamStatus:
        """One stream."""
        return await streams.one(name)

    @app.get(
        "/api/v1/streams/{name}/preview.jpg",
        tags=["streams"],
        response_class=Response,
        responses=_content("image/jpeg"),
    )
    async def preview(name: str) -> Response:
        """A small JPEG of the last frame that went out, anonymized as it was; 404 before the first."""
        picture = await streams.preview(name)
        if picture is None:
            raise UnknownStreamError(f"nothing has gone out of {name!r} yet")
        return Response(picture, media_type="image/jpeg")


def _add_changes(app: FastAPI, streams: _Streams, allow_paths: Sequence[Path]) -> None:
    @app.post("/api/v1/streams", tags=["changes"], status_code=201)
    async def add_stream(new: NewStream, response: Response, _token: _Token = None) -> StreamStatus:
        """Begin another stream."""
        values = check_values(new.values, allow_paths)
        await streams.change(lambda control: control.add(new.name, values))
        response.headers["location"] = f"/api/v1/streams/{new.name}"
        return await streams.one(new.name)

    @app.post("/api/v1/streams/{name}/pause", tags=["changes"])
    async def pause_stream(name: str, _token: _Token = None) -> StreamStatus:
        """End its process, and keep the stream."""
        await streams.change(lambda control: control.pause(_known(name)))
        return await streams.one(name)

    @app.post("/api/v1/streams/{name}/resume", tags=["changes"])
    async def resume_stream(name: str, _token: _Token = None) -> StreamStatus:
        """Begin a paused or failed stream again."""
        await streams.change(lambda control: control.resume(_known(name)))
        return await streams.one(name)

    @app.delete("/api/v1/streams/{name}", tags=["changes"], status_code=204)
    async def remove_stream(name: str, _token: _Token = None) -> None:
        """End its process, and forget the stream."""
        await streams.change(lambda control: control.remove(_known(name)))


def _content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Says what an answer without a shape is."""
    return {200: {"content": {media_type: {}}}}


def _page(give: Callable[[str], Response], name: str) -> Callable[[], Any]:
    async def page() -> Response:
        return give(name)

    return page


def _known(name: str) -> str:
    """A name that a stream can have."""
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        raise UnknownStreamError("no stream can have that name")
    return name


def _shown(stream: StreamStatus) -> StreamStatus:
    """Redacted once more: a library's message can hold an address that nobody thought of."""
    snapshot = stream.snapshot
    if snapshot is not None:
        sinks = tuple(
            sink.model_copy(update={"name": redacted(sink.name), "error": _clean(sink.error)})
            for sink in snapshot.sinks
        )
        source = snapshot.source and snapshot.source.model_copy(update={"error": _clean(snapshot.source.error)})
        last_error = _clean(snapshot.last_error)
        snapshot = snapshot.model_copy(update={"last_error": last_error, "sinks": sinks, "source": source})
    return stream.model_copy(
        update={
            "source": redacted(stream.source),
            "sinks": tuple(map(redacted, stream.sinks)),
            "last_error": _clean(stream.last_error),
            "source_error": _clean(stream.source_error),
            "snapshot": snapshot,
        }
    )


def _clean(text: str | None) -> str | None:
    return None if text is None else redacted(text)


def _unready(overview: Overview) -> tuple[str, ...]:
    streams = (stream.trouble for stream in overview.streams if stream.trouble)
    sinks = (
        f"stream {stream.name}: {sink.trouble}"
        for stream in overview.streams
        if stream.state in GOING_OUT and stream.snapshot is not None
        for sink in stream.snapshot.sinks
        if sink.trouble
    )
    engines = (
        f"the engine process on {engine.device} does not answer" for engine in overview.engines if not engine.running
    )
    return (*streams, *sinks, *engines)


def _version() -> str:
    try:
        return metadata.version("standin")
    except metadata.PackageNotFoundError:
        return "unknown"
