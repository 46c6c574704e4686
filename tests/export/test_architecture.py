from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from engines.errors import CheckpointError
from export.architecture import Shape, Spec, check_shapes, describe, expected_tensors, read_spec
from export.models.unet import UnetSpec
from tests.export.helpers import config_of
from tests.parity import STYLE_UNET, SURFACE_UNET, ParityCase, parity_case, parity_cases

UNET, SURFACE = "dp2_cse_small", "sggan_small"


def spec_of(case: str) -> Spec:
    return read_spec(parity_case(case).shapes, config_of(case))


def whole(shapes: dict[str, Shape], case: str) -> None:
    """What is checked of a checkpoint that has tensors of these shapes."""
    check_shapes(shapes, expected_tensors(read_spec(shapes, config_of(case))))


@pytest.mark.parametrize("case", [*parity_cases(STYLE_UNET), *parity_cases(SURFACE_UNET)], ids=lambda case: case.name)
def test_the_spec_is_read_from_the_tensors(case: ParityCase) -> None:
    spec = read_spec(case.shapes, config_of(case))
    given = case.config
    assert spec.image_size == tuple(given["imsize"])
    assert spec.z_channels == given["z_channels"]
    assert spec.middle_blocks == given["n_middle_blocks"]
    assert spec.encoder[0][0] == spec.decoder[-1][1] == given["cnum"]
    if isinstance(spec, UnetSpec):
        assert spec.w_channels == given["w_dim"]
        assert spec.embedding_channels == (given["cse_nc"] if given["input_cse"] else 0)
        assert spec.mapping_layers == 2
        assert spec.fix_errors == given["fix_errors"]
    else:
        assert (spec.vertices, spec.hidden_channels) == (given["n_vertices"], given["hidden_dim"])
        counts = (given["n_layer_e"], given["n_layer_z"], given["n_layer_combined"])
        assert (spec.embedding_layers, spec.z_layers, spec.combined_layers) == counts


def test_expected_tensors_are_the_published_ones_without_unused_filters() -> None:
    for case in [*parity_cases(STYLE_UNET), *parity_cases(SURFACE_UNET)]:
        names = set(case.shapes)
        spec = read_spec(case.shapes, config_of(case))
        expected = expected_tensors(spec)
        assert set(expected) <= names
        assert all(name.endswith("resample_filter") for name in names - set(expected))
        # Every level but one halves, and every level but one doubles, each in two convolutions.
        filters = [name for name in expected if name.endswith("resample_filter")]
        assert len(filters) == 4 * (len(spec.encoder) - 1)


@pytest.mark.parametrize("case", [UNET, SURFACE])
def test_every_single_tensor_is_needed(case: str) -> None:
    shapes = parity_case(case).shapes
    for name in expected_tensors(spec_of(case)):
        left = {key: shape for key, shape in shapes.items() if key != name}
        with pytest.raises(CheckpointError):
            whole(left, case)


@pytest.mark.parametrize("case", [UNET, SURFACE])
def test_a_wrong_shape_is_named_for_every_single_tensor(case: str) -> None:
    shapes = parity_case(case).shapes
    vague = []
    for name in expected_tensors(spec_of(case)):
        for axis in range(min(2, len(shapes[name]))):
            wrong = list(shapes[name])
            wrong[axis] += 1
            other = shapes | {name: tuple(wrong)}
            with pytest.raises(CheckpointError) as caught:
                whole(other, case)
            expected = f"1 tensors have another shape: {name} is {tuple(wrong)}, expected {shapes[name]}"
            if expected not in str(caught.value):
                vague.append((name, axis))
    # The two tensors that alone show the number of vertices accuse each other.
    assert vague in ([], [("style_net.E_map.w_avg", 0)], [("style_net.E_map.E", 0)])


def test_a_unet_needs_a_mapping_network() -> None:
    """Without one, nothing would turn z into a w of another width."""
    shapes = {name: shape for name, shape in parity_case(UNET).shapes.items() if not name.startswith("style_net.fc")}
    shapes["style_net.w_avg"] = (256,)
    styles = [name for name in shapes if re.search(r"\.affine(_beta)?\.weight", name)]
    assert styles
    with pytest.raises(CheckpointError, match=r"lacks the mapping network \(style_net\.fc"):
        whole(shapes | {name: (shapes[name][0], 256) for name in styles}, UNET)


def raised(name: str) -> str:
    """The name with every number in it one higher."""
    return re.sub(r"\d+", lambda number: str(int(number[0]) + 1), name)


#: What becomes of one tensor of a group, given its name and shape; None for gone.
CHANGES: dict[str, Callable[[str, Shape], tuple[str, Shape] | None]] = {
    "gone": lambda name, shape: None,
    "renamed": lambda name, shape: (raised(name), shape),
    "turned": lambda name, shape: (name, shape[::-1]),
    "flat": lambda name, shape: (name, shape[:1]),
    "one number": lambda name, shape: (name, ()),
    "empty": lambda name, shape: (name, tuple(0 for _ in shape)),
    "wider": lambda name, shape: (name, tuple(side + 1 for side in shape)),
    "deeper": lambda name, shape: (name, (*shape, 2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", [UNET, SURFACE])
def test_whatever_a_group_of_tensors_becomes_is_fine_or_refused_in_one_line(case: str, change: str) -> None:
    shapes = parity_case(case).shapes
    groups = {".".join(name.split(".")[:depth]) for name in shapes for depth in (1, 2)}
    groups |= {re.sub(r"\d+", "#", name) for name in shapes}
    refusals = []
    for group in sorted(groups):
        found: dict[str, Shape] = {}
        for name, shape in shapes.items():
            hit = f"{name}.".startswith(f"{group}.") or re.sub(r"\d+", "#", name) == group
            changed = CHANGES[change](name, shape) if hit else (name, shape)
            found |= dict([changed]) if changed else {}
        try:
            whole(found, case)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > len(groups) / 4
    assert not [text for text in refusals if "\n" in text or len(text) > 700]


def test_control_all_tensors_together_are_enough() -> None:
    for case in [*parity_cases(STYLE_UNET), *parity_cases(SURFACE_UNET)]:
        check_shapes(case.shapes, expected_tensors(read_spec(case.shapes, config_of(case))))


def test_the_published_networks_are_told_apart() -> None:
    assert describe(parity_case(UNET).shapes) == "DeepPrivacy2's style-based U-Net"
    assert describe(parity_case(SURFACE).shapes) == "SG-GAN with V-SAM"
    decoder_only = [name for name in parity_case(SURFACE).shapes if not name.startswith("from_rgb")]
    assert describe(decoder_only) == "an SG-GAN generator without encoder"
    assert describe(["backbone.bottom_up.stem.conv1.weight"]) == "a detector of detectron2"
    assert describe(["style_net.dec_layers.0.shared.weight"]) == "one of SG-GAN's ablations without V-SAM"
    assert describe([]) == "an unknown network"
