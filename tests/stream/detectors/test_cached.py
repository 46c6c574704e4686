"""A detector with a detections file before it."""

from __future__ import annotations

import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engines.bundle import Bundle, sha256_file
from engines.errors import DetectionError, UsageError
from engines.manifest import ArrayFile, Detection
from stream import detections
from stream.detections import DetectionsFile, Detectors, Place, Row
from stream.detectors import cached as cached_module
from stream.detectors.base import Detector
from stream.detectors.cached import CachedDetector, Counts, from_rows, to_rows
from stream.frame import Frame
from stream.outline import BodySurface, Bools, Outline, PixelMask
from stream.regions import NO_TRACK, Kind, Origin, Regions
from stream.surface import Surface
from tests.fakes import FunctionDetector, faces, finishes_within, frames, install_bundle, noise

VERTICES = np.random.default_rng(5).normal(size=(300, 16)).astype(np.float32)
SURFACE = Surface(VERTICES)
GRID = 112
FRAMES = frames(noise(6))


def pose(box: tuple[int, int, int, int], seed: int) -> BodySurface:
    """A body with embeddings near vertices and on none, as a network regresses them; numbers beside the body too."""
    draw = np.random.default_rng(seed)
    nearby = VERTICES[draw.integers(0, len(VERTICES), (GRID, GRID))].transpose(2, 0, 1)
    regressed = nearby + 0.05 * draw.normal(size=nearby.shape)
    return BodySurface(box, draw.random((GRID, GRID)) < 0.4, np.ascontiguousarray(regressed, np.float32))


def answer(frame: Frame) -> Regions:
    """Of everything that detectors give something, and more of it with every frame."""
    if frame.pts == 0:
        return Regions.empty()
    draw = np.random.default_rng(frame.pts)
    outlines: list[Outline | None] = [
        None,
        Outline(mask=PixelMask(-2, 3, draw.random((21, 13)) < 0.5)),
        Outline(surface=pose((5, 5, 30, 40), frame.pts)),
        Outline(PixelMask(8, 1, draw.random((30, 17)) < 0.5), pose((-5, 0, 64, 48), frame.pts + 50)),
    ]
    low = np.array([[-0.0, 1.1], [-2, 3], [5, 5], [-5, -0.0]])
    sides = np.array([[20, 20], [13, 21], [25, 35], [69, 48]]) * draw.uniform(1, 1.3, (4, 2))
    boxes = np.concatenate([low, low + sides], axis=1)
    found = Regions.of(boxes, Kind.PERSON, scores=draw.random(4), outlines=outlines)
    found = replace(found, kinds=np.array([Kind.FACE, Kind.PLATE, Kind.PERSON, Kind.PERSON], np.uint8))
    return found[:1] if frame.pts == 1 else found


def parts_of(regions: Regions) -> list[tuple[object, ...]]:
    """All there is in regions, so that equal means bit for bit."""

    def exact(array: npt.NDArray[np.generic]) -> tuple[object, ...]:
        return array.dtype.str, array.shape, array.tobytes()

    arrays_ = (regions.boxes, regions.kinds, regions.scores, regions.track_ids, regions.origins)
    parts: list[tuple[object, ...]] = [exact(array) for array in arrays_]
    for outline in (regions.outline(index) for index in range(len(regions))):
        mask, surface = (None, None) if outline is None else (outline.mask, outline.surface)
        parts.append(() if mask is None else (mask.box, exact(mask.pixels)))
        parts.append(() if surface is None else (surface.box, exact(surface.segmentation), exact(surface.embedding)))
    return parts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clip.detections"


def cached(
    path: Path, inner: Detector | Callable[[Frame], Regions] = answer, surface: Surface | None = SURFACE
) -> CachedDetector:
    detector = FunctionDetector(inner) if callable(inner) else inner
    return CachedDetector.open(path, detector, Detectors((), {"threshold": "0.2"}, surface))


