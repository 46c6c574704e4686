"""Methods against each other: every measure that the given data and networks allow, a row for each method."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engines.errors import UsageError
from engines.store import Store
from stream.anonymizer import Anonymized
from stream.assemble import find_bundles, make_fills
from stream.evaluate import reidentification
from stream.evaluate.average_precision import Precision, import_pycocotools
from stream.evaluate.coco import CocoSet, read_coco
from stream.evaluate.crop_measures import CropMeasures, CropTools
from stream.evaluate.crops import People
from stream.evaluate.figures import Figure
from stream.evaluate.frechet import LoadArithmetic
from stream.evaluate.judge import Judge
from stream.evaluate.market import Market, Shot, read_market
from stream.evaluate.methods import ORIGINAL, Methods, MethodSettings, or_whole
from stream.evaluate.pictures import list_pictures, read_picture
from stream.follow import Look
from stream.frame import Image
from stream.networks import Floats, NetworkSettings
from stream.perception import PerceptualNetwork, VectorNetwork
from stream.regions import Kind
from stream.verify.people import LookSettings, choose_detectors

#: Is told what is done, how many pictures are, and how many there are.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """What is compared, on what, and how.

    Attributes:
        presets: whose generators are methods; the first one's detectors find people for classical methods.
        classical: names of methods without a network.
        methods: what all methods have in common.
        images: folder of pictures, for crops and average precision.
        annotations: COCO annotations of these.
        category: of the annotations.
        market: folder for re-identification.
        kind: whose crops are measured and whom detectors look for.
        features: network for FID.
        perceptual: network for LPIPS, diversity and PPL.
        identity: network for re-identification.
        look: detectors for average precision.
        truncation: of latents of crops; the papers' FID and LPIPS are taken without one, which is 1.
        limit: of pictures, None for all.
    """

    presets: tuple[str, ...]
    classical: tuple[str, ...]
    methods: MethodSettings = field(default_factory=MethodSettings)
    images: Path | None = None
    annotations: Path | None = None
    category: str | None = None
    market: Path | None = None
    kind: Kind = Kind.PERSON
    features: NetworkSettings | None = None
    perceptual: NetworkSettings | None = None
    identity: NetworkSettings | None = None
    look: LookSettings = field(default_factory=LookSettings)
    truncation: float = 1.0
    limit: int | None = None


@dataclass
class Row:
    """A method, and what was measured.

    Attributes:
        method: its name.
        figures: by the measure's name.
        regions: how many were covered in pictures and in those for re-identification.
        generated: how many of them by a generator.
        whole: pictures for re-identification that were covered as a whole, since nobody was found in them.
    """

    method: str
    figures: dict[str, Figure] = field(default_factory=dict)
    regions: int = 0
    generated: int = 0
    whole: int = 0

    def count(self, covered: Anonymized) -> None:
        """A picture was covered."""
        self.regions += len(covered.regions)
        self.generated += covered.generated


@dataclass(frozen=True)
class _Tools:
    """Everything that is opened once."""

    pictures: tuple[tuple[int, str], ...]
    crops: CropTools
    judged: tuple[CocoSet, Judge] | None
    market: tuple[Market, VectorNetwork] | None


def compare(
    settings: CompareSettings,
    store: Store,
    load: LoadArithmetic,
    *,
    progress: Progress = lambda _what, _done, _all: None,
) -> list[Row]:
    """Measures every method.

    Args:
        settings: which, and on what.
        store: where bundles are.
        load: gives the arithmetic of FID; asked only if there is a feature network.
        progress: is told how far it is.

    Raises:
        UsageError: what was given cannot be meant.
        SourceError: a picture or a file cannot be read.
        BundleError: a bundle or a network is not what it should be.
        RuntimeUnavailableError: what a measure needs is not installed.
    """
    _check(settings)
    with contextlib.ExitStack() as stack:
        tools = _open_tools(settings, store, load)
        if tools.judged is not None:
            stack.callback(tools.judged[1].close)
        rows = [Row(ORIGINAL)]
        for index, preset in enumerate(settings.presets):
            with contextlib.closing(
                Methods.open(preset, settings.classical if index == 0 else (), settings.methods, store)
            ) as methods:
                part = _Part(settings, tools, methods, preset, rows[0] if index == 0 else None)
                part.run(progress)
                rows += part.rows.values()
        # Crops are compared with originals: of these alone, there is nothing to say.
        return rows if rows[0].figures else rows[1:]


def _check(settings: CompareSettings) -> None:
    """What goes together, before anything is loaded."""
    if settings.images is None and settings.market is None:
        raise UsageError("nothing to measure on: give --images FOLDER, --market FOLDER or both")
    if settings.annotations is not None and settings.images is None:
        raise UsageError("--annotations belong to pictures: give --images FOLDER as well")
    if (settings.market is None) != (settings.identity is None):
        raise UsageError("re-identification needs both --market FOLDER and --identity NETWORK")
    on_images = settings.annotations, settings.features, settings.perceptual
    if settings.images is not None and not any(on_images):
        raise UsageError("--images needs what to measure there: --features, --perceptual, --annotations or several")
    if settings.images is None and any(on_images):
        raise UsageError("--features and --perceptual look at people in pictures: give --images FOLDER as well")
    if len(set(settings.presets)) != len(settings.presets):
        raise UsageError("a preset is given twice; name each once")


def _open_tools(settings: CompareSettings, store: Store, load: LoadArithmetic) -> _Tools:
    coco = market = None
    pictures: list[tuple[int, str]] = []
    if settings.annotations is not None and settings.images is not None:
        import_pycocotools()
        coco = read_coco(settings.annotations, settings.images, settings.category or settings.kind.label)
        pictures = sorted(coco.names.items())
    elif settings.images is not None:
        pictures = list(enumerate(list_pictures(settings.images)))
    if settings.market is not None and settings.identity is not None:
        market = read_market(settings.market), VectorNetwork(settings.identity, "--identity")
    features = None
    if settings.features is not None:
        features = VectorNetwork(settings.features, "--features"), load()
    perceptual = None if settings.perceptual is None else PerceptualNetwork(settings.perceptual)
    crops = CropTools(features, perceptual, settings.methods.seed, settings.truncation)
    judged = None
    if coco is not None:
        # Detectors of the methods do not judge them, unless they are asked for.
        bundles = choose_detectors(settings.look, store, _of_presets(settings, store))
        judged = coco, Judge(bundles, settings.look)
    return _Tools(tuple(pictures[: settings.limit]), crops, judged, market)


def _of_presets(settings: CompareSettings, store: Store) -> set[str]:
    """Names of the methods' own bundles."""
    found = (find_bundles(settings.methods.of_preset(preset), store) for preset in settings.presets)
    return {bundle.manifest.name for bundles in found for bundle in bundles.all}


