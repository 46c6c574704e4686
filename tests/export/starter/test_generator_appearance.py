"""f_w learns colours by itself."""

from pathlib import Path

import pytest
import torch

from export.starter.generator_appearance import learn_appearance
from export.starter.generator_network import new_network
from tests.export.starter.made_people import NETWORK, crops, surface

pytestmark = pytest.mark.usefixtures("one_thread")


def test_colours_follow_z_and_place(tmp_path: Path) -> None:
    given = crops(tmp_path, 30)
    f_w = new_network(NETWORK, surface().embeddings).style_net.E_map
    torch.manual_seed(0)
    first = learn_appearance(f_w, given, 5)
    assert learn_appearance(f_w, given, 300) < 0.4 * first


def test_the_same_seed_learns_the_same(tmp_path: Path) -> None:
    given = crops(tmp_path, 4)
    errors = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        f_w = new_network(NETWORK, surface().embeddings).style_net.E_map
        errors.append(learn_appearance(f_w, given, 3, seed=seed))
    assert errors[0] == errors[1] != errors[2]
