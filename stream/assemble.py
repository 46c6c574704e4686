"""From settings to what they name: detectors, classical anonymizers, generators. Where engines are opened."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np

from engines.bundle import Bundle, open_bundle
from engines.errors import BundleError, BundleMissingError, UsageError
from engines.runtime import Device, open_runtime
from engines.small_graphs import open_small
from engines.store import Store
from stream.caution import Caution
from stream.compose.parts import Painters
from stream.compose.resampler import open_resampler
from stream.config import AnonymizerSettings
from stream.cores import MOST_PARALLEL
from stream.detections import Detectors
from stream.detectors.base import Detector
from stream.detectors.cached import CachedDetector
from stream.detectors.graphs import detector_graph
from stream.detectors.pictures import Form, open_pictures
from stream.detectors.single_stage import SingleStageDetector
from stream.detectors.tiled import together
from stream.detectors.two_stage import TwoStageDetector
from stream.generators import classical
from stream.generators.base import Generator
from stream.generators.classical import Fill
from stream.generators.open import open_generator
from stream.latents import CHANNELS, Latents
from stream.presets import GENERATORS, Preset, did_you_mean, find_preset
from stream.regions import Kind
from stream.roles import Role
from stream.stand_ins import StandIns
from stream.surface import Surface
from stream.surface_search import search_graph

_log = logging.getLogger(__name__)

#: Pixels. Detectors need about a dozen of them to find a face, and two dozen for a person.
_SMALL: Final = 256
_ROLES: Mapping[Kind, tuple[Role, ...]] = {Kind.PERSON: ("person", "person-cse"), Kind.FACE: ("face",)}


@dataclass(frozen=True)
class Bundles:
    """The bundles of a run, verified and not yet running.

    Attributes:
        detectors: in the order in which they look.
        generators: by what they replace.
    """

    detectors: tuple[Bundle, ...]
    generators: Mapping[Role, Bundle]

    @property
    def all(self) -> tuple[Bundle, ...]:
        """Each of them."""
        return (*self.detectors, *self.generators.values())

    @property
    def kinds(self) -> set[Kind]:
        """What the detectors find."""
        return {Kind.of(name) for bundle in self.detectors for name in bundle.manifest.kinds}

    @property
    def surface(self) -> Surface | None:
        """The vertex map of the first detector of dense poses, None where there is none."""
        found = next(filter(_poses, self.detectors), None)
        return None if found is None else Surface(found.array("vertex_embeddings"))


def find_bundles(settings: AnonymizerSettings, store: Store) -> Bundles:
    """The bundles that settings name.

    Raises:
        UsageError: a name that nothing goes by, a detector that is none, or realistic stand-ins for a kind that no
            generator is for.
        BundleError: a bundle is missing (the message says how to come by it), or is not what its manifest says.
    """
    preset = find_preset(settings.preset)
    names = settings.detector or _detector_names(preset, {*store.available(), *settings.engine})
    known = {*names, *get_args(Role), *(preset.generators or GENERATORS).values()}
    if unknown := set(settings.engine) - known:
        name = min(unknown)
        raise UsageError(f"--engine {name}: nothing goes by that name here: {did_you_mean(name, known)}")
    find = _Finder(settings, store)
    further = [name for role, name in preset.generators.items() if settings.treatment(_kind(role)) == "realistic"]
    detectors = tuple(find.all(names, further))
    if not_detectors := [bundle.manifest.name for bundle in detectors if bundle.manifest.task != "detection"]:
        raise UsageError(f"{', '.join(not_detectors)} finds nothing: it is no detector; choose another --detector")
    names_of = _generator_names(settings, preset, Bundles(detectors, {}))
    if idle := set(settings.engine) - set(names) - set(names_of) - set(names_of.values()):
        raise UsageError(
            f"--engine {min(idle)}: nothing in this run would use it; leave it out, or ask for realistic stand-ins"
        )
    generators = dict(zip(names_of, find.all(names_of.values()), strict=True))
    for role, bundle in generators.items():
        _check_role(role, bundle)
    return Bundles(detectors, generators)


def _detector_names(preset: Preset, there: Collection[str]) -> tuple[str, ...]:
    """The preset's detectors, and those that join them because they are there."""
    return (*preset.detectors, *(name for name in preset.joins if name in there))


def _kind(role: Role) -> Kind:
    return Kind.of(role.removesuffix("-cse"))


def _check_role(role: Role, bundle: Bundle) -> None:
    """A bundle that cannot replace what it is asked to is found before anything is loaded."""
    manifest = bundle.manifest
    kind, posed = role.removesuffix("-cse"), role == "person-cse"
    if manifest.generation is None or kind not in manifest.kinds:
        what = "finds" if manifest.generation is None else "generates"
        raise UsageError(
            f"bundle {manifest.name!r} {what} {', '.join(manifest.kinds)}; {role} needs a generator for {kind}s"
        )
    if posed != (manifest.generation.embedding_channels > 0):
        needs = "takes no body surface, which person-cse has" if posed else f"takes a body surface, which {role} lacks"
        raise UsageError(f"bundle {manifest.name!r} {needs}; give one for {role}")
    if posed and "vertex_embeddings" not in manifest.arrays:
        raise UsageError(
            f"bundle {manifest.name!r} does not know its body surface; export it again with --surface CSE_CHECKPOINT"
        )


