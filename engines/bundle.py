"""Open, verify and write a bundle: a folder with `bundle.json` and the files that it lists."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import BundleError, BundleMissingError, BundleTamperedError
from engines.manifest import Graph, Manifest, ManifestDraft, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MANIFEST_NAME = "bundle.json"


def sha256_file(path: Path) -> str:
    """Returns the sha256 of a file's content as 64 lower-case hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. `open_bundle` returns only verified ones.

    Attributes:
        path: The folder.
        manifest: What `bundle.json` says.
        digest: sha256 of the bytes of `bundle.json`, which covers all files through their hashes.
    """

    path: Path
    manifest: Manifest
    digest: str

    def file(self, name: str) -> Path:
        """Returns the path of a file that the manifest lists.

        Raises:
            BundleError: The manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"bundle {self.manifest.name!r} has no file {name!r}; it has {', '.join(sorted(self.manifest.files))}"
            )
        return self.path / name

    def graph(self, name: str) -> Graph:
        """Returns the declaration of one of the bundle's graphs.

        Raises:
            BundleError: There is no such graph.
        """
        if name not in self.manifest.graphs:
            raise BundleError(
                f"bundle {self.manifest.name!r} has no graph {name!r}; it has {', '.join(sorted(self.manifest.graphs))}"
            )
        return self.manifest.graphs[name]

    def array(self, name: str) -> NDArray[Any]:
        """Loads one of the bundle's small arrays.

        Raises:
            BundleError: There is no such array, or its file is not the array that the manifest declares.
        """
        declared = self.manifest.arrays.get(name)
        if declared is None:
            known = ", ".join(sorted(self.manifest.arrays)) or "none"
            raise BundleError(f"bundle {self.manifest.name!r} has no array {name!r}; it has {known}")
        try:
            values = np.load(self.file(declared.file), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.path / declared.file} is no array ({error}); build the bundle again") from None
        if values.dtype != np.dtype(declared.dtype) or values.shape != declared.shape:
            raise BundleError(
                f"{self.path / declared.file} is {values.dtype} {values.shape}, "
                f"its manifest declares {declared.dtype} {declared.shape}; build the bundle again"
            )
        return np.asarray(values)

    @property
    def size(self) -> int:
        """Bytes on disk, manifest included."""
        listed = sum(self.file(name).stat().st_size for name in self.manifest.files)
        return listed + (self.path / MANIFEST_NAME).stat().st_size

    def verify(self) -> None:
        """Compares every file with its sha256.

        Raises:
            BundleTamperedError: A file is missing, unreadable or changed; the message names it.
        """
        for name, expected in sorted(self.manifest.files.items()):
            path = self.path / name
            try:
                found = sha256_file(path)
            except OSError as error:
                raise BundleTamperedError(
                    f"bundle {self.path}: file {name} cannot be read ({error.strerror or error}); "
                    "the manifest lists it; fetch the bundle again"
                ) from None
            if found != expected:
                raise BundleTamperedError(
                    f"bundle {self.path}: file {name} was changed: its sha256 is {found}, "
                    f"the manifest says {expected}; fetch the bundle again"
                )


def open_bundle(path: Path) -> Bundle:
    """Opens a bundle and verifies every file in it.

    Args:
        path: The bundle's folder.

    Raises:
        BundleMissingError: There is no such folder, or no `bundle.json` in it.
        BundleSchemaError: It was written for another schema version.
        BundleTamperedError: A file is missing or changed.
        BundleError: The manifest is invalid.
    """
    if not path.is_dir():
        raise BundleMissingError(f"{path} is not a folder; expected a bundle: a folder with {MANIFEST_NAME}")
    where = path / MANIFEST_NAME
    try:
        raw = where.read_bytes()
    except FileNotFoundError:
        raise BundleMissingError(f"{path} has no {MANIFEST_NAME}, so it is not a bundle; check the path") from None
    except OSError as error:
        raise BundleError(f"{where} cannot be read ({error.strerror or error}); check its permissions") from None
    bundle = Bundle(path, parse_manifest(raw, where=str(where)), hashlib.sha256(raw).hexdigest())
    bundle.verify()
    return bundle


def write_bundle(folder: Path, draft: ManifestDraft, files: Mapping[str, bytes | Path]) -> Bundle:
    """Writes files and a manifest with their hashes, then opens the result.

    The manifest is written last, so that a folder with a manifest is a complete one.

    Args:
        folder: Where; made if missing. Must not hold a manifest yet.
        draft: The manifest without the hashes.
        files: Name inside the bundle -> content, or a path to copy from.

    Raises:
        BundleError: A name is not a plain relative one, a graph's file is missing, or there is a bundle.
        OSError: The files cannot be written.
    """
    where = folder / MANIFEST_NAME
    if where.exists():
        raise BundleError(f"{folder} holds a bundle already; write to an empty folder")
    # First with hashes that nobody has computed yet: names are checked before anything is written.
    _complete(draft, dict.fromkeys(files, "0" * 64))
    hashes = {}
    for name, content in sorted(files.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content)
        hashes[name] = sha256_file(target)
    manifest = _complete(draft, hashes)
    where.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return open_bundle(folder)


def _complete(draft: ManifestDraft, hashes: Mapping[str, str]) -> Manifest:
    fields = draft.model_dump(mode="json") | {"files": dict(hashes)}
    return parse_manifest(json.dumps(fields), where=f"the manifest of {draft.name}")
