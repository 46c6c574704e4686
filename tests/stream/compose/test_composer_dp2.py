"""DeepPrivacy2 from detections to pixels, against the published code."""

from __future__ import annotations

import numpy as np
import pytest

from engines.runtime import Device
from stream.compose.composer import compose
from stream.compose.parts import Painters, drop_covered_faces, prepare
from stream.generators.base import Generator
from stream.generators.open import open_generator
from stream.regions import Kind, Regions
from stream.roles import Role
from stream.surface import Surface
from tests.compose import (
    FILLS,
    Bundles,
    GivenLatents,
    assert_near,
    dp2_regions,
    drawn_z,
    pipeline_cases,
    repainted,
    unpacked,
)
from tests.parity import ParityCase


@pytest.fixture(scope="module", params=pipeline_cases("pipeline_dp2"), ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> ParityCase:
    case: ParityCase = request.param
    return case


@pytest.fixture(scope="module")
def regions(case: ParityCase) -> Regions:
    return dp2_regions(case.spec, case.arrays)


@pytest.fixture(scope="module")
def painters(case: ParityCase, regions: Regions, bundles: Bundles, generators_on: Device) -> Painters:
    latents = GivenLatents({int(track): drawn_z(int(track)) for track in regions.track_ids})
    roles: dict[str, Role] = {"face": "face", "person": "person", "cse": "person-cse"}
    generators: dict[Role, Generator] = {
        roles[name]: open_generator(
            bundles(case.spec["generators"][name].split()[0]),
            device=generators_on,
            latents=latents,
            truncation=case.spec["truncation"],
            multi_modal=False,
            embeddings=case.arrays["in/embed_map"],
        )
        for name in roles
    }
    return Painters(generators, FILLS, Surface(case.arrays["in/embed_map"]))


def test_every_step_gives_the_published_integers(case: ParityCase, regions: Regions, painters: Painters) -> None:
    arrays = case.arrays
    size = arrays["in/image_rgb"].shape[:2]
    parts, dropped = drop_covered_faces(prepare(regions, size, painters, whole=False), size, whole=False)
    parts = sorted(parts, key=lambda part: part.rank)
    faces = [part for part in parts if part.kind == Kind.FACE]
    assert sorted(part.pixels.box for part in faces) == sorted(map(tuple, arrays["out/face_boxes_kept"].tolist()))
    assert len(faces) + len(dropped) == len(arrays["in/face_boxes"])
    for name, role in (("person", "person"), ("cse", "person-cse")):
        crops = [part.crop for part in parts if part.crop is not None and part.crop.role == role]
        assert [crop.box for crop in crops] == [tuple(box) for box in arrays[f"out/{name}_expanded_boxes"].tolist()]
        assert (~np.stack([c.unknown for c in crops]) == unpacked(arrays[f"out/{name}_mask_known"])[:, 0]).all()
    body = np.stack([crop.body for crop in crops if crop.body is not None])
    vertices = np.stack([crop.vertices for crop in crops if crop.vertices is not None])
    assert (body == unpacked(arrays["out/cse_E_mask"])[:, 0]).all()
    assert body.any()
    assert (vertices[body] == arrays["out/cse_vertices"][:, 0][body]).all()


def test_pixels_are_the_published_ones_after_every_stage(
    case: ParityCase, regions: Regions, painters: Painters
) -> None:
    arrays = case.arrays
    raw = arrays["in/image_rgb"]
    kept = {tuple(box) for box in arrays["out/face_boxes_kept"].tolist()}
    face = np.array([k == Kind.FACE and tuple(b) in kept for k, b in zip(regions.kinds, regions.boxes, strict=True)])
    plain = np.array(
        [
            regions.kinds[i] == Kind.PERSON and (o := regions.outline(i)) is not None and o.surface is None
            for i in range(len(regions))
        ]
    )
    for chosen, name in ((face, "after_faces"), (face | plain, "after_persons")):
        made = compose(raw, regions[chosen], painters, context="published", whole=False)
        assert_near(made.image, arrays[f"out/{name}"], raw)
        assert made.generated.all()
    made = compose(raw, regions, painters, context="published", whole=False)
    assert_near(made.image, arrays["out/anonymized_rgb"], raw)


def test_in_private_no_pixel_under_a_mask_reaches_the_output(
    case: ParityCase, regions: Regions, painters: Painters
) -> None:
    raw = case.arrays["in/image_rgb"]
    changed = repainted(raw, regions)
    made = [compose(image, regions, painters).image for image in (raw, changed)]
    assert (made[0] == made[1]).all()
    seen = [compose(image, regions, painters, context="published").image for image in (raw, changed)]
    assert (seen[0] != seen[1]).any()
