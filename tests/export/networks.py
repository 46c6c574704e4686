"""Networks of parity cases as torch modules, with the inputs of their cases, and small ones of random numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.architecture import expected_tensors, read_spec
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.unet import StyleUnet, UnetSpec
from tests.export.helpers import config_of, weights
from tests.parity import ParityCase

_Net = TypeVar("_Net", bound=nn.Module)


@dataclass(frozen=True)
class Inputs:
    """What a generator is given, as the published code has it.

    Attributes:
        image: (N,3,H,W), drawn for every pixel, known or not.
        mask: (N,1,H,W), 1 where the pixel is known.
        z: (N, z_channels).
        embedding: (N,C,H,W), 0 outside the body; None without a surface.
        body: (N,1,H,W), 1 on the body; None without a surface.
        border: (N,1,H,W), 1 where a pixel is neither known nor body; V-SAM only.
        vertices: (N,H,W), 0 outside the body; V-SAM only.
    """

    image: Tensor
    mask: Tensor
    z: Tensor
    embedding: Tensor | None = None
    body: Tensor | None = None
    border: Tensor | None = None
    vertices: Tensor | None = None

    def person(self, i: int) -> Inputs:
        """One person of the batch, as a batch of one."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        parts: dict[str, Any] = {name: part[i : i + 1] for name, part in given.items() if part is not None}
        return Inputs(**parts)

    def repainted(self) -> Inputs:
        """Other pixels where the mask hides them."""
        other = torch.from_numpy(random((*self.image.shape,), seed=99))
        return replace(self, image=torch.where(self.mask == 1, self.image, 5 * other))


def random(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inputs_of(case: ParityCase) -> Inputs:
    """Drawn in the order that the case's JSON says: image, z, embedding, vertices."""
    arrays, config = case.arrays, case.config
    rng = np.random.Generator(np.random.PCG64(case.spec["seed"]))
    height, width = config["imsize"]
    persons = case.spec["batch"]
    drawn: dict[str, NDArray[Any]] = {
        "image": rng.uniform(-1, 1, (persons, 3, height, width)).astype(np.float32),
        "z": rng.standard_normal((persons, config["z_channels"])).astype(np.float32),
        "mask": arrays["in/mask"].astype(np.float32),
    }
    np.testing.assert_array_equal(drawn["z"], arrays["in/z"])
    if "in/E_mask" in arrays:
        body = arrays["in/E_mask"]
        noise = rng.standard_normal((persons, config["cse_nc"], height, width)).astype(np.float32)
        drawn |= {"body": body.astype(np.float32), "embedding": noise * body}
    if "in/border" in arrays:
        drawn["border"] = arrays["in/border"].astype(np.float32)
        numbers = rng.integers(0, config["n_vertices"], (persons, 1, height, width)) * body
        drawn["vertices"] = numbers[:, 0].astype(np.int64)
    return Inputs(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in drawn.items()})


def unet_of(case: ParityCase) -> StyleUnet:
    """The U-Net of a case with its seeded weights."""
    spec = read_spec(case.shapes, config_of(case))
    assert isinstance(spec, UnetSpec)
    return _loaded(StyleUnet(spec), case, spec)


def surface_of(case: ParityCase) -> SurfaceUnet:
    """The V-SAM network of a case with its seeded weights."""
    spec = read_spec(case.shapes, config_of(case))
    assert isinstance(spec, SurfaceSpec)
    return _loaded(SurfaceUnet(spec), case, spec)


