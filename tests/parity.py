"""Parity cases: inputs, seeded weights and outputs of the published code.

The folder is `tests/data/parity` unless the environment variable `STANDIN_PARITY_DIR` names another. Cases are found by
file name (NAME.json beside NAME.npz), so that a further case of a known architecture needs no code.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STYLE_UNET = "StyleGANUnet"
SURFACE_UNET = "UnetGenerator + CSEStyleMapper"

#: The project's own cases.
OWN = Path(__file__).parent / "data" / "parity"


@dataclass(frozen=True)
class ParityCase:
    """One case.

    Attributes:
        name: of its files.
        spec: the JSON file.
        arrays: `in/...`, `out/...` and `fixed/...` of the NPZ file.
    """

    name: str
    spec: dict[str, Any] = field(repr=False)
    path: Path = field(repr=False)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        with np.load(self.path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    @property
    def config(self) -> dict[str, Any]:
        """Hyper-parameters of the published network."""
        config: dict[str, Any] = self.spec["config"]
        return config

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the published state dict."""
        return {name: tuple(entry["shape"]) for name, entry in self.spec["state_dict"].items()}

    def state(self) -> dict[str, NDArray[np.float32]]:
        """The seeded weights, each drawn from its own name."""
        arrays = self.arrays
        return {
            name: arrays[f"fixed/{name}"] if entry.get("fixed") else drawn(name, entry)
            for name, entry in self.spec["state_dict"].items()
        }


def drawn(name: str, entry: dict[str, Any]) -> NDArray[np.float32]:
    """A tensor of the rule: normal numbers in float64 from PCG64 seeded with the name's CRC-32, cast at the end."""
    numbers = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(tuple(entry["shape"]))
    values: NDArray[np.float32] = (entry["mean"] + entry["std"] * numbers).astype(np.float32)
    return values


def parity_folder() -> Path:
    return Path(os.environ.get("STANDIN_PARITY_DIR") or OWN)


def parity_cases(architecture: str, folder: Path | None = None) -> list[ParityCase]:
    """All cases whose architecture begins so.

    Another folder may hold cases of some architectures only, but never none at all.

    Raises:
        LookupError: There is none, which would let every test that is made from them pass.
    """
    folder = folder or parity_folder()
    known, found = 0, []
    for path in sorted(folder.glob("*.json")):
        spec = json.loads(path.read_text())
        name = str(spec.get("architecture", ""))
        if path.with_suffix(".npz").is_file():
            known += 1
            if name.startswith(architecture):
                found.append(ParityCase(path.stem, spec, path.with_suffix(".npz")))
    if not known or (not found and folder == OWN):
        raise LookupError(f"no parity case{f' of {architecture!r}' if known else ''} in {folder}")
    return found


def parity_case(name: str) -> ParityCase:
    """One of the cases that the project itself holds, whatever other folder is asked for."""
    path = OWN / f"{name}.json"
    return ParityCase(name, json.loads(path.read_text()), path.with_suffix(".npz"))
