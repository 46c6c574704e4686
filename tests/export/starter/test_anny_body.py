from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from export.starter import anny_body
from export.starter.body import BONE, BONES, Part
from tests.export.starter.bodies import tiny_body


def _rig() -> SimpleNamespace:
    """A stand-in for anny's rig: our bones by its names, then a finger and an eye, one vertex on each bone."""
    labels = [anny_body._anny_name(bone) for bone in BONES] + ["finger1.L", "eye.L"]
    parents = [-1] * len(BONES) + [BONE["hand_left"], BONE["head"]]
    indices = torch.arange(len(labels))[:, None].repeat(1, 2)
    indices[:, 1] = 0
    shares = torch.tensor([[0.75, 0.25]]).repeat(len(labels), 1)
    return SimpleNamespace(
        bone_labels=labels, bone_parents=parents, vertex_bone_indices=indices, vertex_bone_weights=shares
    )


def test_bones_that_we_have_not_move_with_the_nearest_that_we_have() -> None:
    rig = _rig()
    weights = anny_body._weights(rig, rig.bone_labels, len(rig.bone_labels))

    np.testing.assert_allclose(weights.sum(axis=1), 1)
    finger, eye = len(BONES), len(BONES) + 1
    assert weights[finger, BONE["hand_left"]] == 0.75
    assert weights[eye, BONE["head"]] == 0.75
    assert weights[finger, BONE["pelvis"]] == 0.25


def test_parts_follow_the_bones_and_eyes_are_eyes() -> None:
    rig = _rig()
    parts = anny_body._parts(rig, rig.bone_labels, anny_body._weights(rig, rig.bone_labels, len(rig.bone_labels)))

    assert Part(parts[BONE["forearm_right"]]) is Part.ARM
    assert Part(parts[BONE["shin_left"]]) is Part.LEG
    assert Part(parts[BONE["spine_high"]]) is Part.TORSO
    assert Part(parts[-2]) is Part.HAND
    assert Part(parts[-1]) is Part.EYE


def test_main_modes_give_the_examples_back() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(1, 30, 3))
    mixed = np.einsum("sm,mka->ska", rng.normal(size=(40, 3)), rng.normal(size=(3, 30, 3)))
    everything = (base + mixed - mixed[:1]).astype(np.float32)

    canonical, joints, modes, joint_modes, examples = anny_body._main_modes(everything[:, :20], everything[:, 20:])

    assert modes.shape == (anny_body._MODES, 20, 3)
    np.testing.assert_allclose(canonical, everything[0, :20], atol=1e-6)
    again = canonical + np.einsum("sm,mka->ska", examples, modes)
    np.testing.assert_allclose(again, everything[:, :20], atol=1e-4)
    again = joints + np.einsum("sm,mka->ska", examples, joint_modes)
    np.testing.assert_allclose(again, everything[:, 20:], atol=1e-4)


def test_hair_grows_on_the_crown_and_not_on_the_face() -> None:
    body = tiny_body()
    scalp = anny_body._scalp(body.canonical, body.joints, body.parts)

    assert scalp.any()
    assert not scalp[body.parts != Part.HEAD].any()
    assert body.canonical[scalp, 2].mean() > body.eye[2]


def test_phenotypes_are_those_of_adults_and_children_of_every_build() -> None:
    drawn = anny_body._phenotypes(np.random.default_rng(0))

    assert {len(values) for values in drawn.values()} == {anny_body._EXAMPLES}
    assert drawn["age"].min() >= 0.2
    assert (drawn["age"] < 0.6).sum() > 5
    assert np.ptp(drawn["weight"]) > 0.5