class _Part:
    """The methods of one preset, and the original with the first of them."""

    def __init__(
        self, settings: CompareSettings, tools: _Tools, methods: Methods, preset: str, original: Row | None
    ) -> None:
        self._settings = settings
        self._tools = tools
        self._methods = methods
        self._preset = preset
        self._original = original
        self.rows = {name: Row(name) for name in methods.names}

    def run(self, progress: Progress) -> None:
        """Takes every measure."""
        if self._tools.judged is not None or not self._tools.crops.idle:
            self._on_images(progress)
        if self._tools.market is not None:
            self._on_market(*self._tools.market, progress)

    def _on_images(self, progress: Progress) -> None:
        judged = self._tools.judged
        precisions = {} if judged is None else {name: judged[1].precision(judged[0]) for name in self._names}
        with contextlib.ExitStack() as stack:
            crops = self._open_crops(stack)
            folder, count = self._settings.images or Path(), len(self._tools.pictures)
            for done, (number, name) in enumerate(self._tools.pictures):
                image = read_picture(folder, name)
                look = self._methods.look(image, name)
                if crops is not None:
                    crops.add(image, look.detections)
                if judged is not None:
                    self._judge(number, image, look, judged[1], precisions)
                progress(f"{self._preset}: pictures", done + 1, count)
            measured = {} if crops is None else crops.figures()
        for name, figures in measured.items():
            self.rows[name].figures |= figures
        for name, precision in precisions.items():
            self._row(name).figures |= precision.figures()

    @property
    def _names(self) -> tuple[str, ...]:
        """Of rows: of the methods, and of the original with the first preset."""
        return (*((ORIGINAL,) if self._original is not None else ()), *self.rows)

    def _row(self, name: str) -> Row:
        return self._original if self._original is not None and name == ORIGINAL else self.rows[name]

    def _open_crops(self, stack: contextlib.ExitStack) -> CropMeasures | None:
        methods, settings = self._methods, self._settings
        if self._tools.crops.idle:
            return None
        kind = settings.kind.label
        if not any(kind in bundle.manifest.kinds for bundle in methods.bundles.generators.values()):
            raise UsageError(
                f"the preset {self._preset} has no generator for {kind}s, so that there are no crops to measure: "
                "choose another --preset or --kind, or leave --features and --perceptual out"
            )
        people = People(methods.bundles, methods.settings, settings.kind, settings.truncation)
        stack.callback(people.close)
        fills = {
            name: make_fills(settings.methods.of_classical(name, self._preset))[settings.kind]
            for name in methods.names
            if name != self._preset
        }
        return CropMeasures(people, fills, self._preset, self._tools.crops)

    def _judge(self, number: int, image: Image, look: Look, judge: Judge, precisions: Mapping[str, Precision]) -> None:
        if ORIGINAL in precisions:
            precisions[ORIGINAL].add(number, judge.find(image))
        for name, row in self.rows.items():
            covered = self._methods.cover(name, look)
            row.count(covered)
            own = covered.regions[covered.regions.kinds == self._settings.kind]
            precisions[name].add(number, judge.find(covered.image), own)

    def _on_market(self, market: Market, network: VectorNetwork, progress: Progress) -> None:
        queries = self._vectors(market.folder, market.queries, network, progress, "queries")
        gallery = self._vectors(market.folder, market.gallery, network, progress, "gallery")
        originals = gallery[ORIGINAL]
        for name in self._names:
            galleries = {"": originals} if name == ORIGINAL else {"": originals, "_both": gallery[name]}
            notes = () if name == ORIGINAL else (f"pictures covered as a whole: {self.rows[name].whole}",)
            self._row(name).figures |= reidentification.figures(
                market, queries[name], galleries, network.name, network.resize, notes
            )

    def _vectors(
        self, folder: Path, shots: Sequence[Shot], network: VectorNetwork, progress: Progress, what: str
    ) -> dict[str, Floats]:
        """Of pictures as they are and as each method leaves them, (N, C)."""
        found: dict[str, list[Floats]] = {name: [] for name in (ORIGINAL, *self.rows)}
        for done, shot in enumerate(shots):
            image = read_picture(folder, shot.name)
            look, whole = or_whole(self._methods.look(image, shot.name), self._settings.kind)
            found[ORIGINAL].append(network.identity(image))
            for name, row in self.rows.items():
                covered = self._methods.cover(name, look)
                row.count(covered)
                row.whole += whole
                found[name].append(network.identity(covered.image))
            progress(f"{self._preset}: {what}", done + 1, len(shots))
        return {name: np.stack(vectors) for name, vectors in found.items()}
