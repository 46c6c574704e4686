"""What of a frame comes back from a GPU: answers and regions, and no frame, nor a picture of one."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest

from engines.onnx_binding import Binding, OrtArray
from engines.runtime import Device
from stream.anonymizer import Anonymizer
from stream.config import AnonymizerSettings, make_settings
from stream.demo import WALKERS
from stream.sources.video import VideoSource

pytestmark = pytest.mark.gpu


def test_no_copy_from_the_gpu_is_a_frame_or_a_picture_of_one(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    run, numpy = Binding.run, OrtArray.numpy

    def counted(self: Binding, feeds: Any, keep: Any = ()) -> dict[str, Any]:
        found = run(self, feeds, keep)
        shapes.extend(array.shape for name, array in found.items() if name not in keep)
        return found

    def copied(self: OrtArray) -> Any:
        shapes.append(self.shape)
        return numpy(self)

    monkeypatch.setattr(Binding, "run", counted)
    monkeypatch.setattr(OrtArray, "numpy", copied)
    settings = make_settings(AnonymizerSettings, {"preset": "starter", "device": gpu})
    with Anonymizer.from_settings(settings, offline=True) as anonymizer:
        made = list(anonymizer.iterate(islice(VideoSource(WALKERS), 10)))
    assert [item.withheld for item in made] == [None] * 10
    assert sum(item.generated for item in made) > 10
    assert shapes
    # What the detector is shown of it is padded to multiples of 32.
    for picture in (made[0].image.shape[:2], (384, 640)):
        assert not any(picture in pairwise(shape) for shape in shapes)
