"""The same measures of folders that hold results already: originals in one, what was made of them in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from engines.errors import UsageError
from stream.evaluate import reidentification
from stream.evaluate.coco import CocoSet
from stream.evaluate.compare import Row
from stream.evaluate.figures import Figure
from stream.evaluate.frechet import LoadArithmetic, frechet_figure
from stream.evaluate.judge import Judge
from stream.evaluate.market import Market
from stream.evaluate.methods import ORIGINAL
from stream.evaluate.pictures import check_folder, list_pictures, partners, read_pairs, read_picture
from stream.networks import Floats
from stream.perception import PerceptualNetwork, VectorNetwork, perceptual_distance

#: Is told how many pictures are done, and how many there are.
Advance = Callable[[int, int], object]

#: How rows call them.
_RESULT: Final = "anonymized"


def folder_fid(real: Path, made: Path, network: VectorNetwork, load: LoadArithmetic, advance: Advance) -> Figure:
    """FID of two folders, which need not belong together picture by picture.

    Raises:
        UsageError: a folder is missing or has too few pictures.
        SourceError: a picture cannot be read.
        BundleError: the network fails.
        RuntimeUnavailableError: torchmetrics is not installed.
    """
    arithmetic = load()
    names = list_pictures(real), list_pictures(made)
    count = len(names[0]) + len(names[1])
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for folder, part, features in zip((real, made), names, found, strict=True):
        for name in part:
            features.append(network.features(read_picture(folder, name)))
            advance(len(found[0]) + len(found[1]), count)
    return frechet_figure(found[0], found[1], network, arithmetic, "pictures")


def folder_distance(first: Path, second: Path, network: PerceptualNetwork, advance: Advance) -> Figure:
    """The mean perceptual distance of pictures of the same name.

    Of originals and results it is LPIPS; of two results with different seeds it is their diversity.

    Raises:
        UsageError: a folder is missing or lacks pictures of the other.
        SourceError: a picture cannot be read, or two differ in size.
        BundleError: the network fails.
    """
    names = partners(first, second)
    values = []
    for _, one, other in read_pairs(first, second, names):
        values.append(perceptual_distance(network.maps(one), network.maps(other)))
        advance(len(values), len(names))
    return Figure(float(np.mean(values)), len(values), "pictures", network.name, network.resize)


def folder_precision(truth: CocoSet, anonymized: Path, judge: Judge, advance: Advance) -> list[Row]:
    """A detector's average precision on originals and on results.

    Args:
        truth: annotations, with the originals' folder.
        anonymized: folder with the same file names.
        judge: the detector.
        advance: is told how far it is.

    Raises:
        UsageError: the folder is missing or lacks pictures.
        SourceError: a picture cannot be read, or has another size.
        DetectionError: the detector's answer cannot be trusted.
        RuntimeUnavailableError: pycocotools is not installed.
    """
    check_folder(anonymized)
    if missing := [name for name in truth.names.values() if not (anonymized / name).is_file()]:
        raise UsageError(f"{anonymized} lacks {len(missing)} annotated pictures, such as {missing[0]}")
    both = judge.precision(truth), judge.precision(truth)
    numbers = {name: number for number, name in truth.names.items()}
    for done, (name, *images) in enumerate(read_pairs(truth.folder, anonymized, list(numbers))):
        for image, precision in zip(images, both, strict=True):
            precision.add(numbers[name], judge.find(image))
        advance(done + 1, len(numbers))
    return [Row(label, precision.figures()) for label, precision in zip((ORIGINAL, _RESULT), both, strict=True)]


def folder_identity(market: Market, anonymized: Market, network: VectorNetwork, advance: Advance) -> list[Row]:
    """Re-identification in originals and in results.

    Raises:
        UsageError: the results lack pictures of the originals, or have others.
        SourceError: a picture cannot be read.
        BundleError: the network fails.
    """
    for before, after in ((market.queries, anonymized.queries), (market.gallery, anonymized.gallery)):
        if before != after:
            names, others = {shot.name for shot in before}, {shot.name for shot in after}
            odd = min(names ^ others)
            raise UsageError(f"{market.folder} and {anonymized.folder} differ: only one of them has {odd}")
    count = 2 * (len(market.queries) + len(market.gallery))
    done = 0
    vectors: list[Floats] = []
    for one in (market, anonymized):
        for shots in (one.queries, one.gallery):
            part = []
            for shot in shots:
                part.append(network.identity(read_picture(one.folder, shot.name)))
                done += 1
                advance(done, count)
            vectors.append(np.stack(part))
    of_original = reidentification.figures(market, vectors[0], {"": vectors[1]}, network.name, network.resize)
    galleries = {"": vectors[1], "_both": vectors[3]}
    of_result = reidentification.figures(market, vectors[2], galleries, network.name, network.resize)
    return [Row(ORIGINAL, of_original), Row(_RESULT, of_result)]
