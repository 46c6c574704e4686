from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export.starter.generator_network import new_network
from export.starter.generator_sheets import draw_sheet, pick_poses, write_sheet
from tests.export.starter.made_people import NETWORK, SIZE, crops, surface


def test_rows_are_looks_and_columns_poses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = new_network(NETWORK, surface().embeddings)
    given = crops(tmp_path / "crops", 6)
    poses = pick_poses(given, 3, NETWORK.z_channels, seed=2)
    z = torch.randn(2, NETWORK.z_channels)
    sheet = draw_sheet(network, torch.from_numpy(surface().embeddings), poses, z)
    height, width = SIZE
    assert sheet.shape == (4 * height, 3 * width, 3)
    cells = sheet.reshape(4, height, 3, width, 3).transpose(0, 2, 1, 3, 4)
    true = np.rint((poses.image.permute(0, 2, 3, 1).numpy() + 1) * 127.5)
    np.testing.assert_array_equal(cells[0], true)
    body = poses.body[:, 0].numpy() > 0
    assert (cells[1][body] == 128).all()
    known = poses.mask[:, 0].numpy() > 0
    assert (cells[2][known] == true[known]).all()
    assert (cells[2][body] != cells[3][body]).any()
    write_sheet(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as image:
        np.testing.assert_array_equal(np.asarray(image), sheet)