@dataclass(frozen=True)
class _Finder:
    """Opens bundles by name, those that the user gave first."""

    settings: AnonymizerSettings
    store: Store

    def all(self, names: Iterable[str], further: Iterable[str] = ()) -> list[Bundle]:
        """The bundles of these names.

        Args:
            names: of what is wanted.
            further: of what will be wanted next, to be named as well if it is missing.

        Raises:
            BundleMissingError: the message says how to come by the first that is missing, and names the others.
            BundleError: a bundle is not what its manifest says.
        """
        found: list[Bundle] = []
        missing: dict[str, BundleMissingError] = {}
        for name in names:
            try:
                found.append(self._one(name))
            except BundleMissingError as error:
                missing[name] = error
        if not missing:
            return found
        (name, first), *others = missing.items()
        known = {*self.store.available(), *self.settings.engine}
        more = [other for other, _ in others] + [other for other in further if other not in known]
        of_preset = (
            "" if name in {*self.settings.detector, *self.settings.engine} else f"preset {self.settings.preset}: "
        )
        raise BundleMissingError(f"{of_preset}{first}{'; missing too: ' if more else ''}{', '.join(more)}")

    def _one(self, name: str) -> Bundle:
        given = self.settings.engine.get(name)
        if given is None:
            return self.store.find(name)
        try:
            return open_bundle(given)
        except BundleError as error:
            raise type(error)(f"--engine {name}: {error}") from None


def _generator_names(settings: AnonymizerSettings, preset: Preset, found: Bundles) -> dict[Role, str]:
    """What each generator that has something to do goes by."""
    chosen: dict[Role, str] = {}
    for kind in Kind:
        if settings.treatment(kind) != "realistic":
            continue
        if kind not in _ROLES:
            raise UsageError(f"there is no generator for {kind.label}s; choose blur, pixelate or mask for them")
        if kind not in found.kinds:
            _log.warning("no detector of this run finds %ss, so that none is replaced by a stand-in", kind.label)
            continue
        for role in _ROLES[kind]:
            posed = any(map(_poses, found.detectors))
            if role == "person-cse" and not posed:
                continue
            if role in settings.engine:
                chosen[role] = role
            elif name := (preset.generators or GENERATORS).get(role):
                chosen[role] = name
        if not set(chosen) & set(_ROLES[kind]):
            raise UsageError(
                f"the preset {settings.preset} has no generator for {kind.label}s; "
                f"give one with --engine {_ROLES[kind][0]}=FOLDER, or choose blur, pixelate or mask for them"
            )
    return chosen


def _poses(bundle: Bundle) -> bool:
    return bundle.manifest.detection is not None and bundle.manifest.detection.architecture == "cse"


def open_detector(bundles: Bundles, settings: AnonymizerSettings, threads: int | None) -> Detector:
    """All detectors as one, with their engines loaded, behind the file with detections where there is one.

    Args:
        bundles: of the run.
        settings: of the run.
        threads: for an engine's run, None for all cores.

    Raises:
        UsageError: the file with detections is none, or was made with other detectors.
        BundleError: a bundle is not what its manifest says.
        RuntimeUnavailableError: the device that was asked for cannot be used here.
    """
    if settings.detect_size < _SMALL:
        _log.warning(
            "at a --detect-size of %d only people who fill much of the picture are found, and others stay raw",
            settings.detect_size,
        )
    with contextlib.ExitStack() as stack:
        opened = []
        for bundle in bundles.detectors:
            opened.append(open_one(bundle, settings, threads))
            stack.callback(opened[-1].close)
        detector = together(opened, settings.tiles)
        if settings.detections is not None:
            detector = CachedDetector.open(settings.detections, detector, detectors_of(bundles, settings))
        stack.pop_all()
        return detector


def detectors_of(bundles: Bundles, settings: AnonymizerSettings) -> Detectors:
    """What a file with detections says of those who made them.

    A file of one machine may be read on another, whose detectors run in floating point or in integers as it suits them;
    whoever asks for floating point does not get what integers found.

    Args:
        bundles: of the run.
        settings: of the run.
    """
    found = {"threshold": repr(settings.threshold), "detect_size": str(settings.detect_size)}
    if settings.detector_precision != "auto" and any(bundle.manifest.quantized for bundle in bundles.detectors):
        found["detector_precision"] = settings.detector_precision
    # Not named where there are none: files of before there were tiles stay good.
    if settings.tiles > 1:
        found["tiles"] = str(settings.tiles)
    return Detectors(bundles.detectors, found, bundles.surface)


