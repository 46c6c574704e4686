"""Published checkpoints, from which `standin export` makes bundles: where they are and what makes them. Only data.

Standin fetches none of them: a checkpoint is an archive that its authors' links may or may not give out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Stands for the CSE checkpoint in a command.
SURFACE: Final = "CSE_CHECKPOINT"
#: What exporting needs beside the bundles' runtime.
NEEDS: Final = 'pip install "standin[export]"'


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One published checkpoint from which a bundle is made.

    Attributes:
        name: The bundle's name, which is also the verb of `standin export`.
        config: The declared config that belongs to it, as in `--config`; the same as the name where there is one only.
        about: One line for people.
        kinds: Which kinds of region it is about.
        url: Where its authors put it; dead links have been reported.
        md5: Of the file, where its authors give it.
        licence: Of the weights, as far as their authors say.
        command: What makes the bundle of it.
    """

    name: str
    config: str
    about: str
    kinds: tuple[str, ...]
    url: str
    md5: str | None = None
    licence: str
    command: str


_LINKS: Final = "https://api.loke.aws.unit.no/dlr-gui-backend-resources-content/v2/contents/links"
_COCO: Final = "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation"
_CSE: Final = "https://dl.fbaipublicfiles.com/densepose/cse"

# DeepPrivacy2's repository says: checkpoints follow the licence of the data sets. What follows is what those say.
_FLICKR: Final = "free for academic or open-source projects; its images are under CC BY, BY-SA, BY-NC and BY-NC-SA 2.0"
_FDH: Final = f"as its data set FDH (https://github.com/hukkelas/FDH): {_FLICKR}"
_FDF: Final = f"as its data set FDF (https://github.com/hukkelas/FDF): {_FLICKR}"
_FDF256: Final = (
    "as its data set FDF256 (https://github.com/hukkelas/FDF): "
    "free for academic or open-source projects; each image has a licence of its own"
)
_SG_GAN: Final = (
    "none stated for the weights (the code is MIT); trained on images of COCO, which stay under their authors' terms"
)
_DETECTRON2: Final = "CC BY-SA 3.0"


def _detector(name: str, config: str, about: str, url: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        config=config,
        about=about,
        kinds=("person",),
        url=url,
        licence=_DETECTRON2,
        command=f"standin export {name} --checkpoint FILE --config {config}",
    )


