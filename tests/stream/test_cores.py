from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.runtime import Device
from stream.config import AnonymizerSettings
from stream.cores import frames_painted_at_once, share_cores, share_cores_of_crops
from tests.detector_bundles import FACES, PERSONS, write_one_stage, write_two_stage
from tests.generator_bundles import write_unet


def detectors(folder: Path) -> tuple[Bundle, Bundle, Bundle]:
    small = write_two_stage(folder / "small", "mask-rcnn", PERSONS, longest=512)
    large = write_two_stage(folder / "large", "mask-rcnn", PERSONS, longest=1333)
    return write_one_stage(folder / "single", FACES), small, large


def test_only_large_detectors_have_all_cores_for_one_frame(tmp_path: Path) -> None:
    single, small, large = detectors(tmp_path)
    two = AnonymizerSettings(threads=2)
    assert share_cores(two, [single, small]) == (2, 1)
    assert share_cores(two, [single, large]) == (1, 2)
    assert share_cores(AnonymizerSettings(), [large]) == (1, None)
    assert share_cores(AnonymizerSettings(threads=12), [single]) == (4, 3)


def test_all_cores_that_the_process_may_use_count(tmp_path: Path) -> None:
    single, _, _ = detectors(tmp_path)
    cores = len(os.sched_getaffinity(0))
    frames, threads = share_cores(AnonymizerSettings(), [single])
    assert threads is not None
    assert frames == min(4, cores)
    assert frames * threads <= cores


def test_other_devices_share_what_they_have_themselves(tmp_path: Path) -> None:
    single, _, _ = detectors(tmp_path)
    assert share_cores(AnonymizerSettings(device="openvino", threads=3), [single]) == (1, 3)


@pytest.mark.parametrize(
    ("device", "threads", "size", "shared"),
    [
        ("cpu", 4, (144, 80), (4, 1)),
        ("cpu", 1, (144, 80), (1, 1)),
        ("cpu", 0, (144, 80), (1, 0)),
        ("cpu", 4, (288, 160), (1, 4)),
        ("cpu", None, (288, 160), (1, None)),
        ("cuda", 4, (144, 80), (1, 4)),
    ],
)
def test_small_crops_share_the_cores_rather_than_one_crop_s_operators(
    device: Device, threads: int | None, size: tuple[int, int], shared: tuple[int, int | None]
) -> None:
    assert share_cores_of_crops(device, threads, size) == shared
    assert share_cores_of_crops("cpu", None, (144, 80))[0] >= 1


def test_frames_are_painted_side_by_side_unless_one_crop_keeps_all_cores_busy(tmp_path: Path) -> None:
    small, large = write_unet(tmp_path / "small"), write_unet(tmp_path / "large", image_size=(288, 160))
    assert frames_painted_at_once(AnonymizerSettings(threads=3), []) == 3
    assert frames_painted_at_once(AnonymizerSettings(threads=12), [small]) == 4
    assert frames_painted_at_once(AnonymizerSettings(threads=3), [small, large]) == 1
    assert frames_painted_at_once(AnonymizerSettings(device="openvino", threads=3), [small]) == 2
    assert frames_painted_at_once(AnonymizerSettings(device="openvino", threads=3), [large]) == 1
    assert frames_painted_at_once(AnonymizerSettings(device="cuda", threads=3), [small, large]) == 4
    assert frames_painted_at_once(AnonymizerSettings(), [small]) == min(4, len(os.sched_getaffinity(0)))
