"""Which shapes a TensorRT plan is built for: a least, a usual and a largest one for every input.

A manifest names the dimensions that may vary. Here those names get numbers, from what the bundle says of itself and
from what its user asks for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from engines.errors import UsageError
from engines.plans import InputShapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.manifest import Graph, Manifest, Tensor

#: Crops in one run of a generator, and boxes in one run of a detector's heads.
_CROPS: Final = 8
_BOXES: Final = 16
#: Bytes of tables that generators of the V-SAM architecture keep, and tracks that have some at most.
_TABLE_BYTES: Final = 2**30
_MOST_TABLES: Final = 256
#: The longer side of what detectors see, where their manifest has no word on it, and the shape of usual pictures.
_LONGER_SIDE: Final = 1280
_ASPECT: Final = 9 / 16
_SCALED = re.compile(r"([hw])(\d+)")
_LEVEL = re.compile(r"p(\d)")


class Range(NamedTuple):
    """Numbers that a dimension may have: from `least` to `most`, and what it usually is."""

    least: int
    usual: int
    most: int


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


def parse_range(text: str, what: str) -> Range:
    """Reads `8`, `1,8` or `1,4,8`: the only number, least and most, or least, usual and most.

    Args:
        text: the numbers.
        what: how to call it in messages.

    Raises:
        UsageError: It is none, or the numbers do not rise.
    """
    parts = text.split(",")
    if not 1 <= len(parts) <= 3 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"{what} is {text!r}; expected a number, LEAST,MOST or LEAST,USUAL,MOST, such as 1,4,8")
    numbers = [int(part) for part in parts]
    found = Range(numbers[0], numbers[-1] if len(numbers) < 3 else numbers[1], numbers[-1])
    if not 1 <= found.least <= found.usual <= found.most:
        raise UsageError(f"{what} is {text!r}; expected numbers from 1 on that do not fall, such as 1,4,8")
    return found


def parse_sizes(text: str) -> tuple[Range, Range]:
    """Reads `736x1280`, or up to three of them as `parse_range` does; returns heights and widths.

    Raises:
        UsageError: It is no size, or sizes do not rise.
    """
    sizes = [part.lower().split("x") for part in text.split(",")]
    if any(len(size) != 2 for size in sizes):
        raise UsageError(f"--size is {text!r}; expected HEIGHTxWIDTH, up to three with commas, such as 736x1280")
    heights, widths = (",".join(size[axis] for size in sizes) for axis in (0, 1))
    return parse_range(heights, "the height in --size"), parse_range(widths, "the width in --size")


def dimension_ranges(
    manifest: Manifest,
    graph: Graph,
    *,
    batch: Range | None = None,
    sizes: tuple[Range, Range] | None = None,
    given: Mapping[str, Range] | None = None,
) -> dict[str, Range]:
    """Numbers for every dimension of a graph's inputs that may vary.

    Args:
        manifest: of the bundle.
        graph: one of its graphs.
        batch: rows of a run, where it has rows; by the bundle's task if None.
        sizes: heights and widths of the pictures, where they vary; by the manifest if None.
        given: numbers for dimensions by name, which win.

    Raises:
        UsageError: Nobody knows the numbers of a dimension, or a picture's size does not suit the network.
    """
    heights, widths = sizes or _picture_sizes(manifest)
    step = manifest.normalisation.multiple
    for side in (*heights, *widths):
        if side % step:
            raise UsageError(f"--size has the side {side}; {manifest.name} takes multiples of {step}")
    known = dict(given or {})
    for tensor in graph.inputs:
        for word in tensor.shape:
            if isinstance(word, str) and word not in known:
                known[word] = _range(word, tensor, manifest, graph, batch, heights, widths)
    return known


def _range(
    word: str, tensor: Tensor, manifest: Manifest, graph: Graph, batch: Range | None, heights: Range, widths: Range
) -> Range:
    if word == "N":
        rows = _CROPS if manifest.task == "generation" else 1
        return batch or Range(1, rows, rows)
    if word == "R":
        return Range(1, _BOXES, _BOXES)
    if word == "S":
        return _tables(graph)
    if word in ("h", "w"):
        return heights if word == "h" else widths
    if scaled := _SCALED.fullmatch(word):
        # `p3` is a level of a pyramid, at an eighth of the picture; elsewhere the number is the stride itself.
        level = _LEVEL.fullmatch(tensor.name)
        stride = 2 ** int(level[1]) if level else int(scaled[2])
        return Range(*(max(1, side // stride) for side in (heights if scaled[1] == "h" else widths)))
    raise UsageError(
        f"input {tensor.name!r} of {graph.file} has the dimension {word!r}, whose numbers nobody knows; "
        f"give them: --shape {word}=LEAST,USUAL,MOST"
    )


def _tables(graph: Graph) -> Range:
    """As many slots as generators have (`stream.generators.tables`)."""
    bytes_per_slot = 0
    for tensor in graph.inputs:
        if tensor.shape and tensor.shape[0] == "S":
            count = 1
            for side in tensor.shape[1:]:
                count *= side if isinstance(side, int) else 1
            bytes_per_slot += count * (2 if tensor.dtype == "float16" else 4)
    slots = max(1, min(_MOST_TABLES, _TABLE_BYTES // max(1, bytes_per_slot)))
    return Range(1, slots, slots)


def _picture_sizes(manifest: Manifest) -> tuple[Range, Range]:
    step = manifest.normalisation.multiple

    def padded(side: float) -> int:
        return max(step, -(-round(side) // step) * step)

    declared = manifest.detection
    longer = _LONGER_SIDE if declared is None else declared.max_size
    shorter = round(longer * _ASPECT) if declared is None else min(declared.min_size, round(longer * _ASPECT))
    # Narrow pictures and second looks at small sizes come too: what no plan takes would be withheld.
    return Range(step, padded(shorter), padded(longer)), Range(step, padded(longer), padded(longer))


def input_shapes(graph: Graph, ranges: Mapping[str, Range]) -> tuple[InputShapes, ...]:
    """The shapes of each input of a graph.

    Args:
        graph: of a bundle.
        ranges: numbers for each of its dimensions that vary.
    """

    def sides(tensor: Tensor, which: int) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else ranges[side][which] for side in tensor.shape)

    return tuple(
        InputShapes(name=tensor.name, least=sides(tensor, 0), usual=sides(tensor, 1), most=sides(tensor, 2))
        for tensor in graph.inputs
    )