#: Of those with the same name, the first is what the published pipelines use.
_PUBLISHED: Final = (
    Checkpoint(
        name="dp2-person-cse",
        config="dp2-person-cse",
        about="DeepPrivacy2: generates persons from their dense pose",
        kinds=("person",),
        url=f"{_LINKS}/21841da7-2546-4ce3-8460-909b3a63c58b13aac1a1-c778-4c8d-9b69-3e5ed2cde9de1524e76e-7aa6-4dd8-b643-52abc9f0792c",
        md5="3411478b5ec600a4219cccf4499732bd",
        licence=_FDH,
        command=f"standin export dp2-person-cse --checkpoint FILE --surface {SURFACE}",
    ),
    Checkpoint(
        name="dp2-person",
        config="dp2-person",
        about="DeepPrivacy2: generates persons without dense pose",
        kinds=("person",),
        url="https://folk.ntnu.no/haakohu/checkpoints/deep_privacy2/fdh_styleganL_nocse.ckpt",
        md5="fda0d809741bc67487abada793975c37",
        licence=_FDH,
        command="standin export dp2-person --checkpoint FILE",
    ),
    Checkpoint(
        name="dp2-face",
        config="dp2-face",
        about="DeepPrivacy2: generates faces",
        kinds=("face",),
        url=f"{_LINKS}/89660f04-5c11-4dbf-adac-cbe2f11b0aeea25cbf78-7558-475a-b3c7-03f5c10b7934646b0720-ca0a-4d53-aded-daddbfa45c9e",
        md5="e8e32190528af2ed75f0cb792b7f2b07",
        licence=_FDF256,
        command="standin export dp2-face --checkpoint FILE",
    ),
    Checkpoint(
        name="dp2-face",
        config="dp2-face-128",
        about="DeepPrivacy2: generates faces, 128x128",
        kinds=("face",),
        url=f"{_LINKS}/66d803c0-55ce-44c0-9d53-815c2c0e6ba4eb458409-9e91-45d1-bce0-95c8a47a57218b102fdf-bea3-44dc-aac4-0fb1d370ef1c",
        md5="bccd4403e7c9bca682566ff3319e8176",
        licence=_FDF,
        command="standin export dp2-face --checkpoint FILE",
    ),
    Checkpoint(
        name="sg-gan",
        config="sg-gan",
        about="SG-GAN (config E): generates persons from their dense pose",
        kinds=("person",),
        url=f"{_LINKS}/2d550564-55f2-4492-96d5-5bdadbf8b69b8dc0aabb-b38a-47b0-8d4b-858f1bb9583af580023c-612e-4510-ba5c-3711dc9bbfa6",
        licence=_SG_GAN,
        # There is no md5 by which it could be recognised.
        command=f"standin export sg-gan --checkpoint FILE --config sg-gan --surface {SURFACE}",
    ),
    _detector(
        "maskrcnn",
        "mask_rcnn_X_101_32x8d_FPN_3x",
        "Mask R-CNN: finds persons and their outlines",
        f"{_COCO}/mask_rcnn_X_101_32x8d_FPN_3x/139653917/model_final_2d9806.pkl",
    ),
    _detector(
        "maskrcnn",
        "mask_rcnn_R_50_FPN_3x",
        "Mask R-CNN, smaller: finds persons and their outlines",
        f"{_COCO}/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl",
    ),
    _detector(
        "cse",
        "densepose_rcnn_R_101_FPN_DL_soft_s1x",
        "DensePose CSE: finds persons and their dense pose",
        f"{_CSE}/densepose_rcnn_R_101_FPN_DL_soft_s1x/250713061/model_final_1d3314.pkl",
    ),
    _detector(
        "cse",
        "densepose_rcnn_R_50_FPN_s1x",
        "DensePose CSE, smaller: finds persons and their dense pose",
        f"{_CSE}/densepose_rcnn_R_50_FPN_s1x/251155172/model_final_c4ea5f.pkl",
    ),
    Checkpoint(
        name="dsfd",
        config="dsfd",
        about="DSFD: a thorough, slow face detector",
        kinds=("face",),
        url=f"{_LINKS}/61be4ec7-8c11-4a4a-a9f4-827144e4ab4f0c2764c1-80a0-4083-bbfa-68419f889b80e4692358-979b-458e-97da-c1a1660b3314",
        licence="Apache-2.0",
        command="standin export dsfd --checkpoint FILE",
    ),
)


def checkpoints() -> dict[str, Checkpoint]:
    """Returns the checkpoint of every bundle that is made by `standin export`, by the bundle's name."""
    # Of equal keys a dict keeps the last.
    return {checkpoint.name: checkpoint for checkpoint in reversed(_PUBLISHED)}


def published(config: str) -> Checkpoint | None:
    """Returns the published checkpoint of a declared config; None where its authors gave none out."""
    return next((checkpoint for checkpoint in _PUBLISHED if checkpoint.config == config), None)


def how_to_make(name: str) -> str:
    """Says in one line what to get from where, and which command makes the bundle of it.

    Raises:
        KeyError: It is not made by `standin export`.
    """
    known = checkpoints()
    wanted = known[name]
    checked = f"md5 {wanted.md5}" if wanted.md5 else "unverified: its authors give no hash"
    surface = f" ({SURFACE} is {known['cse'].url})" if SURFACE in wanted.command else ""
    return f"get FILE from {wanted.url} ({checked}) and run: {wanted.command}{surface}; exporting needs: {NEEDS}"
