"""Networks so small that a command trains them in no time, as words of a command line."""

from __future__ import annotations

DETECTOR = [
    "spec.widths=8,12,16,24,32",
    "spec.blocks=0,1,1,0",
    "spec.expansion=2",
    "spec.pyramid=16",
    "spec.fine=16",
    "spec.embedding=8",
    "size=64,96",
    "batch=2",
    "anchors=8",
]
GENERATOR = [
    "network.image_size=32,16",
    "network.w_channels=8",
    "network.hidden_channels=16",
    "network.widths=6,8,12",
    "network.middle_blocks=1",
    "discriminator.widths=6,8,12",
    "discriminator.pyramid=6",
    "batch=2",
    "appearance_steps=2",
    "average_draws=2",
    "workers=0",
    "losses.adversarial_after=2",
]


def settings(*words: str, of: str = "") -> list[str]:
    """Each as an option, for the training `of`."""
    return [part for word in words for part in ("--set", of + word)]
