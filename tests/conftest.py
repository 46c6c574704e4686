from __future__ import annotations

import gc
import os

import pytest

from engines.bundle import Bundle
from engines.errors import DownloadError, HashMismatchError
from engines.store import Store, home

# What is imported and what tests share are a million objects that stay: looking for garbage among them takes long.
gc.set_threshold(50_000, 20, 100)
# Threads of several workers on the same cores mostly wait for each other. PyTorch reads it when it is imported.
if (_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // _workers)))


@pytest.fixture(scope="session")
def centerface() -> Bundle:
    """The real CenterFace bundle from the user's own store, fetched on first use."""
    try:
        return Store(home()).pull("centerface")
    except HashMismatchError:
        raise
    except DownloadError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"CenterFace cannot be fetched here: {error}")
