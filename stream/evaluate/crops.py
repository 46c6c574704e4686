"""People cut out of pictures as a generator wants them, and generators asked for one crop at a time with a given z."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from engines.bundle import Bundle
from engines.errors import GenerationError
from stream import assemble
from stream.assemble import Bundles
from stream.compose.crops import cut_image
from stream.compose.parts import Crop, Painters, prepare
from stream.config import AnonymizerSettings
from stream.frame import Image
from stream.generators.base import AlwaysReady, Crops, Floats, Generator
from stream.generators.classical import Fill
from stream.generators.open import open_generator
from stream.latents import CHANNELS, Latent, Latents
from stream.regions import Kind, Regions
from stream.roles import Role
from stream.surface import Surface

Bools = npt.NDArray[np.bool_]
#: One person at a time has a track.
_TRACK: Final = 0


class GivenLatents(Latents):
    """Latents that are given rather than drawn.

    Args:
        channels: length of z.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(seed=0, channels=channels)
        self.z: Floats = np.zeros(channels, np.float32)

    def of(self, track_id: int) -> Latent:  # noqa: ARG002
        """The one that was given last."""
        return Latent(self.z, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A person, cut out.

    Attributes:
        real: uint8 RGB (H, W, 3), as the picture shows them; black outside of it.
        crops: the same for a generator, one crop.
        role: which generator.
    """

    real: Image
    crops: Crops
    role: Role

    @property
    def unknown(self) -> Bools:
        """Bool (H, W), what is replaced."""
        unknown: Bools = ~self.crops.known[0]
        return unknown

    def filled(self, fill: Fill) -> Floats:
        """As a classical anonymizer leaves the crop, float32 (H, W, 3) of levels: the mask alone, as in the papers."""
        return np.where(self.unknown[..., None], fill(self.real), self.real).astype(np.float32)


class _Planned(AlwaysReady):
    """What `prepare` asks of a generator."""

    def __init__(self, generator: Generator) -> None:
        self.kind, self.size, self.needs_surface = generator.kind, generator.size, generator.needs_surface


class People:
    """Cuts people out and lets a preset's generators replace them.

    Neighbours show in crops, as they do in the papers' data sets: this is for measures, and nothing of it is kept.

    Args:
        bundles: of the preset.
        settings: of the preset.
        kind: whose crops count.
        truncation: of latents.

    Raises:
        BundleError: a bundle is not what its manifest says.
        RuntimeUnavailableError: the device that was asked for cannot be used here.
    """

    def __init__(self, bundles: Bundles, settings: AnonymizerSettings, kind: Kind, truncation: float) -> None:
        self._kind = kind
        self._latents: dict[Role, GivenLatents] = {}
        generators: dict[Role, Generator] = {}
        chosen = {role: bundle for role, bundle in bundles.generators.items() if kind.label in bundle.manifest.kinds}
        with contextlib.ExitStack() as stack:
            for role, bundle in chosen.items():
                self._latents[role] = GivenLatents(_channels(bundle))
                generators[role] = open_generator(
                    bundle,
                    device=settings.device,
                    precision=settings.precision,
                    threads=settings.threads,
                    latents=self._latents[role],
                    truncation=truncation,
                    budget=0,
                )
                stack.callback(generators[role].close)
            # Crops are planned before there is a latent for them.
            planned = {role: cast("Generator", _Planned(generator)) for role, generator in generators.items()}
            self._planned = _painters(planned, chosen, settings)
            self._generators = generators
            stack.pop_all()

    @property
    def sizes(self) -> str:
        """Width and height of crops, as text."""
        return ", ".join(sorted({f"{one.size[1]}x{one.size[0]}" for one in self._generators.values()}))

    def cuts(self, image: Image, regions: Regions) -> Iterator[Cut]:
        """Everybody in a picture who is large enough for a generator, one after another.

        Args:
            image: uint8 RGB (height, width, 3).
            regions: what detectors found in it.

        Raises:
            StandinError: a generator failed.
        """
        for row in np.flatnonzero(regions.kinds == self._kind):
            one = replace(regions[[row]], track_ids=np.array([_TRACK], np.int64))
            for part in prepare(one, (image.shape[0], image.shape[1]), self._planned):
                if part.crop is not None:
                    yield self._cut(image, part.crop)

    def latents(self, cut: Cut, seed: int, index: int, count: int) -> Floats:
        """Latents for a crop, a function of seed and number alone, float32 (count, Z)."""
        draw = np.random.default_rng((seed, index))
        return draw.standard_normal((count, self._latents[cut.role].channels), dtype=np.float32)

    def generate(self, cut: Cut, z: Floats) -> Floats:
        """The crop with its unknown pixels generated, float32 (H, W, 3) of levels 0 to 255, not rounded.

        Args:
            cut: of `cuts`.
            z: (Z,).

        Raises:
            GenerationError: the generator does not do it, or its answer cannot be trusted.
            StandinError: a graph could not be run.
        """
        generator = self._generators[cut.role]
        self._latents[cut.role].z = z
        try:
            generator.request([_TRACK])
            generator.wait([_TRACK])
            made = generator.generate(cut.crops)
            if not made.done.all():
                raise GenerationError(f"no stand-in for a crop: {generator.failure(_TRACK) or 'it was not ready'}")
        finally:
            generator.forget(_TRACK)
        levels = (made.output[0].transpose(1, 2, 0).clip(-1, 1) + 1) * np.float32(127.5)
        return np.where(cut.unknown[..., None], levels, cut.real).astype(np.float32)

    def close(self) -> None:
        """Free the engines; may be called again."""
        for generator in self._generators.values():
            generator.close()

    def _cut(self, image: Image, crop: Crop) -> Cut:
        size = crop.unknown.shape[0], crop.unknown.shape[1]
        real, _ = cut_image(image, crop.box, size, crop.cutting, None)
        plain = Crops(real[None], ~crop.unknown[None], np.array([_TRACK], np.int64))
        if crop.vertices is None or crop.body is None:
            return Cut(real, plain, crop.role)
        return Cut(real, replace(plain, body=crop.body[None], vertices=crop.vertices[None]), crop.role)


def _channels(bundle: Bundle) -> int:
    generation = bundle.manifest.generation
    return CHANNELS if generation is None else generation.z_channels


def _painters(
    generators: Mapping[Role, Generator], bundles: Mapping[Role, Bundle], settings: AnonymizerSettings
) -> Painters:
    """As a run has them (`stream.assemble.open_stand_ins`), for these generators alone."""
    surface, guided = None, False
    if body := bundles.get("person-cse"):
        surface = Surface(body.array("vertex_embeddings"), sparse="body_vertices" in body.manifest.arrays)
        guided = body.manifest.generation is not None and body.manifest.generation.architecture == "v-sam"
    return Painters(
        generators,
        assemble.make_fills(settings),
        surface,
        style="sg-gan" if guided else "deepprivacy2",
        margin=settings.margin,
        shape=settings.shape,
    )
