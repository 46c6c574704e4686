"""What network a checkpoint holds, read from the names and shapes of its tensors.

Every width is shown by several tensors. The one that most of them show counts, so that a single broken tensor
is named as such instead of making all others look wrong.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import torch

from engines.errors import CheckpointError
from export.checkpoint import shown
from export.configs import Config, SurfaceConfig, UnetConfig
from export.models.surface import SurfaceSpec, SurfaceUnet
from export.models.unet import StyleUnet, UnetSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Shape = tuple[int, ...]
Spec = UnetSpec | SurfaceSpec

#: No published network has more of anything that is counted by its tensors' names.
_MOST = 64
_IMAGE_CHANNELS: Final = 3
#: The first of f_w's combined layers and the last are special.
_FEWEST_COMBINED: Final = 2

_FAMILIES: Final = (
    (r"(?:.*\.)?embedder\.embedder_\w+\.", "detectron2's dense pose detector (CSE)"),
    (r"roi_heads\.mask_head\.", "detectron2's Mask R-CNN"),
    (r"(?:backbone|proposal_generator|roi_heads)\.", "a detector of detectron2"),
    (r"layer1\.0\.weight|conf\.\d+\.conv", "the face detector DSFD"),
    (r"layers\.\d+\.|output_layer\.|fpn_out\.", "a discriminator"),
    (r"(?!.*\bE_map\.)style_net\.dec_layers\.", "one of SG-GAN's ablations without V-SAM"),
)


def describe(names: Collection[str]) -> str:
    """Says in a few words what a network looks like, judging by its tensors' names."""
    if any(name.startswith("style_net.E_map.") for name in names):
        complete = any(name.startswith("from_rgb.") for name in names)
        return "SG-GAN with V-SAM" if complete else "an SG-GAN generator without encoder"
    if "decoder.0.conv0.affine.weight" in names or "style_net.fc0.weight" in names:
        return "DeepPrivacy2's style-based U-Net"
    for pattern, family in _FAMILIES:
        if any(re.match(pattern, name) for name in names):
            return family
    return "an unknown network"


def read_spec(shapes: Mapping[str, Shape], config: Config) -> Spec:
    """Reads widths, depths and counts from the tensors, and takes the rest from the config.

    Args:
        shapes: by tensor name, as published.
        config: what no tensor shows, and what the project's other parts rely on.

    Raises:
        CheckpointError: It is another network than the config's, a variant that is not supported, or its parts cannot
            belong together.
    """
    _refuse_others(shapes, config)
    encoder, decoder = _levels(shapes, "encoder"), _levels(shapes, "decoder")
    spec: Spec = (
        _unet(shapes, config, encoder, decoder)
        if isinstance(config, UnetConfig)
        else _surface(shapes, config, encoder, decoder)
    )
    _refuse_broken_chain(spec, config)
    return spec


