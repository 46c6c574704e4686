from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.ExifTags import IFD, Base

from engines.errors import SinkError, UsageError
from stream.anonymizer import Anonymized
from stream.frame import Frame
from stream.regions import Regions
from stream.sinks.images import ImageSink
from stream.sources.images import ImageSource
from tests.media import exif_block, mean_error, noise, picture

LATITUDE = (59, 54, 77)
MAKER = b"MAKER" * 300
COMMENT = b"ASCII\0\0\0a raw face"
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>rings twice</x:xmpmeta>"


def jpeg(seed: int, size: int = 48) -> bytes:
    file = BytesIO()
    Pillow.fromarray(noise(1, size, size, seed)[0]).save(file, "JPEG")
    return file.getvalue()


#: From the middle of the entropy-coded data, where no two pictures are alike.
THUMBNAIL, SECOND, MOTION = (jpeg(seed)[-400:-50] for seed in (1, 2, 3))


def loaded(path: Path) -> Path:
    """An image with all that cameras put into files beside the picture."""
    exif = exif_block(maker_note=MAKER, user_comment=COMMENT, thumbnail=jpeg(1), latitude=LATITUDE)
    main = Pillow.fromarray(picture(120, 90))
    if path.suffix == ".jpg":
        second = Pillow.open(BytesIO(jpeg(2)))
        main.save(path, "MPO", save_all=True, append_images=[second], exif=exif, xmp=XMP, quality=95)
        # A motion photo: a video behind the end of the image.
        path.write_bytes(path.read_bytes() + b"ftypmp42" + jpeg(3))
    else:
        options: dict[str, Any] = {"xmp": XMP} if path.suffix == ".webp" else {}
        main.save(path, exif=exif, **options)
    return path


def run(source: Path, target: Path, *, metadata: bool = False, overwrite: bool = False) -> None:
    reader = ImageSource(source)
    sink = ImageSink(target, folder=source.is_dir(), overwrite=overwrite, inputs=source, metadata=metadata)
    for frame in reader:
        sink.write(Anonymized(frame, Regions.empty()))
    sink.close()


def assert_no_pictures(content: bytes) -> None:
    for secret in (THUMBNAIL, SECOND, MOTION, MAKER[:20], COMMENT[8:], b"ftypmp42", b"rings twice"):
        assert secret not in content


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_everything_beside_the_picture_goes(tmp_path: Path, ending: str) -> None:
    source = loaded(tmp_path / f"in.{ending}")
    assert THUMBNAIL in source.read_bytes() or ending == "png"
    run(source, tmp_path / f"out.{ending}")
    content = (tmp_path / f"out.{ending}").read_bytes()
    assert_no_pictures(content)
    assert b"Fruit" not in content
    with Pillow.open(tmp_path / f"out.{ending}") as out:
        assert not out.getexif()
        assert mean_error(np.asarray(out.convert("RGB")), picture(120, 90)) < 2


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_with_metadata_places_stay_and_embedded_pictures_go(tmp_path: Path, ending: str) -> None:
    source = loaded(tmp_path / "in.jpg")
    frame = next(iter(ImageSource(source)))
    sink = ImageSink(tmp_path / f"out.{ending}", folder=False, overwrite=False, inputs=source, metadata=True)
    sink.write(Anonymized(frame, Regions.empty()))
    content = (tmp_path / f"out.{ending}").read_bytes()
    assert_no_pictures(content)
    with Pillow.open(tmp_path / f"out.{ending}") as out:
        exif = out.getexif()
        assert exif[Base.Make] == "Fruit"
        assert tuple(int(part) for part in exif.get_ifd(IFD.GPSInfo)[2]) == LATITUDE
        assert not exif.get_ifd(IFD.IFD1)
        assert getattr(out, "n_frames", 1) == 1
        assert mean_error(np.asarray(out.convert("RGB")), picture(120, 90)) < 2


def test_a_turned_image_keeps_its_metadata_but_not_its_orientation(tmp_path: Path) -> None:
    Pillow.fromarray(picture(80, 48)).save(tmp_path / "in.jpg", exif=exif_block(orientation=6), quality=95)
    run(tmp_path / "in.jpg", tmp_path / "out.jpg", metadata=True)
    with Pillow.open(tmp_path / "out.jpg") as out:
        assert out.size == (48, 80)
        assert Base.Orientation not in out.getexif()
        assert out.getexif()[Base.Make] == "Fruit"


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_the_layout_of_an_old_file_does_not_spoil_the_new_one(tmp_path: Path, ending: str) -> None:
    exif = Pillow.Exif()
    exif[Base.Make] = "Fruit"
    Pillow.fromarray(noise(1)[0]).save(tmp_path / "in.tif", exif=exif)
    frame = next(iter(ImageSource(tmp_path / "in.tif")))
    sink = ImageSink(tmp_path / f"o.{ending}", folder=False, overwrite=False, inputs=tmp_path / "in.tif", metadata=True)
    sink.write(Anonymized(frame, Regions.empty()))
    with Pillow.open(tmp_path / f"o.{ending}") as out:
        assert np.array_equal(np.asarray(out), noise(1)[0])
        assert out.getexif()[Base.Make] == "Fruit"


