"""Constants stored in half precision: half the file, and the same arithmetic, for what should be small.

Values are rounded in the network first, and the file is compared with it as ever. Storing them is exact then: a runtime
turns them back into float32 when it loads the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

#: Constants of fewer numbers stay as they are.
_SMALLEST: Final = 1024


@torch.no_grad()
def round_to_halves(module: torch.nn.Module) -> None:
    """Rounds all large parameters and buffers to values that half precision has, in place.

    Raises:
        OverflowError: one is too large for half precision.
    """
    for name, values in (*module.named_parameters(), *module.named_buffers()):
        if values.dtype == torch.float32 and values.numel() >= _SMALLEST:
            rounded = values.half().float()
            if not torch.isfinite(rounded).all():
                raise OverflowError(f"{name} has {values.abs().max():.3g}, which half precision has not")
            values.copy_(rounded)


def store_halves(path: Path) -> int:
    """Rewrites an ONNX file so that what was rounded takes two bytes a number.

    Args:
        path: of the file; constants that half precision would change stay as they are.

    Returns:
        How many bytes shorter the constants are.
    """
    model = onnx.load(path)
    saved, casts = 0, []
    for initializer in model.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.size < _SMALLEST or not np.array_equal(halves.astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
        saved += values.nbytes - halves.nbytes
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return saved
