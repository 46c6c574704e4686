from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.bundle import sha256_file
from engines.errors import CheckpointError
from export.architecture import expected_tensors
from export.configs import configs
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.unet import StyleUnet
from export.official import Official, load_official
from tests.export.helpers import config_of, weights

UNET, SURFACE = "dp2_cse_small", "sggan_small"
SMALL = ["dp2_cse_small", "dp2_nocse_small", "dp2_face_small", "sggan_small"]
State = dict[str, Tensor]


def load(folder: Path, content: object, case: str = UNET) -> Official:
    path = folder / "model.ckpt"
    torch.save(content, path)
    return load_official(path, config_of(case))


def refused(folder: Path, content: object, case: str = UNET) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder, content, case)
    message = str(caught.value)
    assert message.startswith(str(folder / "model.ckpt"))
    assert "\n" not in message
    assert len(message) < 700
    return message


def changed(case: str, change: Callable[[State], Any]) -> dict[str, State]:
    """The checkpoint of a case after a change of its state dict."""
    state = weights(case)
    change(state)
    return {"EMA_generator": state}


@pytest.mark.parametrize("case", SMALL)
def test_the_state_fits_our_module_strictly_and_keeps_every_value(tmp_path: Path, case: str) -> None:
    given = weights(case)
    official = load(tmp_path, {"EMA_generator": given}, case)
    spec = official.spec
    module = SurfaceUnet(spec) if isinstance(spec, SurfaceSpec) else StyleUnet(spec)
    module.load_state_dict(official.state, strict=True)
    assert all(torch.equal(official.state[name], given[name]) for name in official.state)
    assert {name for name in given if name not in official.state} <= {n for n in given if n.endswith("resample_filter")}
    assert official.unexpected == tuple(sorted(given.keys() - official.state.keys()))
    assert official.warnings == ()
    assert official.w_centers is None
    assert official.sha256 == sha256_file(tmp_path / "model.ckpt")


def test_the_average_is_the_published_one(tmp_path: Path) -> None:
    unet = load(tmp_path, {"EMA_generator": weights(UNET)})
    assert unet.w_avg.shape == (512,)
    assert torch.equal(unet.w_avg, weights(UNET)["style_net.w_avg"])
    surface = load(tmp_path, {"EMA_generator": weights(SURFACE)}, SURFACE)
    assert surface.w_avg.shape == (600, 64)
    assert torch.equal(surface.w_avg, weights(SURFACE)["style_net.E_map.w_avg"])


def test_averaged_weights_are_preferred_and_others_noted(tmp_path: Path) -> None:
    good = weights(UNET)
    other = {name: tensor * 0.5 for name, tensor in good.items()}
    for key in ("EMA_generator", "running_average_generator"):
        official = load(tmp_path, {"generator": other, key: good, "global_step": 7, "D_optimizer": {"state": {}}})
        assert torch.equal(official.w_avg, good["style_net.w_avg"])
        assert official.warnings == ()
    both = load(tmp_path, {"running_average_generator": other, "EMA_generator": good})
    assert torch.equal(both.w_avg, good["style_net.w_avg"])
    for key in ("generator", "G"):
        assert "no averaged weights" in load(tmp_path, {key: good}).warnings[0]
    assert "bare dict" in load(tmp_path, good).warnings[0]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    given = weights(UNET)
    official = load(tmp_path, {"EMA_generator": {prefix + name: tensor for name, tensor in given.items()}})
    assert official.unexpected == ()
    assert torch.equal(official.w_avg, given["style_net.w_avg"])


def test_half_and_double_precision_become_float32(tmp_path: Path) -> None:
    given = {name: tensor.half() for name, tensor in weights(UNET).items()}
    given["to_rgb.bias"] = torch.tensor([1, 2, 0.5], dtype=torch.float64)
    given["style_net.w_avg"] = given["style_net.w_avg"].bfloat16()
    official = load(tmp_path, {"EMA_generator": given})
    assert {tensor.dtype for tensor in official.state.values()} == {torch.float32}
    assert official.state["to_rgb.bias"].tolist() == [1, 2, 0.5]
    assert torch.equal(official.w_avg, given["style_net.w_avg"].float())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.cfloat])
