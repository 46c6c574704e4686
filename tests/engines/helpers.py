"""What several engine tests share: a local web server that misbehaves on order, and a tiny graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from onnx import TensorProto, helper

from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance, Tensor
from engines.registry import Artefact, UrlSource
from engines.runtime import Runtime
from engines.small_graphs import SmallGraph

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, with short ways to answer it well or badly."""

    server: Server

    def do_GET(self) -> None:
        site = self.server.site
        site.requests.append(dict(self.headers.items()))
        number = min(len(site.requests), len(site.answers)) - 1
        site.answers[number](self)

    def reply(self, status: int, body: bytes, *, stop_after: int | None = None, **headers: str) -> None:
        """Sends a whole answer, or breaks the connection after some bytes of it."""
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for key, value in headers.items():
            if value:
                self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[:stop_after])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


@dataclass
class Site:
    """The server's address, what it answers (the last answer repeats) and what it was asked."""

    url: str
    content: bytes
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)

    def artefact(self, **changes: Any) -> Artefact:
        fields: dict[str, Any] = {
            "name": "tiny",
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "size": len(self.content),
            "licence": "MIT",
            "homepage": "https://example.org",
            "sources": (UrlSource(self.url),),
            "build": "tiny",
            "about": "a test",
            "kinds": ("face",),
        }
        return Artefact(**(fields | changes))


def whole(request: Request) -> None:
    """Answers as a good server does."""
    send(request)


def broken_after(stop: int, **headers: str) -> Answer:
    """Answers well, but the connection breaks after some bytes."""
    return lambda request: send(request, stop_after=stop, **headers)


def send(request: Request, *, stop_after: int | None = None, **headers: str) -> None:
    content = request.server.site.content
    headers.setdefault("ETag", '"one"')
    asked = request.headers.get("Range")
    if asked and request.headers.get("If-Range") == headers["ETag"]:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.reply(206, content[start:], stop_after=stop_after, **headers)
    else:
        request.reply(200, content, stop_after=stop_after, **headers)


def tiny_draft(name: str = "tiny") -> ManifestDraft:
    """A manifest for `doubler`."""
    inputs = (
        Tensor(name="x", dtype="float32", shape=("N", 2, "w"), meaning="anything"),
        Tensor(name="n", dtype="int64", shape=("N",), meaning="added"),
    )
    outputs = (Tensor(name="y", dtype="float32", shape=("N", 2, "w"), meaning="2 x + n"),)
    return ManifestDraft(
        name=name,
        task="detection",
        family="test",
        kinds=("face",),
        graphs={"detector": Graph(file="detector.onnx", inputs=inputs, outputs=outputs)},
        normalisation=Normalisation(colour="rgb", mean=(0, 0, 0), std=(1, 1, 1), multiple=32),
        licence="MIT",
        provenance=Provenance(artefact="tiny", source="code", sha256="0" * 64, homepage="https://example.org"),
        exporter="test",
    )


def doubler() -> bytes:
    """An ONNX file with y = 2 x + n."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Cast", ["n"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "axes"], ["wide"]),
        helper.make_node("Add", ["twice", "wide"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "doubler",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, "w"]),
            helper.make_tensor_value_info("n", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, "w"])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def open_on_cpu(graph: SmallGraph) -> Runtime:
    """A small graph on the processor, where `open_small` gives none: it computes what it computes elsewhere."""
    return graph.open("cpu")