def test_a_withheld_image_keeps_no_metadata(tmp_path: Path) -> None:
    source = loaded(tmp_path / "in.jpg")
    sink = ImageSink(tmp_path / "out.jpg", folder=False, overwrite=False, inputs=source, metadata=True)
    sink.write(Anonymized(next(iter(ImageSource(source))), Regions.empty(), withheld="detection failed"))
    assert b"Fruit" not in (tmp_path / "out.jpg").read_bytes()


def test_broken_exif_costs_the_metadata_and_not_the_image(tmp_path: Path) -> None:
    block = bytearray(exif_block())
    block[20:60] = b"\xff" * 40
    Pillow.fromarray(picture()).save(tmp_path / "in.jpg", exif=bytes(block))
    run(tmp_path / "in.jpg", tmp_path / "out.jpg", metadata=True)
    assert (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp"])
def test_formats_with_loss_lose_little(tmp_path: Path, ending: str) -> None:
    Pillow.fromarray(picture(160, 120)).save(tmp_path / "in.png")
    frame = next(iter(ImageSource(tmp_path / "in.png")))
    target = tmp_path / f"out.{ending}"
    ImageSink(target, folder=False, overwrite=False, inputs=tmp_path / "in.png").write(
        Anonymized(frame, Regions.empty())
    )
    with Pillow.open(target) as out:
        assert mean_error(np.asarray(out.convert("RGB")), picture(160, 120)) < 1.5


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_formats_without_loss_lose_nothing(tmp_path: Path, ending: str) -> None:
    Pillow.fromarray(noise(1)[0]).save(tmp_path / f"in.{ending}")
    run(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}")
    with Pillow.open(tmp_path / f"out.{ending}") as out:
        assert np.array_equal(np.asarray(out.convert("RGB")), noise(1)[0])


def test_a_folder_is_mirrored(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.jpg", "sub/deeper/c.webp"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(picture()).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("stays behind")
    run(tmp_path / "in", tmp_path / "out")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == ["a.png", "sub/b.jpg", "sub/deeper/c.webp"]


@pytest.mark.parametrize("target", ["in", "in/out", "in/../in/out", "linked/out", "."])
def test_an_output_inside_the_input_or_around_it_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "in").mkdir()
    Pillow.fromarray(picture()).save(tmp_path / "in" / "a.png")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="inside each other"):
        ImageSink(tmp_path / target, folder=True, overwrite=True, inputs=tmp_path / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]


def test_existing_images_are_replaced_only_when_asked_and_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("a.png", "b.png"):
        Pillow.fromarray(picture()).save(tmp_path / "in" / name)
    (tmp_path / "out" / "b.png").write_bytes(b"earlier")
    with pytest.raises(UsageError, match="--overwrite"):
        ImageSink(tmp_path / "out", folder=True, overwrite=False, inputs=tmp_path / "in")
    assert (tmp_path / "out" / "b.png").read_bytes() == b"earlier"
    assert not (tmp_path / "out" / "a.png").exists()
    run(tmp_path / "in", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "b.png").read_bytes() != b"earlier"


def test_outputs_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Pillow.fromarray(picture()).save(source)
    for target, message in (("out.xyz", "ending"), ("in.png", "is the input"), ("no/out.png", "does not exist")):
        with pytest.raises(UsageError, match=message):
            ImageSink(tmp_path / target, folder=False, overwrite=True, inputs=source)
    with pytest.raises(UsageError, match="is a file"):
        ImageSink(source, folder=True, overwrite=True, inputs=tmp_path / "folder")


def test_a_folder_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Pillow.fromarray(picture()).save(tmp_path / "in" / "a.png")
    sink = ImageSink(tmp_path / "out", folder=True, overwrite=True, inputs=tmp_path / "in")
    (tmp_path / "out" / "sub").write_text("a file where a folder is needed")
    with pytest.raises(SinkError, match="sub"):
        sink.write(Anonymized(Frame(picture(), source="sub/a.png"), Regions.empty()))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sub"]


def test_a_link_to_nothing_in_the_output_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    Pillow.fromarray(picture()).save(tmp_path / "in" / "a.png")
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match="--overwrite"):
        ImageSink(tmp_path / "out", folder=True, overwrite=False, inputs=tmp_path / "in")
    assert (tmp_path / "out" / "a.png").is_symlink()
