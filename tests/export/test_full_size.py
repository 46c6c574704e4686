"""Published networks at their full size, with random weights, through the command line as users call it.

The largest one, and the one of most levels. What they compute is compared with the published code in `models/`, and
what small ones compute after their export in `test_generators.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.bundle import Bundle, open_bundle
from export.configs import configs
from export.seeded import published_spec, random_network
from stream.generators.open import open_generator
from stream.latents import Latents
from tests.export.bundles import crops_of, embeddings_of, refused_by_tensorrt

NAMES = ("dp2-face", "sg-gan")
#: What a workstation with 8 GB can spare.
MOST_BYTES = 6e9
pytestmark = [pytest.mark.slow, pytest.mark.thorough]
#: Runs the command line as an installed `standin` does, then says on its last line how much memory it took at most
#: (getrusage would count what the process that started it held).
MEASURED = """
from pathlib import Path
from stream.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, int]:
    """A bundle, and how many bytes its export took."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    network = random_network(published_spec(configs()[name]))
    torch.save({"EMA_generator": network.state_dict()}, folder / "checkpoint.ckpt")
    del network
    options = ["--checkpoint", str(folder / "checkpoint.ckpt"), "--output", str(folder / "bundle"), "--config", name]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, "export", name, *options], capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stderr
    path, kibibytes = result.stdout.splitlines()
    return open_bundle(Path(path)), 1024 * int(kibibytes)


@pytest.mark.timeout(300)
def test_it_is_exported_and_verified_within_its_memory(exported: tuple[Bundle, int]) -> None:
    bundle, taken = exported
    assert {"mapping", "generator", "generator_fp16"} == set(bundle.manifest.graphs)
    assert {entry.graph for entry in bundle.manifest.parity} == set(bundle.manifest.graphs)
    assert taken < MOST_BYTES
    assert refused_by_tensorrt(bundle) == []


def test_its_stand_ins_fill_what_is_unknown_and_nothing_else(exported: tuple[Bundle, int]) -> None:
    bundle, _ = exported
    generation = bundle.manifest.generation
    assert generation is not None
    crops = crops_of(generation, tracks=(1, 2), looks=(1, 1))
    generator = open_generator(bundle, latents=Latents(seed=0), embeddings=embeddings_of(generation))
    try:
        generator.request(crops.track_ids)
        assert generator.wait(crops.track_ids, timeout=120).all()
        made = generator.generate(crops)
    finally:
        generator.close()
    assert made.done.all()
    known = np.broadcast_to(crops.known[:, None], made.output.shape)
    shown = (crops.images.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
    np.testing.assert_allclose(made.output[known], shown[known], atol=1e-6)
    # Two persons, one crop: other pixels where they are generated.
    assert np.abs(made.output[0] - made.output[1])[~known[0]].mean() > 1e-3