def run(path: Path, inner: Callable[[Frame], Regions] = answer) -> tuple[list[Regions], Counts]:
    with closing(cached(path, inner)) as detector:
        return [detector.detect(frame) for frame in FRAMES], detector.counts


def never(frame: Frame) -> Regions:
    raise AssertionError("detected again")


def test_a_run_that_reads_gets_the_very_regions_of_the_run_that_wrote(path: Path) -> None:
    written, first = run(path)
    read, second = run(path, never)
    assert (first, second) == (Counts(0, len(FRAMES)), Counts(len(FRAMES), 0))
    assert [parts_of(regions) for regions in written] == [parts_of(regions) for regions in read]
    assert [len(regions) for regions in read] == [0, 1, 4, 4, 4, 4]
    # What the detector itself gives is something else, so that the comparison above can fail.
    direct = [parts_of(answer(frame)) for frame in FRAMES]
    assert [parts_of(regions) == given for regions, given in zip(read[2:], direct[2:], strict=True)] == [False] * 4


def test_nothing_but_the_embedding_changes(path: Path) -> None:
    read, _ = run(path)
    for frame, regions in zip(FRAMES, read, strict=True):
        given = answer(frame)
        assert np.array_equal(regions.boxes, given.boxes)
        assert np.array_equal(regions.scores, given.scores)
        assert np.array_equal(regions.kinds, given.kinds)
        for index in range(len(given)):
            mine, theirs = regions.outline(index), given.outline(index)
            assert (mine is None) == (theirs is None)
            if mine is None or theirs is None:
                continue
            assert (mine.mask is None, mine.surface is None) == (theirs.mask is None, theirs.surface is None)
            if mine.mask is not None and theirs.mask is not None:
                assert mine.mask.box == theirs.mask.box
                assert np.array_equal(mine.mask.pixels, theirs.mask.pixels)
            if mine.surface is not None and theirs.surface is not None:
                assert mine.surface.box == theirs.surface.box
                assert np.array_equal(mine.surface.segmentation, theirs.surface.segmentation)


@pytest.mark.parametrize("turn", ["when writing", "when reading"])
def test_an_embedding_is_that_of_the_nearest_vertex_and_zero_beside_the_body(path: Path, turn: str) -> None:
    if turn == "when reading":
        run(path)
    outline = run(path)[0][2].outline(3)
    given = answer(FRAMES[2]).outline(3)
    assert outline is not None
    assert given is not None
    assert outline.surface is not None
    assert given.surface is not None
    body = given.surface.segmentation
    queries = np.ascontiguousarray(given.surface.embedding[:, body].T)
    distances = ((queries[:, None].astype(np.float64) - VERTICES) ** 2).sum(axis=2)
    assert np.array_equal(outline.surface.embedding[:, body].T, VERTICES[distances.argmin(axis=1)])
    assert not outline.surface.embedding[:, ~body].any()
    assert given.surface.embedding[:, ~body].any()


def test_tracks_and_origins_are_not_kept(path: Path) -> None:
    held = Regions.of([(0, 0, 9, 9)], Kind.FACE, track_ids=[7], origin=Origin.HELD)
    for inner in (lambda _: held, never):
        with closing(cached(path, inner)) as detector:
            regions = detector.detect(FRAMES[0])
        assert regions.track_ids.tolist() == [NO_TRACK]
        assert regions.origins.tolist() == [Origin.DETECTED]


def test_an_outline_that_says_nothing_is_none(path: Path) -> None:
    with closing(cached(path, lambda _: Regions.of([(0, 0, 9, 9)], Kind.FACE, outlines=[Outline()]))) as detector:
        assert detector.detect(FRAMES[0]).outlines is None


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(-5000, 5000),
            st.integers(-5000, 5000),
            arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40)),
        ),
        max_size=4,
    )
)
def test_any_masks_come_back(given_masks: list[tuple[int, int, Bools]]) -> None:
    masks = [PixelMask(x, y, pixels) for x, y, pixels in given_masks]
    regions = Regions.of([(0, 0, 9, 9)] * len(masks), Kind.PERSON, outlines=[Outline(mask) for mask in masks])
    assert parts_of(from_rows(to_rows(regions, None), None)) == parts_of(regions)