def _loaded(network: _Net, case: ParityCase, spec: UnetSpec | SurfaceSpec) -> _Net:
    given = weights(case)
    network.load_state_dict({name: given[name] for name in expected_tensors(spec)}, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def seeded(network: _Net, seed: int = 1) -> _Net:
    """Gives every parameter, and the buffers that are not filters, random numbers."""
    for i, (name, tensor) in enumerate(network.state_dict().items()):
        if not name.endswith("resample_filter"):
            tensor.copy_(torch.from_numpy(random(tuple(tensor.shape), 1000 * seed + i)))
    return network.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.from_numpy(random(shape, seed))


def run_unet(network: StyleUnet, inputs: Inputs, w: Tensor) -> Tensor:
    made: Tensor = network(inputs.image, inputs.mask, w, inputs.embedding, inputs.body)
    return made


def run_surface(network: SurfaceUnet, inputs: Inputs, gammas: list[Tensor]) -> Tensor:
    made: Tensor = network(inputs.image, inputs.mask, inputs.embedding, gammas)
    return made


def vertex_map(inputs: Inputs, vertices: int) -> Tensor:
    """The vertex of every pixel as the tables number them: K for known pixels, K + 1 for border pixels."""
    assert inputs.vertices is not None
    assert inputs.border is not None
    marked = torch.where(inputs.mask[:, 0] == 1, vertices, inputs.vertices)
    return torch.where(inputs.border[:, 0] == 1, vertices + 1, marked)


def see_under_the_mask(network: StyleUnet | SurfaceUnet, image: Tensor) -> None:
    """Undoes, for controls, the multiplication by the mask at the entrance of a network."""

    def unmasked(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (torch.cat([image, given[0][:, image.shape[1] :]], dim=1),)

    network.from_rgb.register_forward_pre_hook(unmasked)


@dataclass(frozen=True)
class Published:
    """An output of the published code.

    Attributes:
        values: as it was kept.
        truncation: what w was truncated with; 1 for not.
        step: every how many rows and columns were kept; 1 for images that were kept whole.
        centre: number of the cluster centre that w was truncated towards; None for the average.
    """

    values: Tensor
    truncation: float = 1.0
    step: int = 1
    centre: int | None = None


def published(case: ParityCase, pattern: str) -> list[Published]:
    """The outputs whose whole name matches, with the numbers of the groups `truncation`, `step` and `centre`.

    Raises:
        LookupError: There is none, which would let every test over them pass.
    """
    found = []
    for name, values in case.arrays.items():
        match = re.fullmatch(f"out/{pattern}", name)
        if match is None:
            continue
        groups = {key: text for key, text in match.groupdict().items() if text is not None}
        centre = int(groups["centre"]) if "centre" in groups else None
        numbers = float(groups.get("truncation", 1)), int(groups.get("step", 1)), centre
        found.append(Published(torch.from_numpy(values), *numbers))
    if not found:
        raise LookupError(f"no output {pattern!r} in the parity case {case.name}")
    return found


_NUMBER = r"\d+(?:\.\d+)?"
IMAGE = r"img(?:_lattice(?P<step>\d+))?"
TRUNCATED_IMAGE = rf"img_truncated_(?P<truncation>{_NUMBER})(?:_lattice(?P<step>\d+))?"
TRUNCATED_W = rf"w_truncated_(?P<truncation>{_NUMBER})"
MODAL_W = rf"w_multi_modal_(?P<truncation>{_NUMBER})_center(?P<centre>\d+)"
W_PER_VERTEX = r"w_vertices_every_(?P<step>\d+)"


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-3) -> None:
    """Largest difference at most `tolerance`, or that part of the expected values' deviation where it is above 1.

    At 1e-3 this is the tolerance of the parity cases for network outputs in float32.
    """
    assert found.shape == expected.shape
    difference = (found.double() - expected.double()).abs().max().item()
    limit = tolerance * max(1.0, expected.double().std(correction=0).item())
    assert difference <= limit, f"differs by {difference:.3g}, allowed are {limit:.3g}"


#: What half precision may change, in units of the expected deviation where that is above 1: typically, and at most.
#: Rounding nothing but the weights to float16 moves single pixels of the seeded networks by up to 1e-2 already.
HALF_TYPICAL, HALF_LARGEST = 5e-3, 5e-2


def assert_near_in_half(found: Tensor, expected: Tensor) -> None:
    """As float16 should be: close nearly everywhere, nowhere far, and not float32 by another name."""
    assert_near(found, expected, HALF_LARGEST)
    difference = found.double() - expected.double()
    typical = difference.square().mean().sqrt().item()
    assert typical <= HALF_TYPICAL * max(1.0, expected.double().std(correction=0).item())
    assert typical > 1e-5


def narrow(cases: list[ParityCase]) -> list[ParityCase]:
    """Those that a CPU computes in float16 within seconds: it takes a hundred times longer than in float32."""
    return [case for case in cases if case.config["cnum"] <= 16]
