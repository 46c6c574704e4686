"""From a user's ONNX file, or a published one, to a detection bundle."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from engines.bundle import sha256_file, write_bundle
from engines.importers.classes import assign_classes
from engines.importers.graph import build_detector, input_tensors, limits_of, output_tensors
from engines.importers.network import read_network
from engines.importers.recognise import recognise
from engines.importers.reference import measure_parity
from engines.importers.text import shown
from engines.manifest import Graph, ManifestDraft, Normalisation, Provenance

if TYPE_CHECKING:
    from pathlib import Path

    from engines.bundle import Bundle
    from engines.importers.recognise import Recipe
    from engines.registry import Artefact

#: What a recipe of `engines.store` needs to know beyond the file: the classes by number.
_PUBLISHED_CLASSES = {"fastestdet": "0=person", "ultraface": "0=face"}


@dataclass(frozen=True)
class Origin:
    """Where a file came from.

    Attributes:
        source: The address or path that it was taken from.
        homepage: Where its authors describe it, or empty.
        licence: Of its weights.
    """

    source: str
    homepage: str = ""
    licence: str = "unknown"


def import_detector(
    path: Path,
    folder: Path,
    *,
    kind: str,
    name: str,
    classes: str | None = None,
    most: int = 100,
    origin: Origin | None = None,
) -> Bundle:
    """Makes a bundle of an ONNX file with a detector.

    Args:
        path: The file; nothing in it is trusted.
        folder: Where to write the bundle; must be empty.
        kind: One of `engines.importers.recognise.DETECTOR_KINDS`.
        name: The bundle's name.
        classes: What is what kind of region, see `engines.importers.classes.assign_classes`.
        most: For `boxes`: how many boxes the network gives out at most, where its shapes do not tell.
        origin: Where the file came from; its path if not given.

    Raises:
        UsageError: There is no such file, kind or class.
        BundleError: The file is not valid, not of that kind, or does not run.
    """
    network = read_network(path)
    recipe = recognise(kind, network, most=most)
    chosen = assign_classes(classes, recipe.names, recipe.classes)
    limits = limits_of(recipe)
    detector = build_detector(network, recipe, chosen, limits)
    where = origin or Origin(str(path), licence=network.metadata.get("license") or "unknown")
    draft = ManifestDraft(
        name=name,
        task="detection",
        family=kind,
        kinds=chosen.kinds,
        graphs={
            "detector": Graph(
                file="detector.onnx", inputs=input_tensors(network, recipe), outputs=output_tensors(recipe, limits)
            )
        },
        normalisation=_normalisation(recipe),
        licence=shown(where.licence, 200),
        provenance=Provenance(
            artefact=path.name if origin is None else name,
            source=where.source,
            sha256=sha256_file(path),
            homepage=where.homepage,
        ),
        exporter=f"standin {metadata.version('standin')}",
        parity=measure_parity(network, recipe, chosen),
    )
    return write_bundle(folder, draft, {"detector.onnx": detector.SerializeToString(deterministic=True)})


def build(published: Path, artefact: Artefact, folder: Path) -> Bundle:
    """Builds the bundle of a published detector that the registry knows; its recipe names the kind.

    Args:
        published: The file as published; its hash was checked by whoever fetched it.
        artefact: Its entry in the registry.
        folder: Where to write the bundle; must be empty.

    Raises:
        BundleError: It is not the network that the recipe knows, or the built graph does not agree with it.
    """
    return import_detector(
        published,
        folder,
        kind=artefact.build,
        name=artefact.name,
        classes=_PUBLISHED_CLASSES[artefact.build],
        origin=Origin(str(artefact.sources[0]), artefact.homepage, artefact.licence),
    )


def _normalisation(recipe: Recipe) -> Normalisation:
    mean, std = recipe.mean, recipe.std
    return Normalisation(
        colour="rgb",
        mean=(mean, mean, mean),
        std=(std, std, std),
        multiple=recipe.multiple,
        fit="stretch" if recipe.stretch else "pad",
    )