def test_weights_that_are_no_real_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    other = {"to_rgb.bias": torch.ones(3, dtype=dtype)}
    message = refused(tmp_path, changed(UNET, lambda s: s.update(other)))
    assert f"to_rgb.bias is {dtype}, expected real numbers" in message
    assert "save the weights as float32" in message


def test_arrays_of_whole_numbers_are_refused_too(tmp_path: Path) -> None:
    state = {name: tensor.numpy() for name, tensor in weights(UNET).items()}
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps({"EMA_generator": state | {"to_rgb.bias": np.arange(3)}}))
    with pytest.raises(CheckpointError, match=r"to_rgb\.bias is torch\.int64"):
        load_official(path, config_of(UNET))


def test_a_pickle_of_arrays_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"EMA_generator": {n: t.numpy() for n, t in weights(UNET).items()}}))
    assert torch.equal(load_official(path, config_of(UNET)).w_avg, weights(UNET)["style_net.w_avg"])


def test_the_state_outlives_the_file(tmp_path: Path) -> None:
    official = load(tmp_path, {"EMA_generator": weights(UNET)})
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert torch.equal(official.state["to_rgb.bias"], weights(UNET)["to_rgb.bias"])
    assert all(tensor.is_contiguous() for tensor in official.state.values())


CENTRES = torch.arange(8 * 512, dtype=torch.float64).reshape(8, 512)


@pytest.mark.parametrize("inside", [True, False])
def test_cluster_centres_are_taken_from_either_place(tmp_path: Path, inside: bool) -> None:
    content: dict[str, Any] = {"EMA_generator": weights(UNET)}
    (content["EMA_generator"] if inside else content)["style_net.w_centers" if inside else "w_centers"] = CENTRES
    official = load(tmp_path, content)
    assert official.w_centers is not None
    assert torch.equal(official.w_centers, CENTRES.float())
    assert official.unexpected == ()


def test_cluster_centres_inside_count_before_those_beside(tmp_path: Path) -> None:
    state = weights(UNET) | {"style_net.w_centers": CENTRES}
    official = load(tmp_path, {"EMA_generator": state, "w_centers": CENTRES + 1})
    assert official.w_centers is not None
    assert torch.equal(official.w_centers, CENTRES.float())


def test_cluster_centres_inside_may_have_a_bare_name(tmp_path: Path) -> None:
    state = weights(UNET) | {"w_centers": CENTRES}
    for content in ({"EMA_generator": state, "w_centers": CENTRES + 1}, {"EMA_generator": state}, state):
        official = load(tmp_path, content)
        assert official.w_centers is not None
        assert torch.equal(official.w_centers, CENTRES.float())
        assert official.unexpected == ()
    both = load(tmp_path, {"EMA_generator": state | {"style_net.w_centers": CENTRES + 2}})
    assert both.w_centers is not None
    assert torch.equal(both.w_centers, (CENTRES + 2).float())
    assert both.unexpected == ("w_centers",), "what is not used is recorded"


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        (torch.zeros(8, 511), "w_centers is (8, 511), expected (centres, 512)"),
        (torch.zeros(512), "w_centers is (512,)"),
        (torch.zeros(0, 512), "w_centers is (0, 512)"),
        ([1, 2], "w_centers is list"),
        (torch.full((8, 512), torch.inf), "w_centers has 4096 values that are not finite"),
    ],
)
def test_cluster_centres_of_a_wrong_kind_are_refused(tmp_path: Path, centres: object, expected: str) -> None:
    assert expected in refused(tmp_path, {"EMA_generator": weights(UNET), "w_centers": centres})