def test_a_body_without_a_pixel_comes_back() -> None:
    nobody = BodySurface((0, 0, 9, 9), np.zeros((GRID, GRID), np.bool_), np.zeros((16, GRID, GRID), np.float32))
    regions = Regions.of([(0, 0, 9, 9)], Kind.PERSON, outlines=[Outline(surface=nobody)])
    assert parts_of(from_rows(to_rows(regions, SURFACE), SURFACE)) == parts_of(regions)


def test_a_surface_with_more_vertices_than_two_bytes_can_count() -> None:
    angles = np.linspace(0, 2 * np.pi, 70_000, endpoint=False)
    wide = Surface(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    body = np.ones((2, 2), np.bool_)
    wanted = np.array([[[3, 69_000], [65_536, 65_535]]])
    embedding = wide.embeddings(wanted)[0]
    regions = Regions.of(
        [(0, 0, 9, 9)], Kind.PERSON, outlines=[Outline(surface=BodySurface((0, 0, 9, 9), body, embedding))]
    )
    (row,) = to_rows(regions, wide)
    assert row.vertices is not None
    assert np.frombuffer(zlib.decompress(row.vertices), "<u4").tolist() == wanted.ravel().tolist()
    assert parts_of(from_rows([row], wide)) == parts_of(regions)


def test_a_frame_that_the_file_does_not_know_is_looked_at(path: Path) -> None:
    run(path)
    later = replace(FRAMES[2], pts=99)
    changed = FRAMES[2].with_image(FRAMES[2].image ^ np.uint8(1))
    inner = FunctionDetector(lambda _: faces((1, 1, 9, 9)))
    with closing(cached(path, inner)) as detector:
        for frame in (later, changed, later, changed, FRAMES[2]):
            assert len(detector.detect(frame)) == (4 if frame is FRAMES[2] else 1)
        assert inner.looked == 2
        assert detector.counts == Counts(read=3, detected=2)


def test_the_same_moment_in_another_time_base_is_known(path: Path) -> None:
    run(path)
    with closing(cached(path, never)) as detector:
        assert len(detector.detect(replace(FRAMES[2], pts=7200, time_base=Fraction(1, 90_000)))) == 4


def bad_box(_: Frame) -> Regions:
    return faces((200, 200, 210, 210))


def bad_score(_: Frame) -> Regions:
    return faces((0, 0, 9, 9), score=1.5)


def failing(_: Frame) -> Regions:
    raise DetectionError("lost")


def bad_pose(_: Frame) -> Regions:
    body = pose((0, 0, 9, 9), 1)
    body.embedding[:, body.segmentation] = np.nan
    return Regions.of([(0, 0, 9, 9)], Kind.PERSON, outlines=[Outline(surface=body)])


@pytest.mark.parametrize("inner", [bad_box, bad_score, bad_pose, failing])
def test_an_answer_that_cannot_be_trusted_is_not_kept(path: Path, inner: Callable[[Frame], Regions]) -> None:
    with closing(cached(path, inner)) as detector:
        with pytest.raises(DetectionError):
            detector.detect(FRAMES[0])
        assert detector.counts == Counts(0, 0)
    with closing(cached(path)) as detector:
        detector.detect(FRAMES[0])
        assert detector.counts == Counts(read=0, detected=1)


def test_a_tampered_entry_is_detected_afresh_and_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = run(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        # One person of four is gone from every frame that has four.
        assert connection.execute("DELETE FROM regions WHERE place = 3").rowcount == 4
    with caplog.at_level(logging.WARNING):
        again, counts = run(path)
    assert counts == Counts(read=2, detected=4)
    assert len(caplog.records) == 1
    assert [parts_of(regions) for regions in again] == [parts_of(regions) for regions in expected]
    assert run(path, never)[1] == Counts(read=6, detected=0)


def test_a_tampered_entry_would_lose_a_person_were_it_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM regions WHERE place = 3")
        connection.execute("UPDATE frames SET regions = 3 WHERE regions = 4")
        (stored,) = connection.execute("SELECT checksum FROM frames WHERE time = '2/25'").fetchone()
    monkeypatch.setattr(detections, "_checksum", lambda *_: stored)
    with closing(cached(path, never)) as detector:
        assert len(detector.detect(FRAMES[2])) == 3


GOOD = to_rows(answer(FRAMES[2]), SURFACE)[3]


@pytest.mark.parametrize(
    "row",
    [
        GOOD._replace(kind="tree"),
        GOOD._replace(x1=-100.0),
        GOOD._replace(x0=float("inf")),
        GOOD._replace(x1=1e39),
        GOOD._replace(mask=b"no zlib"),
        GOOD._replace(mask=zlib.compress(bytes(3))),
        GOOD._replace(mask=zlib.compress(bytes(10_000))),
        GOOD._replace(mask_width=None),
        GOOD._replace(mask_height=-30),
        GOOD._replace(body=zlib.compress(b"")),
        GOOD._replace(grid_width=None),
        GOOD._replace(pose_x1=GOOD.pose_x0),
        GOOD._replace(vertices=None),
        GOOD._replace(vertices=zlib.compress(b"\0\0")),
        GOOD._replace(vertices=zlib.compress(b"\xff" * len(zlib.decompress(GOOD.vertices or b"")))),
    ],
)
def test_rows_that_make_no_sense_are_detected_afresh(path: Path, row: Row) -> None:
    with closing(DetectionsFile(path, Detectors((), {"threshold": "0.2"}, SURFACE))) as file:
        file.add(Place.of(FRAMES[2]), [row])
    for expected in (Counts(0, 1), Counts(1, 0)):
        with closing(cached(path)) as detector:
            assert len(detector.detect(FRAMES[2])) == 4
            assert detector.counts == expected


PLAIN, MASKED, POSED, _ = to_rows(answer(FRAMES[2]), SURFACE)
#: One pixel in a frame's middle, in 200 x 200.
SMALL = zlib.compress(np.packbits(np.arange(200 * 200) == 60 * 200 + 60).tobytes())
AT_THE_EDGE = MASKED._replace(x0=-40.0, x1=20.0)
EMPTY = zlib.compress(bytes(35))
IMPOSSIBLE = {
    "a box without area": PLAIN._replace(x1=PLAIN.x0),
    "a score over 1": PLAIN._replace(score=1.5),
    "a score under 0": PLAIN._replace(score=-0.5),
    "a box far outside": PLAIN._replace(x0=700.0, x1=720.0),
    "a box of many frames": PLAIN._replace(x1=1000.0),
    "a mask without a pixel": MASKED._replace(mask=EMPTY),
    "a mask outside the frame": AT_THE_EDGE._replace(mask_x=-38),
    "a mask beside its box": MASKED._replace(mask_x=40),
    "a mask that reaches out of its box": MASKED._replace(mask_y=-8),
    "a mask far away": MASKED._replace(mask_x=2**40),
    "a pose beside its box": POSED._replace(pose_x0=40, pose_x1=64),
    "a pose far too large": POSED._replace(pose_x1=2**40),
}


def keep(path: Path, row: Row) -> None:
    with closing(DetectionsFile(path, Detectors((), {"threshold": "0.2"}, SURFACE))) as file:
        for frame in FRAMES:
            file.add(Place.of(frame), [row])


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_entry_that_no_detector_gives_is_detected_afresh_and_replaced(
    name: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(path, IMPOSSIBLE[name])
    with caplog.at_level(logging.WARNING):
        found, counts = run(path)
    assert counts == Counts(read=0, detected=6)
    assert [len(regions) for regions in found] == [0, 1, 4, 4, 4, 4]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: an entry is not what it should be: such frames are looked at afresh"
    ]
    again, counts = run(path, never)
    assert counts == Counts(read=6, detected=0)
    assert [parts_of(regions) for regions in again] == [parts_of(regions) for regions in found]


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_without_a_look_at_it_such_an_entry_would_be_an_answer(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(path, IMPOSSIBLE[name])
    for check in ("check_detections", "_check_outlines"):
        monkeypatch.setattr(cached_module, check, lambda *_: None)
    assert [len(regions) for regions in run(path, never)[0]] == [1] * 6


@pytest.mark.parametrize(
    "row",
    [
        PLAIN,
        POSED,
        PLAIN._replace(x0=-30.0),
        # The rim of a mask that was pasted, and a body that came in over the frame's edge.
        MASKED._replace(mask_x=-4, mask_y=1),
        AT_THE_EDGE._replace(mask_x=-10),
        # Rows and columns without a pixel do not count.
        PLAIN._replace(mask_x=-50, mask_y=-50, mask_width=200, mask_height=200, mask=SMALL),
    ],
)
def test_what_a_detector_can_give_is_an_answer(row: Row, path: Path) -> None:
    keep(path, row)
    assert [len(regions) for regions in run(path, never)[0]] == [1] * 6


def test_look_ups_do_not_wait_for_a_detection(path: Path) -> None:
    run(path)
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Frame) -> Regions:
        begun.set()
        assert go_on.wait(60)
        return Regions.empty()

    unknown = replace(FRAMES[0], pts=77)
    with closing(cached(path, slow)) as detector, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(detector.detect, unknown)
        try:
            assert begun.wait(60)
            assert [len(finishes_within(30, partial(detector.detect, f))) for f in FRAMES] == [0, 1, 4, 4, 4, 4]
            assert not waiting.done()
        finally:
            go_on.set()
        assert len(waiting.result()) == 0
        assert detector.counts == Counts(read=6, detected=1)


def test_many_threads_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detections, "_COMMIT_EVERY", 0.0)
    many = [replace(frame, pts=frame.pts + 10 * turn) for turn in range(10) for frame in FRAMES]
    inner = FunctionDetector(lambda frame: faces(*[(i, 0, i + 4, 9) for i in range(frame.pts % 7)]))
    for _ in range(2):
        with closing(cached(path, inner)) as detector, ThreadPoolExecutor(8) as pool:
            found = list(pool.map(detector.detect, many))
            counts = detector.counts
        assert [len(regions) for regions in found] == [frame.pts % 7 for frame in many]
    assert counts == Counts(read=len(many), detected=0)


def test_a_file_that_cannot_be_written_does_not_end_the_run(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detections, "_COMMIT_EVERY", 0.0)
    monkeypatch.setattr(detections, "_PATIENCE", 0.05)
    with closing(cached(path)) as detector, closing(sqlite3.connect(path)) as other, caplog.at_level(logging.WARNING):
        detector.detect(FRAMES[1])
        other.execute("BEGIN IMMEDIATE")
        assert [len(detector.detect(frame)) for frame in FRAMES] == [0, 1, 4, 4, 4, 4]
        assert detector.counts == Counts(read=1, detected=6)
    assert len(caplog.records) == 1


class Recorder(FunctionDetector):
    def __init__(self) -> None:
        super().__init__(answer)
        self.prepared: list[Sequence[int]] = []

    def prepare(self, width: int, height: int, parallel: int) -> None:
        self.prepared.append((width, height, parallel))


def test_the_detector_is_prepared_reset_and_closed(path: Path) -> None:
    inner = Recorder()
    detector: Detector = cached(path, inner)
    detector.prepare(64, 48, 3)
    detector.reset()
    detector.close()
    assert (inner.prepared, inner.resets, inner.closed, inner.looked) == ([(64, 48, 3)], 1, True, 0)


def test_a_detection_that_ends_after_the_file_is_closed_still_counts(path: Path) -> None:
    detector = cached(path)
    detector.close()
    assert len(detector.detect(FRAMES[2])) == 4


@pytest.fixture(scope="module")
def posed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that says that it gives dense poses on `VERTICES`."""
    plain = install_bundle(tmp_path_factory.mktemp("store"), (0, 0, 8, 8))
    np.save(plain.path / "vertices.npy", VERTICES)
    detection = Detection(
        architecture="cse", config="x", min_size=800, max_size=1333, threshold=0.3, most=100, embedding_channels=16
    )
    array = ArrayFile(file="vertices.npy", dtype="float32", shape=VERTICES.shape, meaning="vertices")
    files = {**plain.manifest.files, "vertices.npy": sha256_file(plain.path / "vertices.npy")}
    changes = {"detection": detection, "arrays": {"vertex_embeddings": array}, "files": files}
    return replace(plain, manifest=plain.manifest.model_copy(update=changes))


@pytest.mark.parametrize(
    ("surface", "message"),
    [
        (None, "centerface gives dense poses, which are kept as vertices"),
        (Surface(np.eye(3, dtype=np.float32)), "another body surface"),
        (Surface(VERTICES[::-1].copy()), "another body surface"),
    ],
)
def test_dense_poses_without_their_surface_are_an_error_at_start(
    path: Path, posed_bundle: Bundle, surface: Surface | None, message: str
) -> None:
    inner = Recorder()
    with pytest.raises(UsageError, match=message):
        CachedDetector.open(path, inner, Detectors([posed_bundle], {}, surface))
    assert not path.exists()
    CachedDetector.open(path, inner, Detectors([posed_bundle], {}, SURFACE)).close()
    assert inner.closed


def test_a_run_that_fails_before_its_first_frame_leaves_no_file(path: Path) -> None:
    detector = cached(path)
    detector.prepare(64, 48, 1)
    detector.close()
    assert list(path.parent.iterdir()) == []
    run(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_dense_pose_that_nobody_expected_withholds_the_frame(path: Path) -> None:
    with closing(cached(path, surface=None)) as detector, pytest.raises(DetectionError, match="no surface"):
        detector.detect(FRAMES[2])


def contents(path: Path) -> bytes:
    """Everything that anybody can read in the file, with what is compressed taken apart."""
    found = [path.read_bytes()]
    with closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):
                for value in row:
                    if isinstance(value, bytes):
                        found.append(value)
                        if value.startswith(b"\x78"):
                            found.append(zlib.decompressobj().decompress(value))
    return b"".join(found)


def leaks(content: bytes) -> set[str]:
    """What of pictures or embeddings is in there: runs of eight pixels, and single channels of body points."""
    found = set()
    for frame in FRAMES:
        rows = frame.image.reshape(-1, 24)
        if any(row.tobytes() in content for row in rows[::7]):
            found.add("pixels")
        for index in range(len(regions := answer(frame))):
            outline = regions.outline(index)
            if outline is None or outline.surface is None:
                continue
            points = outline.surface.embedding[:, outline.surface.segmentation].T[::97]
            if any(
                point[:2].tobytes() in content or point[:4].astype(np.float16).tobytes() in content for point in points
            ):
                found.add("embeddings")
    return found


def test_neither_pixels_nor_embeddings_are_in_the_file(path: Path) -> None:
    run(path)
    assert leaks(contents(path)) == set()
    outline = answer(FRAMES[2]).outline(2)
    assert outline is not None
    assert outline.surface is not None
    # The same search finds both where they are.
    with closing(sqlite3.connect(path)) as connection, connection:
        crop = zlib.compress(FRAMES[3].image.tobytes())
        connection.execute("UPDATE regions SET mask = ? WHERE frame = 3 AND place = 1", (crop,))
    assert leaks(contents(path)) == {"pixels"}
    with closing(sqlite3.connect(path)) as connection, connection:
        points = outline.surface.embedding[:, outline.surface.segmentation].T
        connection.execute("UPDATE regions SET vertices = ? WHERE frame = 3 AND place = 2", (points.tobytes(),))
    assert leaks(contents(path)) == {"pixels", "embeddings"}
