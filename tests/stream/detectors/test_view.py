from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from skimage import data

from engines.bundle import Bundle
from engines.manifest import Normalisation
from engines.runtime import open_runtime
from stream.colour import ColourTags
from stream.config import RunSettings
from stream.detectors.pictures import Form, HostPictures
from stream.detectors.single_stage import SingleStageDetector
from stream.detectors.view import Shown, normalised, show_limited, tone_curve
from stream.frame import Frame, Image, Transfer
from stream.orientation import Orientation
from stream.regions import Regions
from stream.run import run
from tests.media import display_matrix, noise, picture, read_clip, stored_picture, write_clip

Floats = npt.NDArray[np.float64]

SIDE = 384
#: Where the astronaut's face is, of a side of 512: forehead to chin, ear to ear.
FACE = np.array([188, 64, 264, 172]) / 512
MAGENTA = (255, 0, 255)


def astronaut(width: int = SIDE, height: int = SIDE) -> Image:
    whole = data.astronaut()  # type: ignore[no-untyped-call]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def face_of(width: int, height: int) -> list[int]:
    return [round(v) for v in FACE * [width, height, width, height]]


def form(multiple: int = 32, size: tuple[int, int] | None = None) -> Form:
    """Pictures whose numbers are levels."""
    normal = Normalisation(colour="rgb", mean=(0, 0, 0), std=(1, 1, 1), multiple=multiple)
    return Form(normal, size, one_stage=True)


def seen(
    frame: Frame, longest: int, multiple: int = 32, size: tuple[int, int] | None = None, *, stretch: bool = False
) -> tuple[Shown, Image]:
    """How large a detector sees a frame, and the padded picture."""
    shown = show_limited(frame, longest, size, stretch=stretch)
    made = HostPictures(form(multiple, size)).make(frame, shown)
    return shown, made[0].transpose(1, 2, 0).astype(np.uint8)


# --- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "aspect", "stretch", "inside"),
    [
        ((640, 480), Fraction(1), False, (128, 96)),
        ((1080, 1920), Fraction(1), False, (54, 96)),
        ((40, 40), Fraction(1), False, (96, 96)),
        ((1, 900), Fraction(1), False, (1, 96)),
        ((96, 72), Fraction(4, 3), False, (128, 72)),
        ((640, 480), Fraction(1), True, (128, 96)),
        ((33, 700), Fraction(2), True, (128, 96)),
        ((128, 96), Fraction(1), True, (128, 96)),
    ],
)
def test_a_view_of_fixed_size_holds_the_whole_frame(
    size: tuple[int, int], aspect: Fraction, stretch: bool, inside: tuple[int, int]
) -> None:
    width, height = size
    frame = Frame(np.full((height, width, 3), 200, np.uint8), pixel_aspect=aspect)
    view, made = seen(frame, 10, size=(96, 128), stretch=stretch)
    assert made.shape == (96, 128, 3)
    assert (view.width, view.height) == inside
    assert (made[: view.height, : view.width] == 200).all()
    assert not made[view.height :].any()
    assert not made[:, view.width :].any()
    corner = np.array([[view.width, view.height, view.width, view.height]], np.float32)
    np.testing.assert_allclose(view.to_frame(corner)[0], [width, height, width, height], rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "aspect", "longest", "expected"),
    [
        ((640, 480), Fraction(1), 1280, (640, 480)),
        ((1920, 1080), Fraction(1), 1280, (1280, 720)),
        ((1080, 1920), Fraction(1), 640, (360, 640)),
        ((720, 576), Fraction(16, 15), 1280, (768, 576)),
        ((720, 480), Fraction(8, 9), 1280, (720, 540)),
        ((960, 1080), Fraction(2), 1280, (1280, 720)),
        ((64, 48), Fraction(1, 2), 1280, (64, 96)),
        ((1, 1), Fraction(1), 32, (1, 1)),
        ((5000, 2), Fraction(1), 100, (100, 1)),
    ],
)
def test_the_view_has_square_pixels_and_a_limited_side(
    size: tuple[int, int], aspect: Fraction, longest: int, expected: tuple[int, int]
) -> None:
    view = show_limited(Frame(picture(*size), pixel_aspect=aspect), longest)
    assert (view.width, view.height) == expected


@pytest.mark.parametrize("multiple", [1, 16, 32])
@pytest.mark.parametrize("size", [(64, 48), (101, 75), (33, 1)])
def test_padding_is_black_below_and_to_the_right(size: tuple[int, int], multiple: int) -> None:
    view, made = seen(Frame(np.full((size[1], size[0], 3), 200, np.uint8)), 1280, multiple)
    height, width = made.shape[:2]
    assert height % multiple == width % multiple == 0
    assert 0 <= height - view.height < multiple
    assert 0 <= width - view.width < multiple
    assert (made[: view.height, : view.width] == 200).all()
    assert not made[view.height :].any()
    assert not made[:, view.width :].any()


