"""Declared configs: what a generator's checkpoint does not show in its tensors. Only data, and how one is chosen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from engines.errors import CheckpointError, UsageError
from export.checkpoint import require_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DEEP_PRIVACY = "https://github.com/hukkelas/deep_privacy2"
_SG_GAN = "https://github.com/hukkelas/full_body_anonymization"
_LINKS = "https://api.loke.aws.unit.no/dlr-gui-backend-resources-content/v2/contents/links"

# The repository says: checkpoints follow the licence of the data sets. What follows is what the data sets say.
_FLICKR = "free for academic or open-source projects; its images are under CC BY, BY-SA, BY-NC and BY-NC-SA 2.0"
_FDH_LICENCE = f"as its data set FDH (https://github.com/hukkelas/FDH): {_FLICKR}"
_FDF_LICENCE = f"as its data set FDF (https://github.com/hukkelas/FDF): {_FLICKR}"
_FDF256_LICENCE = (
    "as its data set FDF256 (https://github.com/hukkelas/FDF): "
    "free for academic or open-source projects; each image has a licence of its own"
)
_SG_GAN_LICENCE = (
    "none stated for the weights (the code is MIT); trained on images of COCO, which stay under their authors' terms"
)


@dataclass(frozen=True, kw_only=True)
class _Declared:
    """What the configs of both architectures have.

    Attributes:
        name: As in `--config NAME`.
        export: The verb of `standin export` that it belongs to, which is also the bundle's name.
        image_size: Height and width in pixels.
        levels: Resolutions between the finest and the coarsest, both included; each halves the one before.
        z_channels: Length of the latent z.
        embedding_channels: Channels of the surface embedding at the input; 0 where there is none.
        conv_clamp: Bound of the activations.
        kinds: What is generated.
        md5: Of the published file, where its authors give it.
        licence: Of the published weights, as far as their authors say.
        homepage: Where they describe it.
        sources: Where they put it; dead links have been reported.
    """

    name: str
    export: str
    image_size: tuple[int, int]
    levels: int
    z_channels: int = 512
    embedding_channels: int = 0
    conv_clamp: float = 256.0
    kinds: tuple[str, ...]
    md5: str | None = None
    licence: str
    homepage: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UnetConfig(_Declared):
    """DeepPrivacy2's style-based U-Net.

    Attributes:
        fix_errors: Whether it was trained with the published corrections of the residual gains.
    """

    architecture: ClassVar[Literal["style-unet"]] = "style-unet"
    fix_errors: bool = True


@dataclass(frozen=True, kw_only=True)
class SurfaceConfig(_Declared):
    """SG-GAN with V-SAM: normalisation by the standard deviation, residual skips, mask in the output."""

    architecture: ClassVar[Literal["v-sam"]] = "v-sam"


Config = UnetConfig | SurfaceConfig


@dataclass(frozen=True)
class Choice:
    """The config that goes with a checkpoint.

    Attributes:
        config: What no tensor shows.
        published: Whether the file is the one that the config's authors published, by its hash.
    """

    config: Config
    published: bool


_CONFIGS: tuple[Config, ...] = (
    UnetConfig(
        name="dp2-person-cse",
        export="dp2-person-cse",
        image_size=(288, 160),
        levels=6,
        embedding_channels=16,
        kinds=("person",),
        md5="3411478b5ec600a4219cccf4499732bd",
        licence=_FDH_LICENCE,
        homepage=_DEEP_PRIVACY,
        sources=(
            f"{_LINKS}/21841da7-2546-4ce3-8460-909b3a63c58b13aac1a1-c778-4c8d-9b69-3e5ed2cde9de1524e76e-7aa6-4dd8-b643-52abc9f0792c",
        ),
    ),
    UnetConfig(
        name="dp2-person",
        export="dp2-person",
        image_size=(288, 160),
        levels=6,
        kinds=("person",),
        md5="fda0d809741bc67487abada793975c37",
        licence=_FDH_LICENCE,
        homepage=_DEEP_PRIVACY,
        sources=("https://folk.ntnu.no/haakohu/checkpoints/deep_privacy2/fdh_styleganL_nocse.ckpt",),
        fix_errors=False,
    ),
    UnetConfig(
        name="dp2-face",
        export="dp2-face",
        image_size=(256, 256),
        levels=6,
        kinds=("face",),
        md5="e8e32190528af2ed75f0cb792b7f2b07",
        licence=_FDF256_LICENCE,
        homepage=_DEEP_PRIVACY,
        sources=(
            f"{_LINKS}/89660f04-5c11-4dbf-adac-cbe2f11b0aeea25cbf78-7558-475a-b3c7-03f5c10b7934646b0720-ca0a-4d53-aded-daddbfa45c9e",
        ),
    ),
    UnetConfig(
        name="dp2-face-128",
        export="dp2-face",
        image_size=(128, 128),
        levels=5,
        kinds=("face",),
        md5="bccd4403e7c9bca682566ff3319e8176",
        licence=_FDF_LICENCE,
        homepage=_DEEP_PRIVACY,
        sources=(
            f"{_LINKS}/66d803c0-55ce-44c0-9d53-815c2c0e6ba4eb458409-9e91-45d1-bce0-95c8a47a57218b102fdf-bea3-44dc-aac4-0fb1d370ef1c",
        ),
    ),
    SurfaceConfig(
        name="sg-gan",
        export="sg-gan",
        image_size=(288, 160),
        levels=4,
        embedding_channels=16,
        kinds=("person",),
        licence=_SG_GAN_LICENCE,
        homepage=_SG_GAN,
        sources=(
            f"{_LINKS}/2d550564-55f2-4492-96d5-5bdadbf8b69b8dc0aabb-b38a-47b0-8d4b-858f1bb9583af580023c-612e-4510-ba5c-3711dc9bbfa6",
        ),
    ),
    # The smaller network of the paper, whose weights were not published. What no tensor shows is the same; the name is
    # for the manifest.
    SurfaceConfig(
        name="sg-gan-d",
        export="sg-gan",
        image_size=(288, 160),
        levels=4,
        embedding_channels=16,
        kinds=("person",),
        licence=_SG_GAN_LICENCE,
        homepage=_SG_GAN,
    ),
)


def configs(export: str | None = None) -> dict[str, Config]:
    """Returns the declared configs by name: all, or those of one verb of `standin export`."""
    return {config.name: config for config in _CONFIGS if export in (None, config.export)}


def choose_config(
    export: str, path: Path, config_name: str | None = None, table: Mapping[str, Config] | None = None
) -> Choice:
    """Finds out which declared config a checkpoint was trained with.

    A published file is recognised by its hash. Any other file, such as one's own training, needs a name: two networks
    that differ in what no tensor shows would load alike, and one of them would generate rubbish.

    Args:
        export: The verb of `standin export`.
        path: The checkpoint.
        config_name: What was given as `--config`.
        table: Where to look; the declared configs if not given.

    Raises:
        CheckpointError: There is no such file.
        UsageError: No such verb or config, they do not fit each other or the file, or the file is unknown and no config
            was given.
    """
    table = configs() if table is None else table
    fitting = {name: config for name, config in table.items() if config.export == export}
    if not fitting:
        verbs = ", ".join(dict.fromkeys(config.export for config in table.values()))
        raise UsageError(f"no generator named {export!r} can be exported; known are: {verbs}")
    require_file(path)
    if config_name is not None and config_name not in fitting:
        hint = f"it belongs to: standin export {table[config_name].export}; " if config_name in table else ""
        raise UsageError(f"--config {config_name} does not fit {export!r}; {hint}choose from: {', '.join(fitting)}")
    known = _recognise(path, table)
    if known is None:
        if config_name is None:
            raise UsageError(
                f"{path} is none of the published files, so its settings cannot be known; "
                f"say which it was trained with: --config NAME, with NAME from: {', '.join(fitting)}"
            )
        return Choice(fitting[config_name], published=False)
    if known.name not in fitting:
        raise UsageError(f"{path} is the published {known.name}; export it with: standin export {known.export}")
    if config_name not in (None, known.name):
        raise UsageError(f"{path} is the published {known.name}, not {config_name}; leave --config away")
    return Choice(known, published=True)


def _recognise(path: Path, table: Mapping[str, Config]) -> Config | None:
    """The config of a published file, by its hash; None for any other file."""
    try:
        with path.open("rb") as stream:
            # The authors published md5 sums only. Nothing is trusted for it: it picks the settings.
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); check the file") from None
    return next((config for config in table.values() if config.md5 == found), None)
