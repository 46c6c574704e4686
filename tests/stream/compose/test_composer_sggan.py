"""SG-GAN from dense poses to pixels, against the published code."""

from __future__ import annotations

import numpy as np
import pytest

from engines.runtime import Device
from stream.compose.composer import compose
from stream.compose.parts import Painters, prepare
from stream.generators.open import open_generator
from stream.outline import Outline
from stream.regions import Regions
from stream.surface import Surface
from tests.compose import (
    FILLS,
    Bundles,
    GivenLatents,
    as_regions,
    assert_near,
    pipeline_cases,
    repainted,
    surfaces_of,
    unpacked,
)
from tests.parity import ParityCase


@pytest.fixture(scope="module", params=pipeline_cases("pipeline_sggan"), ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> ParityCase:
    case: ParityCase = request.param
    return case


@pytest.fixture(scope="module")
def painters(case: ParityCase, bundles: Bundles, generators_on: Device) -> Painters:
    z = case.arrays["in/z"]
    name = case.spec["generator"].split()[0]
    generator = open_generator(
        bundles(name),
        device=generators_on,
        latents=GivenLatents(dict(enumerate(z))),
        truncation=1.0,
        embeddings=case.arrays["in/embed_map"],
    )
    tracks = list(range(len(z)))
    generator.request(tracks)
    assert generator.wait(tracks).all()
    return Painters({"person-cse": generator}, FILLS, Surface(case.arrays["in/embed_map"]), style="sg-gan")


@pytest.fixture(scope="module")
def regions(case: ParityCase) -> Regions:
    found = surfaces_of(case.arrays)
    return as_regions([Outline(None, surface) for surface in found], list(range(len(found))))


def test_every_step_gives_the_published_integers(case: ParityCase, regions: Regions, painters: Painters) -> None:
    arrays = case.arrays
    parts = prepare(regions, arrays["in/image_rgb"].shape[:2], painters, whole=False)
    crops = [part.crop for part in parts if part.crop is not None]
    assert [crop.box for crop in crops] == [tuple(box) for box in arrays["out/expanded_boxes"].tolist()]
    unknown = np.stack([crop.unknown for crop in crops])
    body = np.stack([crop.body for crop in crops if crop.body is not None])
    vertices = np.stack([crop.vertices for crop in crops if crop.vertices is not None])
    assert (~unknown == unpacked(arrays["out/mask_known"])).all()
    assert (body == unpacked(arrays["out/E_mask"])).all()
    assert ((unknown & ~body) == unpacked(arrays["out/border"])).all()
    assert (vertices[body] == arrays["out/vertices"][body]).all()


def test_pixels_are_the_published_ones(case: ParityCase, regions: Regions, painters: Painters) -> None:
    arrays = case.arrays
    made = compose(arrays["in/image_rgb"], regions, painters, context="published", whole=False)
    assert_near(made.image, arrays["out/anonymized_rgb"], arrays["in/image_rgb"])
    assert made.generated.all()


def test_in_private_no_pixel_under_a_mask_reaches_the_output(
    case: ParityCase, regions: Regions, painters: Painters
) -> None:
    raw = case.arrays["in/image_rgb"]
    changed = repainted(raw, regions, "sg-gan")
    made = [compose(image, regions, painters).image for image in (raw, changed)]
    assert (made[0] == made[1]).all()
    seen = [compose(image, regions, painters, context="published").image for image in (raw, changed)]
    assert (seen[0] != seen[1]).any()
