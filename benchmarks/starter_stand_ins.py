"""A picture of stand-ins: people whom no training saw, what the generator sees of them, and each z in all their poses.

    python benchmarks/starter_stand_ins.py [--generator DIR] [--output docs/images/starter-stand-ins.jpg]

Everything goes through the bundle as in a run. Masks hide more than the body, as a run's do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.starter_generator import generate, held_out_crops, on_bundle, pixels
from engines.bundle import Bundle
from engines.store import Store, home
from export.starter.body import load_body
from export.starter.crop_batches import PLAIN, Batch, make_batch
from export.starter.crops import CropSet
from export.starter.stages import BODY
from stream.presets import find_preset

_SEED: Final = 77_000_003
#: People, and z.
COLUMNS, ROWS = 12, 8
_MASKS: Final = replace(PLAIN, dilation=(1.0, 3.0))
_TRUNCATION: Final[float] = find_preset("starter").settings["truncation"]


def poses(crops: CropSet, canonical: npt.NDArray[np.float32], bundle: Bundle, count: int = COLUMNS) -> Batch:
    """Some of the people, masked, on the bundle's vertices."""
    generation = bundle.manifest.generation
    assert generation is not None
    chosen = np.random.default_rng(_SEED).choice(len(crops), count, replace=False).tolist()
    itself = np.arange(len(canonical), dtype=np.int16)[:, None]
    made = make_batch(crops, chosen, itself, _MASKS, generation.z_channels, np.random.default_rng(_SEED))
    return on_bundle(bundle, canonical, made)


def sheet(bundle: Bundle, batch: Batch) -> Image.Image:
    """People, what is seen of them, and a row for each z."""
    image, mask = batch.image.numpy(), batch.mask.numpy()
    drawn = np.random.default_rng(_SEED).standard_normal((ROWS, batch.z.shape[1])).astype(np.float32)
    made = (generate(bundle, batch, z[None].repeat(len(image), axis=0), truncation=_TRUNCATION) for z in drawn)
    rows = [pixels(image), pixels(image * mask), *made]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))


def main() -> None:
    """Draw people, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, help="a bundle (default: the preset's)")
    parser.add_argument("--output", type=Path, default=Path("docs/images/starter-stand-ins.jpg"))
    options = parser.parse_args()
    bundle = Store(home()).find(str(options.generator or find_preset("starter").generators["person-cse"]))
    generation = bundle.manifest.generation
    assert generation is not None
    with tempfile.TemporaryDirectory() as folder:
        crops = held_out_crops(Path(folder), BODY, 4 * COLUMNS, generation.image_size, seed=_SEED)
        sheet(bundle, poses(crops, load_body(BODY).canonical, bundle)).save(options.output, quality=90)
    print(options.output)


if __name__ == "__main__":
    main()