def expected_tensors(spec: Spec) -> dict[str, Shape]:
    """Names and shapes of all tensors that a network of this spec has, as published."""
    with torch.device("meta"):
        network = SurfaceUnet(spec) if isinstance(spec, SurfaceSpec) else StyleUnet(spec)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def check_shapes(shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Makes sure that nothing is missing and nothing has another shape; what is left over is not looked at.

    Raises:
        CheckpointError: With the names, bounded in number.
    """
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise CheckpointError(
            f"it lacks {len(missing)} of {len(expected)} tensors: {shown(*missing)}; it is incomplete"
        )
    wrong = [f"{name} is {shapes[name]}, expected {shape}" for name, shape in expected.items() if shapes[name] != shape]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors have another shape: {shown(*wrong, most=3)}; it is another network"
        )


def _refuse_others(shapes: Mapping[str, Shape], config: Config) -> None:
    found = describe(shapes)
    wanted = "SG-GAN with V-SAM" if isinstance(config, SurfaceConfig) else "DeepPrivacy2's style-based U-Net"
    if found != wanted:
        raise CheckpointError(
            f"it looks like {found}, but {config.name} is {wanted}; give the checkpoint of {config.name}"
        )
    # These would be left over if they were not refused, and the rest would load and compute something else.
    unsupported = {
        "comod_block.": "co-modulation",
        "comod_fc.": "co-modulation",
        "z_projector.": "z added to the features (SG-GAN's configs A to C)",
        "style_net.mid_layers.": "modulated middle blocks",
        "style_net.enc_layers.": "a modulated encoder",
    }
    for prefix, what in unsupported.items():
        if any(name.startswith(prefix) for name in shapes):
            raise CheckpointError(
                f"it has {what}, which is not supported (tensors {prefix}*); give {config.name}'s own"
            )
    if any(name.endswith(".noise_strength") for name in shapes):
        raise CheckpointError(f"it adds noise per layer, which is not supported; give the checkpoint of {config.name}")


def _unet(shapes: Mapping[str, Shape], config: UnetConfig, encoder: _Pairs, decoder: _Pairs) -> UnetSpec:
    first = shapes.get("from_rgb.weight", ())
    surface = config.embedding_channels
    if len(first) == 4 and first[1] != _inputs(surface) and first[1] in (_inputs(0), _inputs(16)):
        has, wants = ("a", "none") if first[1] != _inputs(0) else ("no", "one")
        raise CheckpointError(
            f"it looks like DeepPrivacy2's U-Net with {has} surface embedding at its input, but {config.name} has "
            f"{wants}; choose the config that the checkpoint was trained with"
        )
    depth = _count(shapes, r"style_net\.fc(\d+)\.")
    if not depth:
        raise CheckpointError("it lacks the mapping network (style_net.fc*); it is incomplete")
    w = _vote(
        shapes,
        *((f"style_net.fc{i}.{part}", 0) for i in range(depth) for part in ("weight", "bias")),
        ("style_net.w_avg", 0),
        *((f"decoder.{i}.conv0.affine.weight", 1) for i in range(len(decoder))),
    )
    return UnetSpec(
        image_size=config.image_size,
        image_channels=_IMAGE_CHANNELS,
        z_channels=config.z_channels,
        w_channels=w,
        mapping_layers=depth,
        embedding_channels=surface,
        encoder=encoder,
        decoder=decoder,
        middle_blocks=_count(shapes, r"middle_blocks\.(\d+)\."),
        fix_errors=config.fix_errors,
        conv_clamp=config.conv_clamp,
    )


def _inputs(embedding_channels: int) -> int:
    return _IMAGE_CHANNELS + 1 + (embedding_channels + 1 if embedding_channels else 0)


def _surface(shapes: Mapping[str, Shape], config: SurfaceConfig, encoder: _Pairs, decoder: _Pairs) -> SurfaceSpec:
    at = "style_net.E_map."
    counts = {part: _count(shapes, rf"style_net\.E_map\.{part}(\d+)\.") for part in ("fromE", "fromZ", "fc")}
    if not counts["fromZ"]:
        raise CheckpointError("its z does not enter the mapping network (SG-GAN's config C), which is not supported")
    if not counts["fromE"] or counts["fc"] < _FEWEST_COMBINED:
        raise CheckpointError(
            f"its mapping network has {counts['fromE']} fromE* and {counts['fc']} fc* layers, expected at least 1 and "
            f"{_FEWEST_COMBINED}; it is incomplete, or an ablation of SG-GAN, which is not supported"
        )
    widths = [width for pair in decoder for width in pair]
    mlps = [shapes.get(f"style_net.dec_layers.{i}.mlp.weight", (0,))[:1] for i in range(len(widths))]
    if mlps == [(2 * width,) for width in widths]:
        raise CheckpointError("its modulation has a shift beside the scale (only_gamma off), which is not supported")
    last = counts["fc"] - 1
    hidden = [(f"{at}fromE{i}.{part}", 0) for i in range(counts["fromE"]) for part in ("weight", "bias")]
    hidden += [(f"{at}fc{i}.{part}", 0) for i in range(last) for part in ("weight", "bias")]
    w = [(f"{at}{layer}{last}.{part}", 0) for layer in ("fc", "residual") for part in ("weight", "bias")]
    w += [(f"style_net.dec_layers.{i}.mlp.weight", 1) for i in range(len(widths))]
    return SurfaceSpec(
        image_size=config.image_size,
        image_channels=_IMAGE_CHANNELS,
        z_channels=config.z_channels,
        w_channels=_vote(shapes, *w, (f"{at}w_avg", 1)),
        hidden_channels=_vote(shapes, *hidden),
        vertices=_vote(shapes, (f"{at}E", 0), (f"{at}w_avg", 0)),
        embedding_channels=config.embedding_channels,
        embedding_layers=counts["fromE"],
        z_layers=counts["fromZ"],
        combined_layers=counts["fc"],
        encoder=encoder,
        decoder=decoder,
        middle_blocks=_count(shapes, r"middle_blocks\.(\d+)\."),
        conv_clamp=config.conv_clamp,
    )


_Pairs = tuple[tuple[int, int], ...]


def _levels(shapes: Mapping[str, Shape], part: str) -> _Pairs:
    """Channels in and out of each level."""
    pairs = []
    for i in range(_count(shapes, rf"{part}\.(\d+)\.")):
        at = f"{part}.{i}"
        inputs = [(f"{at}.conv0.weight", 1), (f"{at}.skip.weight", 1)]
        outputs = [(f"{at}.{name}", 0) for name in ("conv0.weight", "conv1.weight", "skip.weight", "conv0.bias")]
        if i:
            inputs += [(f"{part}.{i - 1}.conv1.weight", 0)]
        elif part == "encoder":
            inputs += [("from_rgb.weight", 0)]
        else:
            deepest = _count(shapes, r"encoder\.(\d+)\.") - 1
            inputs += [(f"encoder.{deepest}.conv1.weight", 0)]
        pairs.append((_vote(shapes, *inputs), _vote(shapes, *outputs, (f"{at}.conv1.weight", 1))))
    return tuple(pairs)


def _refuse_broken_chain(spec: Spec, config: Config) -> None:
    """Checks what no single tensor shows: that each level takes what the one before it gives."""
    if len(spec.encoder) != config.levels or len(spec.decoder) != config.levels:
        height, width = config.image_size
        raise CheckpointError(
            f"it has {len(spec.encoder)} encoder and {len(spec.decoder)} decoder levels, but {config.name} has "
            f"{config.levels} for images of {height}x{width}; choose the config that it was trained with"
        )
    if any(side % 2 ** (config.levels - 1) for side in config.image_size):
        raise CheckpointError(f"images of {config.image_size} cannot be halved {config.levels - 1} times")
    chain = [*spec.encoder, *spec.decoder]
    for (_, gives), (takes, _) in itertools.pairwise(chain):
        if gives != takes:
            raise CheckpointError(f"its levels do not fit together: one gives {gives} channels, the next takes {takes}")
    # What the encoder hands over beside the decoder's own path must have the same width.
    for i, (takes, _) in enumerate(spec.decoder[1:], start=1):
        if spec.encoder[-1 - i][1] != takes:
            raise CheckpointError(
                f"its levels do not fit together: decoder.{i} takes {takes} channels, "
                f"encoder.{config.levels - 1 - i} gives {spec.encoder[-1 - i][1]}"
            )


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """How many numbered parts there are; if one is missing between them, it is counted, to be missed by name later."""
    found = [int(match[1]) for name in shapes if (match := re.match(pattern, name)) and len(match[1]) < 5]
    count = max(found, default=-1) + 1
    if count > _MOST:
        raise CheckpointError(f"it numbers a part {count - 1}, expected at most {_MOST - 1}; it is no such network")
    return count


def _vote(shapes: Mapping[str, Shape], *witnesses: tuple[str, int]) -> int:
    """The width that most tensors show, each on the axis that is given with it."""
    votes = Counter(
        shapes[name][axis]
        for name, axis in witnesses
        if name in shapes and len(shapes[name]) > axis and shapes[name][axis]
    )
    if not votes:
        names = ", ".join(dict.fromkeys(name for name, _ in witnesses[:4]))
        raise CheckpointError(f"it lacks the tensors that show a width: {names}; it is incomplete")
    return votes.most_common(1)[0][0]
