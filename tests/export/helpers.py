"""Checkpoints as the authors write them, from the seeded weights of parity cases, and hostile ones."""

from __future__ import annotations

import functools
import io
import math
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.configs import Config, SurfaceConfig, UnetConfig
from tests.parity import STYLE_UNET, ParityCase, parity_case


@functools.cache
def _arrays(name: str) -> dict[str, Any]:
    return dict(parity_case(name).state())


def weights(case: ParityCase | str) -> dict[str, Tensor]:
    """The seeded state dict of a case under its published names."""
    arrays = _arrays(case) if isinstance(case, str) else case.state()
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}


def config_of(case: ParityCase | str) -> Config:
    """The declared config of a case, as `export.configs` would declare it."""
    case = parity_case(case) if isinstance(case, str) else case
    given = case.config
    height, width = given["imsize"]
    fields: dict[str, Any] = {
        "name": case.name,
        "export": case.name,
        "image_size": (height, width),
        # As the published code counts them.
        "levels": int(math.log2(max(height, width)) - math.log2(given["min_fmap_resolution"])) + 1,
        "z_channels": given["z_channels"],
        "conv_clamp": float(given["conv_clamp"]),
        "kinds": ("person",),
        "licence": "seeded numbers",
        "homepage": "https://example.org",
    }
    if case.spec["architecture"].startswith(STYLE_UNET):
        surface = given["cse_nc"] if given["input_cse"] else 0
        return UnetConfig(**fields, embedding_channels=surface, fix_errors=given["fix_errors"])
    return SurfaceConfig(**fields, embedding_channels=given["cse_nc"])


class Payload:
    """Pickles as a call that makes a file: the mark that something was run."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def payloads(marker: Path) -> dict[str, Payload]:
    """Calls that a hostile file would make, by the global that they need."""
    return {
        f"{os.system.__module__}.system": Payload(os.system, f"touch '{marker}'"),
        "builtins.eval": Payload(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.open": Payload(open, str(marker), "w"),
        "os.mkdir": Payload(os.mkdir, str(marker)),
    }


def as_pickle(content: object, protocol: int = 2) -> bytes:
    return pickle.dumps(content, protocol=protocol)


def as_torch(content: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def rezipped(data: bytes, changes: dict[str, bytes], *, compress: bool = False) -> bytes:
    """A zip file with some members replaced, named by the end of their names."""
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", method) as target:
        for member in source.infolist():
            body = next((new for end, new in changes.items() if member.filename.endswith(end)), None)
            target.writestr(member.filename, source.read(member) if body is None else body)
    return out.getvalue()


@contextmanager
def easydict_class() -> Iterator[type[dict[str, Any]]]:
    """A class that pickles as `easydict.EasyDict` does, gone again when the checkpoint is written."""
    kind = type("EasyDict", (dict,), {"__module__": "easydict"})
    module = types.ModuleType("easydict")
    module.EasyDict = kind  # type: ignore[attr-defined]
    sys.modules["easydict"] = module
    try:
        yield kind
    finally:
        del sys.modules["easydict"]
