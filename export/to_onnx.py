"""From a torch module to an ONNX file."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from typing import TYPE_CHECKING, Any

import onnxscript  # noqa: F401  torch imports it late, after minutes of work; here its absence shows at once
import torch

from engines.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from export.graphs import GraphPlan

#: Resize, Split and LeakyRelu as they are used here; runtimes of the last three years read it.
DEFAULT_OPSET = 18
OPSETS = range(18, 24)
#: When Python looks for garbage while a graph is traced, see `gc.set_threshold`.
_SELDOM = 50_000, 20, 100
#: Names of pictures' sides, and what they have at least.
_SIDES, _LEAST_SIDE = frozenset({"h", "w"}), 32


def write_onnx(plan: GraphPlan, path: Path, opset: int = DEFAULT_OPSET) -> None:
    """Traces a graph and writes it.

    Args:
        plan: module, declarations and example inputs.
        path: the file; written over.
        opset: of the ONNX operators.

    Raises:
        ExportError: the module cannot be traced.
        OSError: the file cannot be written.
    """
    import onnx

    axes: dict[str, Any] = {}
    shapes = []
    for tensor in plan.inputs:
        words = {i: side for i, side in enumerate(tensor.shape) if isinstance(side, str)}
        shapes.append({i: axes.setdefault(word, _dimension(word)) for i, word in words.items()})
    arguments = tuple(torch.from_numpy(plan.example[tensor.name]) for tensor in plan.inputs)
    with _quiet(), _seldom_collecting(), torch.no_grad():
        try:
            program = torch.onnx.export(
                plan.module.eval(),
                arguments,
                dynamo=True,
                input_names=[tensor.name for tensor in plan.inputs],
                output_names=[tensor.name for tensor in plan.outputs],
                opset_version=opset,
                dynamic_shapes=_nested(plan, shapes),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            chain = list(_chain(error))
            if any(isinstance(link, KeyboardInterrupt) for link in chain):
                # The exporter takes Ctrl-C for a failure of its own.
                raise KeyboardInterrupt from error
            # What began it; the exporter wraps that in pages of advice.
            text = " ".join(str(chain[-1]).split())[:300] or type(chain[-1]).__name__
            raise ExportError(f"{plan.file} cannot be exported with opset {opset} ({text}); report it") from error
    assert program is not None  # noqa: S101  it is only None where a file name was given
    model = program.model_proto
    _strip(model)
    onnx.save(model, path)


def _dimension(word: str) -> Any:
    """A free dimension. Pictures have a few pixels: where convolutions need some, the exporter would trace twice."""
    return torch.export.Dim(word, min=_LEAST_SIDE) if word in _SIDES else torch.export.Dim(word)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from, step by step."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _nested(plan: GraphPlan, shapes: list[dict[int, Any]]) -> dict[str, Any]:
    """The free dimensions by parameter of `forward`; what it takes as `*rest` comes as one tuple."""
    code = type(plan.module).forward.__code__
    names = code.co_varnames[1 : code.co_argcount]
    nested: dict[str, Any] = dict(zip(names, shapes, strict=False))
    if code.co_flags & 0x04:  # inspect.CO_VARARGS
        nested[code.co_varnames[code.co_argcount]] = tuple(shapes[len(names) :])
    return nested


def _strip(model: onnx.ModelProto) -> None:
    """Removes what says where on whose machine the file was made, and what nobody reads."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    model.producer_name, model.producer_version = "standin", ""


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Tracing makes millions of objects that stay: looking through them again and again is a quarter of its time."""
    before = gc.get_threshold()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of libraries that are not needed and of its own use of PyTorch."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