def test_a_picture_that_fits_is_seen_as_it_is() -> None:
    image = noise(1, 64, 32)[0]
    assert np.array_equal(seen(Frame(image), 64)[1], image)


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(2), Fraction(1, 2), Fraction(16, 15)])
@pytest.mark.parametrize("size", [(640, 480), (101, 75), (1920, 1080)])
@pytest.mark.parametrize("longest", [320, 1280])
def test_to_frame_is_the_inverse_of_the_scaling(size: tuple[int, int], aspect: Fraction, longest: int) -> None:
    width, height = size
    view = show_limited(Frame(picture(width, height), pixel_aspect=aspect), longest)
    corners = np.array([[0, 0, view.width, view.height]], np.float32)
    assert view.to_frame(corners)[0].tolist() == pytest.approx([0, 0, width, height])
    assert view.to_frame(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(2), Fraction(1, 2)])
def test_what_is_seen_at_a_place_is_what_is_there_in_the_frame(aspect: Fraction) -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    image[60:120, 80:200] = 255
    view, made = seen(Frame(image, pixel_aspect=aspect), 200)
    ys, xs = np.nonzero(made[..., 0] > 127)
    there = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    tolerance = 1 / min(view.scale_x, view.scale_y)
    assert view.to_frame(there)[0] == pytest.approx([80, 60, 200, 120], abs=tolerance)


def test_the_blob_is_normalised_by_channel_and_keeps_rgb_order() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[...] = (10, 20, 30)
    assert normalised(image, (0, 0, 0), (1, 1, 1), (32, 32))[0, :, 0, 0].tolist() == [10, 20, 30]
    assert normalised(image, (10, 10, 10), (1, 2, 4), (32, 32))[0, :, 5, 5].tolist() == [0, 5, 5]
    assert normalised(image, (0, 0, 0), (1, 1, 1), (32, 32)).shape == (1, 3, 32, 32)


def test_padding_is_black_or_nothing() -> None:
    image = np.full((10, 20, 3), 7, np.uint8)
    for black, padding in ((False, 0.0), (True, -5.0)):
        blob = normalised(image, (10, 10, 10), (2, 2, 2), (16, 32), black=black)
        assert (blob[..., :10, :20] == -1.5).all()
        assert (blob[..., 10:, :] == padding).all()
        assert (blob[..., 20:] == padding).all()


def test_the_frame_is_left_alone() -> None:
    image = noise(1, 50, 40)[0]
    before = image.copy()
    for transfer in Transfer:
        for aspect in (1, 2):
            frame = Frame(image, transfer=transfer, pixel_aspect=Fraction(aspect))
            HostPictures(form()).make(frame, show_limited(frame, 32 * aspect * aspect))[...] = 7
    assert np.array_equal(image, before)


# --- high dynamic range -----------------------------------------------------------------------------------------------


def pq_of(nits: Floats) -> Floats:
    """SMPTE ST 2084, inverse EOTF, equation 5.2."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = np.clip(nits / 10_000, 0, 1) ** m1
    return np.asarray(((c1 + c2 * power) / (1 + c3 * power)) ** m2)


def hlg_of(scene: Floats) -> Floats:
    """ARIB STD-B67 OETF, scene light 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def light_of(image: Image) -> Floats:
    """Linear light in BT.2020 primaries (ITU-R BT.2087), 1 is white."""
    linear = (image / 255) ** 2.2
    matrix = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    return np.asarray(linear @ matrix.T)


def test_an_ordinary_picture_is_not_changed_by_its_curve() -> None:
    assert tone_curve(Transfer.NORMAL).tolist() == list(range(256))


@pytest.mark.parametrize("transfer", [Transfer.PQ, Transfer.HLG])
def test_curves_rise_from_black_to_white(transfer: Transfer) -> None:
    curve = tone_curve(transfer).astype(int)
    assert curve.shape == (256,)
    assert curve[0] == 0
    assert curve[-1] == 255
    assert (np.diff(curve) >= 0).all()


def test_reference_white_becomes_a_bright_but_not_burnt_out_value() -> None:
    """Half of the light (Reinhard) with a gamma of 2.2, for BT.2408's reference white: 203 nits, 75 % in HLG."""
    middle = 255 * (0.5 * (1 + (203 / 1000) ** 2)) ** (1 / 2.2)
    assert tone_curve(Transfer.PQ)[round(255 * float(pq_of(np.array(203.0))))] == pytest.approx(middle, abs=3)
    assert 180 <= tone_curve(Transfer.HLG)[round(0.75 * 255)] <= 200


# --- real faces -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(centerface: Bundle) -> SingleStageDetector:
    runtime = open_runtime(centerface, "detector", device="cpu", threads=2)
    return SingleStageDetector(centerface, runtime, longest=1280, threshold=0.2)


def overlap(regions: Regions, face: list[int]) -> float:
    """The best intersection over union with the face."""
    best = 0.0
    for x0, y0, x1, y1 in regions.boxes.tolist():
        inner = max(0, min(x1, face[2]) - max(x0, face[0])) * max(0, min(y1, face[3]) - max(y0, face[1]))
        outer = (x1 - x0) * (y1 - y0) + (face[2] - face[0]) * (face[3] - face[1]) - inner
        best = max(best, inner / outer)
    return best