def test_cluster_centres_mean_nothing_to_v_sam(tmp_path: Path) -> None:
    official = load(tmp_path, changed(SURFACE, lambda s: s.update({"style_net.w_centers": CENTRES})), SURFACE)
    assert official.w_centers is None
    assert [n for n in official.unexpected if not n.endswith("resample_filter")] == ["style_net.w_centers"]


def test_unexpected_tensors_are_kept_as_a_warning(tmp_path: Path) -> None:
    extra = {"a.new.layer": torch.ones(2), "style_net.extra\nname": torch.ones(1)}
    official = load(tmp_path, changed(UNET, lambda s: s.update(extra)))
    assert official.unexpected == ("a.new.layer", r"style_net.extra\nname")
    assert len(official.warnings) == 1
    assert "2 tensors" in official.warnings[0]
    assert "\n" not in official.warnings[0]
    assert not extra.keys() & official.state.keys()


def test_missing_tensors_are_listed_and_the_list_is_bounded(tmp_path: Path) -> None:
    one = refused(tmp_path, changed(UNET, lambda s: s.pop("decoder.2.conv1.affine_beta.bias")))
    assert "lacks 1 of" in one
    assert "decoder.2.conv1.affine_beta.bias" in one
    many = refused(tmp_path, changed(UNET, lambda s: [s.pop(n) for n in list(s) if "affine_beta" in n]))
    assert "lacks 24 of" in many
    assert "and 19 more" in many
    level = refused(tmp_path, changed(UNET, lambda s: [s.pop(n) for n in list(s) if n.startswith("encoder.3.conv")]))
    assert "encoder.3.conv0.weight" in level


def test_a_wrong_shape_is_said_in_one_line(tmp_path: Path) -> None:
    message = refused(
        tmp_path, changed(UNET, lambda s: s.update({"encoder.2.conv1.weight": torch.zeros(64, 64, 3, 1)}))
    )
    assert "encoder.2.conv1.weight is (64, 64, 3, 1), expected (64, 64, 3, 3)" in message
    flat = refused(tmp_path, changed(UNET, lambda s: s.update({"to_rgb.weight": torch.zeros(24)})))
    assert "to_rgb.weight is (24,), expected (3, 8, 1, 1)" in flat


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    message = refused(tmp_path, changed(UNET, lambda s: s["decoder.1.conv0.weight"][0, 0, 0].fill_(value)))
    assert "decoder.1.conv0.weight has 3 values that are not finite" in message


