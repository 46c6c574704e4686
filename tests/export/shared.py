"""What is trained or exported once for all workers of a run: tracing takes most of the time of the tests of exports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from engines.bundle import Bundle, open_bundle
from export.generators import export_generator
from tests.export.helpers import config_of, weights


def checkpoint(folder: Path, name: str, file: str = "checkpoint.ckpt") -> Path:
    """A parity case's weights as a published checkpoint."""
    path = folder / file
    torch.save({"EMA_generator": weights(name)}, path)
    return path


@contextlib.contextmanager
def made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder of all workers, held by one of them at a time: who finds it empty fills it, the others only read."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        yield folder


def exported_once(factory: pytest.TempPathFactory, name: str) -> Bundle:
    """The bundle of a parity case in both precisions; not to be written to."""
    with made_once(factory, name) as folder:
        if not (folder / "bundle").exists():
            export_generator(name, checkpoint(folder, name), folder / "bundle", config=config_of(name))
    return open_bundle(folder / "bundle")