@pytest.mark.parametrize(
    ("size", "aspect"), [((SIDE // 2, SIDE), 2), ((SIDE // 4, SIDE), 4), ((SIDE, SIDE // 4), Fraction(1, 4))]
)
def test_faces_in_anamorphic_pictures_are_found_only_with_their_pixel_aspect(
    detector: SingleStageDetector, size: tuple[int, int], aspect: Fraction | int
) -> None:
    image, face = astronaut(*size), face_of(*size)
    right = detector.detect(Frame(image, pixel_aspect=Fraction(aspect)))
    wrong = detector.detect(Frame(image))
    assert overlap(right, face) > 0.7
    assert overlap(wrong, face) < overlap(right, face) - 0.1
    if aspect not in {2}:
        assert overlap(wrong, face) < 0.3


def test_faces_that_lie_on_their_side_are_less_sure(detector: SingleStageDetector) -> None:
    upright = detector.detect(Frame(astronaut()))
    for turns in (1, 2, 3):
        turned = detector.detect(Frame(np.ascontiguousarray(np.rot90(astronaut(), turns))))
        assert turned.scores.max(initial=0) < upright.scores.max() - 0.1


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    **{f"turned {n}": {"orientation": n} for n in (2, 3, 6, 8)},
    "wide pixels": {"aspect": Fraction(2)},
    "wider pixels": {"aspect": Fraction(4)},
    "tall pixels": {"aspect": Fraction(1, 2)},
    "turned, wide pixels": {"orientation": 6, "aspect": Fraction(2)},
    "ten bits": {"pix_fmt": "yuv420p10le"},
    "pq": {"pix_fmt": "yuv420p10le", "transfer": 16},
    "dark pq": {"pix_fmt": "yuv420p10le", "transfer": 16, "white": 20.0},
    "hlg": {"pix_fmt": "yuv420p10le", "transfer": 18},
    "dark hlg": {"pix_fmt": "yuv420p10le", "transfer": 18, "white": 0.02},
}


def make_clip(
    path: Path,
    *,
    orientation: int = 1,
    aspect: Fraction = Fraction(1),
    pix_fmt: str = "yuv420p",
    transfer: int = 1,
    white: float | None = None,
) -> Path:
    """Six frames of the astronaut: stored with this orientation, pixel aspect (as stored) and transfer curve."""
    width, height = _shown_size(orientation, aspect)
    content: npt.NDArray[Any] = stored_picture(astronaut(width, height), orientation)
    tags = ColourTags(1, 1, 1, 1)
    if transfer == 16:
        content, tags = 255 * pq_of(light_of(content) * (white or 203)), ColourTags(1, 9, 9, 16)
    elif transfer == 18:
        content, tags = 255 * hlg_of(light_of(content) * (white or 0.265)), ColourTags(1, 9, 9, 18)
    return write_clip(
        path,
        [content] * 6,
        options={"crf": "4"},
        pix_fmt=pix_fmt,
        tags=tags,
        aspect=aspect,
        matrix=display_matrix(orientation),
    )


def _shown_size(orientation: int, aspect: Fraction) -> tuple[int, int]:
    """Of the upright picture, in stored pixels."""
    shown = 1 / aspect if orientation >= 5 else aspect
    return round(SIDE / max(shown, Fraction(1))), round(SIDE * min(shown, Fraction(1)))


@pytest.mark.parametrize("case", CASES)
def test_a_face_is_covered_in_every_frame_however_the_clip_is_stored(
    tmp_path: Path, centerface: Bundle, case: str
) -> None:
    clip = make_clip(tmp_path / "in.mkv", **CASES[case])
    # A quality of 0 is lossless; unlike FFV1, H.264 keeps the pixel aspect in Matroska files.
    settings = RunSettings(preset="faces", face="mask", mask_colour=MAGENTA, crf=0, lookahead=0, hold=0)
    result = run(clip, tmp_path / "out.mkv", settings)
    assert result.summary.frames == 6
    assert result.summary.withheld == 0
    before, after = read_clip(clip), read_clip(tmp_path / "out.mkv")
    assert before.aspect == CASES[case].get("aspect", 1)
    assert (after.matrix, after.aspect, after.tags) == (before.matrix, before.aspect, before.tags)
    assert len(after.images) == 6
    orientation = Orientation.from_matrix(display_matrix(CASES[case].get("orientation", 1)))
    for stored, raw in zip(after.images, before.images, strict=True):
        upright = orientation.apply(stored)
        x0, y0, x1, y1 = face_of(upright.shape[1], upright.shape[0])
        covered = np.abs(upright[y0:y1, x0:x1].astype(int) - MAGENTA).max()
        assert covered <= 8
        # The control: the same place in the input is a face, and far from the colour.
        assert np.abs(orientation.apply(raw)[y0:y1, x0:x1].astype(int) - MAGENTA).max(axis=2).min() > 30