@pytest.mark.parametrize(
    "case",
    ["dp2_face_small", *(pytest.param(case, marks=pytest.mark.thorough) for case in SMALL if "face" not in case)],
)
def test_a_single_value_that_is_not_finite_is_found_in_every_tensor(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.ckpt"
    needed = list(load(tmp_path, {"EMA_generator": weights(case)}, case).state)
    for name in needed[:: max(1, len(needed) // 12)]:
        state = weights(case)
        state[name].view(-1)[-1] = torch.nan
        torch.save({"EMA_generator": state}, path)
        with pytest.raises(CheckpointError, match=rf"{re.escape(name)} has 1 values that are not finite"):
            load_official(path, config_of(case))


def test_all_tensors_that_are_not_finite_are_named(tmp_path: Path) -> None:
    def spoil(state: State) -> None:
        for name in ("to_rgb.bias", "from_rgb.bias"):
            state[name].fill_(torch.inf)

    message = refused(tmp_path, changed(UNET, spoil))
    assert "from_rgb.bias has 8 values" in message
    assert "to_rgb.bias has 3 values that are not finite" in message


def test_values_that_only_float64_can_hold_are_not_finite(tmp_path: Path) -> None:
    huge = torch.full((3,), 1e300, dtype=torch.float64)
    assert "to_rgb.bias has 3" in refused(tmp_path, changed(UNET, lambda s: s.update({"to_rgb.bias": huge})))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (torch.ones(4, 4), "sums to 16"),
        (torch.ones(3, 3) / 9, "expected (4, 4)"),
        (torch.full((4, 4), torch.nan), "finite"),
    ],
)
def test_filters_must_be_usable(tmp_path: Path, filters: Tensor, expected: str) -> None:
    name = "encoder.1.conv0.resample_filter"
    message = refused(tmp_path, changed(UNET, lambda s: s.update({name: filters})))
    assert name in message
    assert expected in message


def test_unused_filters_are_recorded_without_a_warning_whatever_they_are(tmp_path: Path) -> None:
    nan = torch.full((4, 4), torch.nan)
    official = load(tmp_path, changed(SURFACE, lambda s: s.update({"to_rgb.resample_filter": nan})), SURFACE)
    assert "to_rgb.resample_filter" in official.unexpected
    assert official.warnings == ()
    assert "to_rgb.resample_filter" not in official.state
    extra = {"to_rgb.resample_filter": nan, "left.over": nan}
    both = load(tmp_path, changed(UNET, lambda s: s.update(extra)))
    assert both.unexpected == ("left.over", "to_rgb.resample_filter")
    assert both.warnings == ("1 tensors have no place in the network: left.over",)


OTHERS: dict[str, tuple[dict[Any, Any], str]] = {
    "CSE detector": (
        {"model": {"roi_heads.embedder.embedder_smpl_27554.embeddings": torch.ones(2, 2)}, "__author__": "x"},
        "its part model looks like detectron2's dense pose detector (CSE)",
    ),
    "Mask R-CNN": ({"roi_heads.mask_head.deconv.weight": torch.ones(1)}, "looks like detectron2's Mask R-CNN"),
    "DSFD": ({"layer1.0.weight": torch.ones(1)}, "looks like the face detector DSFD"),
    "discriminator": (
        {"discriminator": {"layers.0.conv0.weight": torch.ones(1)}, "global_step": 3},
        "expected EMA_generator, found discriminator, global_step; its part discriminator looks like a discriminator",
    ),
    "no tensors": ({"a": 1}, "found a; give another file"),
    "empty": ({}, "found nothing"),
    "numbers for names": ({10**9: torch.ones(1)}, "found nothing"),
    "unknown": ({"some.layer": torch.ones(1)}, "looks like an unknown network"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("case", [UNET, SURFACE])
def test_another_kind_of_checkpoint_is_said_to_be_one(tmp_path: Path, case: str, other: str) -> None:
    content, expected = OTHERS[other]
    assert expected in refused(tmp_path, content, case)


def test_a_generator_of_another_family_is_said_to_be_one(tmp_path: Path) -> None:
    message = refused(tmp_path, {"EMA_generator": weights(SURFACE)}, UNET)
    assert "looks like SG-GAN with V-SAM, but dp2_cse_small is DeepPrivacy2's style-based U-Net" in message
    message = refused(tmp_path, {"EMA_generator": weights(UNET)}, SURFACE)
    assert "looks like DeepPrivacy2's style-based U-Net, but sggan_small is SG-GAN with V-SAM" in message


def test_surface_embeddings_must_be_there_exactly_where_the_config_has_them(tmp_path: Path) -> None:
    message = refused(tmp_path, {"EMA_generator": weights("dp2_nocse_small")}, UNET)
    assert "no surface embedding at its input, but dp2_cse_small has one" in message
    message = refused(tmp_path, {"EMA_generator": weights(UNET)}, "dp2_nocse_small")
    assert "a surface embedding at its input, but dp2_nocse_small has none" in message


def test_another_image_size_shows_in_the_number_of_levels(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"EMA_generator": weights("dp2_face_small")}, path)
    assert load_official(path, configs()["dp2-face"]).spec.image_size == (256, 256)
    with pytest.raises(CheckpointError, match="it has 6 encoder and 6 decoder levels, but dp2-face-128 has 5"):
        load_official(path, configs()["dp2-face-128"])
    odd = dataclasses.replace(configs()["dp2-face"], image_size=(250, 250))
    with pytest.raises(CheckpointError, match="cannot be halved 5 times"):
        load_official(path, odd)


def test_levels_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    def widen(state: State) -> None:
        # A whole decoder level of another width: every tensor agrees with its neighbours inside the level.
        for name, shape in expected_tensors(
            dataclasses.replace(load(tmp_path, changed(UNET, dict)).spec, decoder=((64, 64), (48, 64)))
        ).items():
            if name.startswith(("decoder.1.", "unet_block1.")):
                state[name] = torch.zeros(shape)

    assert "do not fit together" in refused(tmp_path, changed(UNET, widen))


@pytest.mark.parametrize(
    ("case", "name", "expected"),
    [
        (UNET, "comod_fc.weight", "co-modulation, which is not supported"),
        (SURFACE, "z_projector.fc.weight", "not supported"),
        (SURFACE, "style_net.mid_layers.0.mlp.weight", "modulated middle blocks, which is not supported"),
        (SURFACE, "style_net.enc_layers.0.mlp.weight", "a modulated encoder, which is not supported"),
        (SURFACE, "decoder.0.conv0.noise_strength", "noise per layer, which is not supported"),
    ],
)
def test_variants_that_would_compute_something_else_are_refused(
    tmp_path: Path, case: str, name: str, expected: str
) -> None:
    assert expected in refused(tmp_path, changed(case, lambda s: s.update({name: torch.ones(1)})), case)


def test_sg_gan_without_z_is_not_supported(tmp_path: Path) -> None:
    def drop_z(state: State) -> None:
        for name in [name for name in state if ".fromZ" in name]:
            del state[name]
        for layer in ("fc0", "residual1"):
            state[f"style_net.E_map.{layer}.weight"] = torch.zeros(64, 64)

    assert "z does not enter the mapping network (SG-GAN's config C)" in refused(
        tmp_path, changed(SURFACE, drop_z), SURFACE
    )


def test_sg_gan_with_shifts_is_not_supported(tmp_path: Path) -> None:
    def double(state: State) -> None:
        for name in [name for name in state if ".mlp." in name and not name.endswith("filter")]:
            state[name] = torch.cat([state[name]] * 2)

    assert "only_gamma off" in refused(tmp_path, changed(SURFACE, double), SURFACE)


@pytest.mark.parametrize("left", [0, 1])
def test_sg_gan_needs_two_combined_layers(tmp_path: Path, left: int) -> None:
    def drop(state: State) -> None:
        for name in [name for name in state if re.search(r"\.E_map\.(fc|residual)\d", name)]:
            if left == 0 or "fc0" not in name:
                del state[name]

    message = refused(tmp_path, changed(SURFACE, drop), SURFACE)
    assert f"and {left} fc* layers, expected at least 1 and 2" in message
    assert "not supported" in message


def test_absurd_numbers_in_names_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, changed(UNET, lambda s: s.update({"encoder.999.conv0.weight": torch.ones(1)})))
    assert "numbers a part 999" in message


def test_tensors_that_repeat_few_numbers_are_refused_before_they_are_copied(tmp_path: Path) -> None:
    # Each claims less than the file has, all together far more.
    def claim(state: State) -> None:
        for name in state:
            state[name] = torch.ones(1).expand(state[name].shape)
        state["filler"] = torch.zeros(300_000)

    assert "numbers, but the file has" in refused(tmp_path, changed(UNET, claim))


def test_a_file_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"EMA_generator": weights(UNET)}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load_official(path, config_of(UNET))


def test_names_of_tensors_are_the_same_in_python_and_numpy_files(tmp_path: Path) -> None:
    state: dict[Any, Any] = dict(weights(UNET))
    state[7] = torch.ones(1)
    state["note"] = "text"
    state["array"] = np.ones(2)
    assert load(tmp_path, {"EMA_generator": state}).unexpected == ("array",)
