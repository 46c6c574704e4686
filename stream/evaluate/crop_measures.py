"""FID, LPIPS, its diversity and the perceptual path length of methods, on people cut out of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from engines.errors import UsageError
from stream.evaluate.crops import Cut, People
from stream.evaluate.figures import Figure
from stream.evaluate.frechet import Arithmetic, frechet_figure
from stream.evaluate.path_length import EPSILON, SIDE, path_length, step
from stream.frame import Image
from stream.generators.classical import Fill
from stream.networks import RESIZE, Floats, fit
from stream.perception import PerceptualNetwork, VectorNetwork, perceptual_distance
from stream.regions import Regions

_OF: Final = "crops"


@dataclass(frozen=True, slots=True)
class CropTools:
    """What looks at crops.

    Attributes:
        features: a feature network and the arithmetic of FID, None for no FID.
        perceptual: a perceptual network, None for no LPIPS, diversity and PPL.
        seed: of latents.
        truncation: of latents, for notes.
    """

    features: tuple[VectorNetwork, Arithmetic] | None
    perceptual: PerceptualNetwork | None
    seed: int
    truncation: float

    @property
    def idle(self) -> bool:
        """Whether nothing is measured."""
        return self.features is None and self.perceptual is None


@dataclass
class _Collected:
    """Of one method."""

    features: list[Floats] = field(default_factory=list)
    lpips: list[float] = field(default_factory=list)
    diversity: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    steps_float: list[float] = field(default_factory=list)


class CropMeasures:
    """Measures the methods of a preset on everybody whom its detectors found.

    Args:
        people: cuts them out and asks generators.
        fills: classical methods by name.
        generated: name of the preset's own method.
        tools: what looks.
    """

    def __init__(self, people: People, fills: Mapping[str, Fill], generated: str, tools: CropTools) -> None:
        self._people = people
        self._fills = dict(fills)
        self._generated = generated
        self._tools = tools
        self._real: list[Floats] = []
        self._made: dict[str, _Collected] = {name: _Collected() for name in (*fills, generated)}
        self._count = 0

    def add(self, image: Image, regions: Regions) -> None:
        """Looks at everybody in a picture.

        Args:
            image: uint8 RGB (height, width, 3).
            regions: what detectors found in it.

        Raises:
            StandinError: a network or a generator failed.
        """
        for cut in self._people.cuts(image, regions):
            z0, z1 = self._people.latents(cut, self._tools.seed, self._count, 2)
            stand_in = self._people.generate(cut, z0)
            made = {name: cut.filled(fill) for name, fill in self._fills.items()} | {self._generated: stand_in}
            if self._tools.features is not None:
                network = self._tools.features[0]
                self._real.append(network.features(cut.real))
                for name, levels in made.items():
                    self._made[name].features.append(network.features(np.rint(levels).astype(np.uint8)))
            if self._tools.perceptual is not None:
                self._compare(cut, made, (z0, z1), self._tools.perceptual)
            self._count += 1

    def _compare(
        self, cut: Cut, made: Mapping[str, Floats], z: tuple[Floats, Floats], network: PerceptualNetwork
    ) -> None:
        real = network.maps(cut.real)
        maps = {name: network.maps(np.rint(levels)) for name, levels in made.items()}
        for name, its in maps.items():
            self._made[name].lpips.append(perceptual_distance(real, its))
        own = self._made[self._generated]
        other = np.rint(self._people.generate(cut, z[1]))
        own.diversity.append(perceptual_distance(maps[self._generated], network.maps(other)))
        # The published code measures pictures of whole levels, of which a step this small moves few.
        ends = made[self._generated], self._people.generate(cut, step(z[0], z[1]))
        own.steps_float.append(_step_distance(network, ends[0], ends[1]))
        own.steps.append(_step_distance(network, np.floor(ends[0]), np.floor(ends[1])))

    def figures(self) -> dict[str, dict[str, Figure]]:
        """By method, what was measured.

        Raises:
            UsageError: nobody large enough was found, or too few for FID.
        """
        if not self._count:
            raise UsageError("detectors found nobody in the pictures who is large enough for a generator")
        return {name: self._figures(name, its) for name, its in self._made.items()}

    def _figures(self, name: str, its: _Collected) -> dict[str, Figure]:
        notes = [f"crops of {self._people.sizes}"]
        if name == self._generated:
            notes.append(f"truncation {self._tools.truncation:g}")
        made: dict[str, Figure] = {}
        if self._tools.features is not None:
            network, arithmetic = self._tools.features
            made["fid"] = frechet_figure(self._real, its.features, network, arithmetic, _OF, notes)
        if (perceptual := self._tools.perceptual) is None:
            return made
        for measure, values in (("lpips", its.lpips), ("diversity", its.diversity)):
            if values:
                made[measure] = Figure(
                    float(np.mean(values)), len(values), _OF, perceptual.name, perceptual.resize, tuple(notes)
                )
        for measure, distances in (("ppl", its.steps), ("ppl_float", its.steps_float)):
            if distances:
                made[measure] = _length(distances, perceptual, notes)
        return made


def _step_distance(network: PerceptualNetwork, first: Floats, second: Floats) -> float:
    size = (SIDE, SIDE) if network.any_size else None
    return perceptual_distance(network.maps(fit(first, size)), network.maps(fit(second, size)))


def _length(distances: Sequence[float], network: PerceptualNetwork, notes: Sequence[str]) -> Figure:
    value, kept = path_length(distances)
    resize = f"to {SIDE}x{SIDE}, {RESIZE}" if network.any_size else network.resize
    more = f"over z, epsilon {EPSILON:g}, {len(distances) - kept} of {len(distances)} steps left out as outliers"
    return Figure(value, len(distances), _OF, network.name, resize, (*notes, more))
