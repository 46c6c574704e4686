from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.models.folded import fold, halve
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.tables import TableMapping, TableModulation, TablePlan, plan_tables
from tests.export.networks import (
    IMAGE,
    TRUNCATED_IMAGE,
    W_PER_VERTEX,
    Published,
    assert_near,
    assert_near_in_half,
    inputs_of,
    narrow,
    noise,
    published,
    run_surface,
    see_under_the_mask,
    seeded,
    surface_of,
    vertex_map,
)
from tests.parity import SURFACE_UNET, ParityCase, parity_case, parity_cases

SMALL = "sggan_small"


class Loaded:
    """A case's tables and its folded network, loaded once for all tests of the case."""

    def __init__(self, case: ParityCase) -> None:
        self.case = case
        self.inputs = inputs_of(case)
        network = surface_of(case)
        self.spec = network.spec
        self.style = network.style_net
        self.mapping, self.modulation = TableMapping(network), TableModulation(network)
        self.vertices = vertex_map(self.inputs, self.spec.vertices)
        self.slots = torch.arange(len(self.inputs.z))
        # Mapping and modulation keep what they need of the published layers.
        network.style_net = nn.Identity()  # type: ignore[assignment]
        self.network = fold(network)

    def tables(self, truncation: float = 1.0) -> tuple[Tensor, ...]:
        """One per slot, each person its own."""
        made = [self.mapping(z[None], torch.tensor([truncation])) for z in self.inputs.z]
        return tuple(torch.stack(parts) for parts in zip(*made, strict=True))

    def gammas(self, tables: tuple[Tensor, ...]) -> list[Tensor]:
        made: list[Tensor] = self.modulation(self.vertices, self.slots, tables)
        return made

    @cached_property
    def plain_tables(self) -> tuple[Tensor, ...]:
        return self.tables()

    @cached_property
    def plain(self) -> list[Tensor]:
        return self.gammas(self.plain_tables)

    @cached_property
    def image(self) -> Tensor:
        return run_surface(self.network, self.inputs, self.plain)


@pytest.fixture(scope="module", params=parity_cases(SURFACE_UNET), ids=lambda case: case.name)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return Loaded(request.param)


@pytest.fixture(scope="module")
def small() -> Loaded:
    return Loaded(parity_case(SMALL))


def kept(image: Tensor, wanted: Published) -> Tensor:
    return image[:, :, :: wanted.step, :: wanted.step]


def one_kind(x: Tensor, known: float, border: float, body: float) -> Tensor:
    """Values of w (n, channels), as pixels that are all of one kind, with their three indicators: (1,c+3,n,1)."""
    indicators = torch.tensor([known, border, body]).expand(len(x), 3)
    return torch.cat([x * body, indicators], dim=1).T[None, :, :, None]


def test_rows_of_vertices_hold_the_published_w(loaded: Loaded) -> None:
    for wanted in published(loaded.case, W_PER_VERTEX):
        for table, w in zip(loaded.plain_tables[0], wanted.values, strict=True):
            expected = loaded.style.global_mask(one_kind(w, 0, 0, 1))[0, :, :, 0].T
            assert_near(table[: loaded.spec.vertices : wanted.step], expected)


def test_modulation_is_the_published_one_on_average(loaded: Loaded) -> None:
    for layer, gamma in enumerate(loaded.plain):
        [wanted] = published(loaded.case, f"gamma{layer}_mean")
        assert_near(gamma.mean((2, 3)), wanted.values)


def test_the_image_is_the_published_one(loaded: Loaded) -> None:
    for wanted in published(loaded.case, IMAGE):
        assert_near(kept(loaded.image, wanted), wanted.values)


def test_the_image_of_a_truncated_w_is_the_published_one(loaded: Loaded) -> None:
    for wanted in published(loaded.case, TRUNCATED_IMAGE):
        image = run_surface(loaded.network, loaded.inputs, loaded.gammas(loaded.tables(wanted.truncation)))
        assert_near(kept(image, wanted), wanted.values)
        with pytest.raises(AssertionError, match="differs"):  # The comparison sees whether w was truncated.
            assert_near(kept(loaded.image, wanted), wanted.values)


def test_what_the_mask_hides_does_not_reach_the_output(loaded: Loaded) -> None:
    found = run_surface(loaded.network, loaded.inputs.repainted(), loaded.plain)
    assert torch.equal(found, loaded.image)


