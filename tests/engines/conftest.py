from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle, write_bundle
from tests.engines.helpers import Request, Server, Site, doubler, tiny_draft, whole


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on this machine that sends 300 kB as asked, ranges and entity tags included."""
    content = np.random.default_rng(0).bytes(300_000)
    server = Server(("127.0.0.1", 0), Request)
    server.site = Site(f"http://127.0.0.1:{server.server_port}/file", content, [whole])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", tiny_draft(), {"detector.onnx": doubler()})
