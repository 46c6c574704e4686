"""A Ray cluster of several nodes on this machine, which nothing outside of it can reach."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

_STORE = 80 * 2**20


@contextlib.contextmanager
def cluster(nodes: int, *, cpus: int = 1) -> Iterator[tuple[Any, list[Any]]]:
    """A head without cores, and nodes that can be taken away; ended with all that they have started."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        for name, value in {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": folder,
            "PYTHONWARNINGS": "ignore",
        }.items():
            patch.setenv(name, value)
        pytest.importorskip("ray", reason="Ray is not installed")
        from ray.cluster_utils import Cluster

        whole = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": _STORE, "include_dashboard": False},
        )
        try:
            yield whole, [whole.add_node(num_cpus=cpus, object_store_memory=_STORE) for _ in range(nodes)]
        finally:
            whole.shutdown()  # type: ignore[no-untyped-call]
            os.environ.pop("RAY_ADDRESS", None)