def test_what_the_mask_hides_would_be_seen_without_the_multiplication(small: Loaded) -> None:
    outputs = []
    for inputs in (small.inputs, small.inputs.repainted()):
        network = copy.deepcopy(small.network)
        see_under_the_mask(network, inputs.image)
        outputs.append(run_surface(network, inputs, small.plain))
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize("case", narrow(parity_cases(SURFACE_UNET)), ids=lambda case: case.name)
def test_half_precision_is_near_and_its_output_stays_float32(case: ParityCase) -> None:
    loaded = Loaded(case)
    expected = loaded.image
    halve(loaded.network)
    loaded.modulation.halve()
    gammas = loaded.gammas(tuple(table.half() for table in loaded.plain_tables))
    assert {gamma.dtype for gamma in gammas} == {torch.float16}
    image = run_surface(loaded.network, loaded.inputs, gammas)
    assert image.dtype == torch.float32
    assert_near_in_half(image, expected)


def test_a_table_has_a_row_for_each_vertex_and_two_more(loaded: Loaded) -> None:
    rows = loaded.spec.vertices + 2
    assert [table.shape[1:] for table in loaded.plain_tables] == [(rows, width) for width in loaded.mapping.plan.widths]


def test_the_last_rows_are_those_of_known_and_of_border_pixels(small: Loaded) -> None:
    rows = small.plain_tables[0]
    vertices = small.spec.vertices
    blank = torch.zeros(1, small.spec.w_channels)
    known = small.style.global_mask(one_kind(blank, 1, 0, 0))[0, :, 0, 0]
    border = small.style.global_mask(one_kind(blank, 0, 1, 0))[0, :, 0, 0]
    assert not torch.allclose(known, border)
    for table in rows:
        assert_near(table[vertices], known, 1e-5)
        assert_near(table[vertices + 1], border, 1e-5)
    # They are neither swapped nor those of the body.
    assert not torch.allclose(rows[0, vertices], border)
    assert not torch.allclose(rows[0, vertices - 1], known)


def test_slots_say_whose_table_is_used(small: Loaded) -> None:
    swapped = small.modulation(small.vertices, small.slots.flip(0), tuple(t.flip(0) for t in small.plain_tables))
    assert all(map(torch.equal, swapped, small.plain))
    wrong = small.modulation(small.vertices, small.slots.flip(0), small.plain_tables)
    assert not any(map(torch.allclose, wrong, small.plain))


def test_a_slot_serves_more_persons_than_one_and_some_serve_none(small: Loaded) -> None:
    twice = small.modulation(small.vertices[[0, 0, 1]], torch.tensor([1, 0, 1]), small.plain_tables)
    for gamma, plain in zip(twice, small.plain, strict=True):
        assert_near(gamma[1:], plain, 1e-5)
    alone = small.modulation(small.vertices[:1], torch.tensor([0]), small.plain_tables)
    for gamma, plain in zip(alone, small.plain, strict=True):
        assert_near(gamma, plain[:1], 1e-5)


def test_truncation_goes_from_the_average_to_w(small: Loaded) -> None:
    z = small.inputs.z[:1]
    none, half, full = (small.mapping(z, torch.tensor([t]))[0] for t in (0.0, 0.5, 1.0))
    average = small.style.global_mask(one_kind(small.style.E_map.w_avg, 0, 0, 1))[0, :, :, 0].T
    assert_near(none[: small.spec.vertices], average, 1e-5)
    assert torch.equal(none, small.mapping(-z, torch.tensor([0.0]))[0])
    assert not torch.allclose(half, none)
    assert not torch.allclose(half, full)


def spec_of(
    *,
    size: tuple[int, int] = (16, 24),
    levels: int = 3,
    width: int = 8,
    layers: int = 4,
    z_layers: int = 2,
    vertices: int = 9,
) -> SurfaceSpec:
    """A network with few channels; `width` is that of w."""
    return SurfaceSpec(
        image_size=size,
        image_channels=3,
        z_channels=6,
        w_channels=width,
        hidden_channels=10,
        vertices=vertices,
        embedding_channels=5,
        embedding_layers=2,
        z_layers=z_layers,
        combined_layers=layers,
        encoder=((4, 4),) * levels,
        decoder=tuple((4, 3) if i % 2 == 0 else (3, 4) for i in range(levels)),
        middle_blocks=0,
        conv_clamp=256.0,
    )