def open_one(
    bundle: Bundle, settings: AnonymizerSettings, threads: int | None
) -> SingleStageDetector | TwoStageDetector:
    """One bundle's detector; see `open_detector`."""
    with contextlib.ExitStack() as stack:
        first_name = detector_graph(bundle, settings.device, settings.detector_precision)
        names = (first_name,) if bundle.manifest.detection is None else (first_name, "heads")
        opened = functools.partial(
            open_runtime, device=settings.device, server=settings.engine_server, timeout=settings.deadline
        )
        first, *heads = [stack.enter_context(opened(bundle, name, threads=threads)) for name in names]
        pictures = open_pictures(Form.of(bundle), _memory_of(settings))
        stack.callback(pictures.close)
        detector: SingleStageDetector | TwoStageDetector
        longest, threshold = settings.detect_size, settings.threshold
        if heads:
            detector = TwoStageDetector(
                bundle, first, heads[0], longest=longest, threshold=threshold, pictures=pictures
            )
        else:
            detector = SingleStageDetector(bundle, first, longest=longest, threshold=threshold, pictures=pictures)
        # From here on the detector closes them.
        stack.pop_all()
        return detector


def _memory_of(settings: AnonymizerSettings) -> Device:
    """The device whose memory engines and this process share."""
    return settings.device if settings.engine_server is None else "cpu"


def open_stand_ins(bundles: Bundles, settings: AnonymizerSettings, *, patient: bool) -> StandIns | None:
    """The generators with their engines loaded, None where there is none.

    Args:
        bundles: of the run.
        settings: of the run.
        patient: whether a stream can wait until a generator is ready for a new track.

    Raises:
        UsageError: detector and generator do not speak of the same body surface.
        BundleError: a bundle is not what its manifest says.
        RuntimeUnavailableError: the device that was asked for cannot be used here.
    """
    if not bundles.generators:
        return None
    surface, guided = None, False
    if body := bundles.generators.get("person-cse"):
        _check_surface(body, bundles)
        guided = body.manifest.generation is not None and body.manifest.generation.architecture == "v-sam"
    generators: dict[Role, Generator] = {}
    # Generators whose latents have the same length share them, so that a track looks alike in all of these.
    shared: dict[int, Latents] = {}
    with contextlib.ExitStack() as stack:
        if body is not None:
            surface = Surface(
                body.array("vertex_embeddings"),
                # The starter set's bundles name the few vertices of the body's mesh that their surface has.
                sparse="body_vertices" in body.manifest.arrays,
                runtime=open_small(search_graph, _memory_of(settings)),
            )
            stack.callback(surface.close)
        for role, bundle in bundles.generators.items():
            generation = bundle.manifest.generation
            channels = CHANNELS if generation is None else generation.z_channels
            latents = shared.setdefault(channels, Latents(settings.seed, channels))
            generators[role] = open_generator(
                bundle,
                device=settings.device,
                precision=settings.precision,
                threads=settings.threads,
                latents=latents,
                truncation=settings.truncation,
                server=settings.engine_server,
                timeout=settings.deadline,
            )
            stack.callback(generators[role].close)
        resampler = open_resampler(_memory_of(settings))
        stack.callback(resampler.close)
        painters = Painters(
            generators,
            make_fills(settings),
            surface,
            style="sg-gan" if guided else "deepprivacy2",
            margin=settings.margin,
            shape=settings.shape,
            resampler=resampler,
        )
        stack.pop_all()
    return StandIns(
        painters,
        context=settings.context,
        linger=settings.hold + settings.remember + settings.lookahead + 2 + MOST_PARALLEL,
        patience=settings.deadline if patient else 0.0,
    )


def _check_surface(body: Bundle, bundles: Bundles) -> None:
    """Embeddings of one CSE model mean nothing in the space of another."""
    theirs = np.asarray(body.array("vertex_embeddings"))
    for bundle in filter(_poses, bundles.detectors):
        own = np.asarray(bundle.array("vertex_embeddings"))
        if own.shape != theirs.shape or not np.allclose(own, theirs, atol=1e-4):
            raise UsageError(
                f"{body.manifest.name} was made for another body surface than {bundle.manifest.name} knows; "
                "export both from the same CSE checkpoint (--surface)"
            )


def make_caution(settings: AnonymizerSettings, stand_ins: StandIns | None) -> Caution | None:
    """What covers more than was found, None where nothing of it is asked for."""
    # Faces are left to stand-ins alone: in a person who is covered classically they are covered by themselves.
    joins = settings.join_faces and stand_ins is not None and "person-cse" in stand_ins.painters.generators
    if not (settings.mask_margin or settings.mask_frames or joins):
        return None
    return Caution(
        mask_margin=settings.mask_margin,
        mask_frames=settings.mask_frames,
        join_faces=joins,
        margin=settings.margin,
        shape=settings.shape,
    )


def make_fills(settings: AnonymizerSettings) -> dict[Kind, Fill]:
    """The classical anonymizer of every kind.

    One that is kept has one all the same, for regions given by hand, and one that is realistic for what no generator
    can replace.
    """
    made: dict[str, Callable[[], Fill]] = {
        "blur": lambda: classical.blur(settings.blur_radius),
        "pixelate": lambda: classical.pixelate(settings.cells),
        "mask": lambda: classical.mask_out(settings.mask_colour),
    }
    return {kind: made.get(settings.treatment(kind), made[settings.fallback])() for kind in Kind}
