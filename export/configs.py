"""Declared configs: what a generator's checkpoint does not show in its tensors. Only data, and how one is chosen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engines.checkpoints import published
from engines.errors import CheckpointError, UsageError
from export.checkpoint import require_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_DEEP_PRIVACY = "https://github.com/hukkelas/deep_privacy2"
_SG_GAN = "https://github.com/hukkelas/full_body_anonymization"


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
        conv_clamp: Bound of the activations, which float16 needs; None for none.
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
    conv_clamp: float | None = 256.0
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
        published: Whether the config's licence and sources are the file's own: it is the one that the config's authors
            published, by its hash, or the config was made for it.
    """

    config: Config
    published: bool


def _published(name: str) -> dict[str, Any]:
    """What is known of the published checkpoint that a config belongs to."""
    known = published(name)
    if known is None:
        raise LookupError(f"no published checkpoint belongs to the config {name!r}")
    return {
        "name": name,
        "export": known.name,
        "kinds": known.kinds,
        "md5": known.md5,
        "licence": known.licence,
        "sources": (known.url,),
    }


_CONFIGS: tuple[Config, ...] = (
    UnetConfig(
        **_published("dp2-person-cse"),
        image_size=(288, 160),
        levels=6,
        embedding_channels=16,
        homepage=_DEEP_PRIVACY,
    ),
    UnetConfig(**_published("dp2-person"), image_size=(288, 160), levels=6, homepage=_DEEP_PRIVACY, fix_errors=False),
    UnetConfig(**_published("dp2-face"), image_size=(256, 256), levels=6, homepage=_DEEP_PRIVACY),
    UnetConfig(**_published("dp2-face-128"), image_size=(128, 128), levels=5, homepage=_DEEP_PRIVACY),
    SurfaceConfig(**_published("sg-gan"), image_size=(288, 160), levels=4, embedding_channels=16, homepage=_SG_GAN),
    # The smaller network of the paper, whose weights were not published. What no tensor shows is the same; the name is
    # for the manifest.
    SurfaceConfig(
        **_published("sg-gan") | {"name": "sg-gan-d", "sources": ()},
        image_size=(288, 160),
        levels=4,
        embedding_channels=16,
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