def kinds(spec: SurfaceSpec, persons: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Random mask, border and vertices in which every kind of pixel occurs."""
    generator = torch.Generator().manual_seed(3)
    shape = (persons, *spec.image_size)
    kind = torch.randint(0, 3, shape, generator=generator)
    vertices = torch.randint(0, spec.vertices, shape, generator=generator)
    return (kind == 0).float()[:, None], (kind == 1).float()[:, None], vertices


def assert_same_modulation(spec: SurfaceSpec) -> None:
    """Both ways, at a truncation."""
    network = seeded(SurfaceUnet(spec))
    mask, border, vertices = kinds(spec)
    z, truncation = noise(2, spec.z_channels), torch.tensor([0.6])
    style = network.style_net
    w = torch.stack([torch.lerp(style.E_map.w_avg, style.E_map(row[None]), truncation) for row in z])
    expected = style(w, mask, border, vertices)
    mapping, modulation = TableMapping(network), TableModulation(network)
    made = [mapping(row[None], truncation) for row in z]
    tables = tuple(torch.stack(parts) for parts in zip(*made, strict=True))
    assert tuple(table.shape[2] for table in tables) == plan_tables(spec).widths
    rows = torch.where(mask[:, 0] == 1, spec.vertices, vertices)
    rows = torch.where(border[:, 0] == 1, spec.vertices + 1, rows)
    found = modulation(rows, torch.tensor([0, 1]), tables)
    assert len(found) == len(expected) == 2 * len(spec.decoder)
    for gamma, wanted in zip(found, expected, strict=True):
        assert wanted.std() > 0.1
        assert_near(gamma, wanted, 1e-4)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(8, 40), width=st.integers(8, 40), levels=st.integers(1, 4))
def test_sides_and_levels_may_be_odd(height: int, width: int, levels: int) -> None:
    assert_same_modulation(spec_of(size=(height, width), levels=levels))


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(16, 24), (21, 13)])
def test_wide_networks_gather_the_finest_level_from_tables_of_its_own(levels: int, size: tuple[int, int]) -> None:
    spec = spec_of(size=size, levels=levels, width=128)
    assert plan_tables(spec).direct
    assert_same_modulation(spec)


@pytest.mark.parametrize("layers", [2, 3, 4, 6])
@pytest.mark.parametrize("z_layers", [0, 3])
def test_the_mapping_may_have_other_depths(layers: int, z_layers: int) -> None:
    assert_same_modulation(spec_of(layers=layers, z_layers=z_layers))


@pytest.mark.parametrize(("vertices", "by_row"), [(9, True), (381, True), (382, False), (900, False)])
def test_the_finest_level_multiplies_rows_where_they_are_fewer_than_pixels(vertices: int, by_row: bool) -> None:
    spec = spec_of(size=(16, 24), vertices=vertices)
    assert TableModulation(seeded(SurfaceUnet(spec))).by_row == by_row
    assert_same_modulation(spec)


@pytest.mark.parametrize("vertices", [9, 900])
def test_persons_of_any_slots_have_the_modulation_that_they_have_alone(vertices: int) -> None:
    spec = spec_of(vertices=vertices)
    modulation = TableModulation(seeded(SurfaceUnet(spec)))
    tables = (noise(3 * (vertices + 2), spec.w_channels).reshape(3, vertices + 2, -1),)
    pixels = kinds(spec, persons=4)[2]
    slots = torch.tensor([2, 0, 2, 1])
    together = modulation(pixels, slots, tables)
    for i, slot in enumerate(slots):
        alone = modulation(pixels[i : i + 1], torch.tensor([0]), (tables[0][slot : slot + 1],))
        for gamma, wanted in zip(together, alone, strict=True):
            assert_near(gamma[i : i + 1], wanted, 1e-5)


def test_narrow_networks_share_one_table() -> None:
    assert plan_tables(spec_of(width=120)) == TablePlan(direct=(), shared=tuple(range(6)), widths=(120,))


def test_wide_networks_have_tables_for_the_two_finest_layers() -> None:
    assert plan_tables(spec_of(width=121)) == TablePlan(direct=(4, 5), shared=(0, 1, 2, 3), widths=(121, 4, 3))


def test_a_wide_network_of_one_level_shares_nothing() -> None:
    assert plan_tables(spec_of(width=512, levels=1)) == TablePlan(direct=(0, 1), shared=(), widths=(4, 3))


def test_the_plan_looks_at_the_width_of_w_and_the_decoder_alone() -> None:
    spec = spec_of()
    other = replace(spec, vertices=99, image_size=(40, 40), hidden_channels=500, z_channels=500)
    assert plan_tables(other) == plan_tables(spec)


def test_halved_modulation_has_nothing_left_in_float32() -> None:
    network = seeded(SurfaceUnet(spec_of(width=128)))
    modulation = TableModulation(network)
    assert {buffer.dtype for buffer in modulation.buffers()} == {torch.float32}
    modulation.halve()
    assert {buffer.dtype for buffer in modulation.buffers()} == {torch.float16}
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


def test_a_probe_is_told_every_layers_modulation(small: Loaded) -> None:
    seen: dict[str, Tensor] = {}
    modulation = copy.deepcopy(small.modulation)
    modulation.probe = seen.__setitem__
    made = modulation(small.vertices, small.slots, small.plain_tables)
    tables = {f"table_{i}": table.shape for i, table in enumerate(small.plain_tables)}
    assert {name: part.shape for name, part in seen.items()} == tables | {
        f"modulation.{layer}": gamma.shape for layer, gamma in enumerate(made)
    }
