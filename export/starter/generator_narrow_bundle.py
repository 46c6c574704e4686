"""The bundle of a generator that was made narrower: its graph, and all else of the wide one's."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle, open_bundle, write_bundle
from engines.manifest import Graph, ManifestDraft
from engines.runtime import Runtime, open_runtime
from export import graphs
from export.bundle_folder import new_bundle_folder
from export.models.folded import fold
from export.models.surface import SurfaceUnet
from export.models.tables import TableModulation
from export.starter.generator_answers import Answered, generate
from export.starter.generator_network import unbounded
from export.starter.training import Progress
from export.to_onnx import DEFAULT_OPSET
from export.written import write_and_compare

Floats = NDArray[np.float32]


def write_narrow(
    bundle: Bundle, network: SurfaceUnet, output: Path, *, name: str, progress: Progress | None = None
) -> Bundle:
    """Writes the bundle of a narrower generator: its graph, and all else of the wide one's.

    Args:
        bundle: of the wide one.
        network: not folded.
        output: folder for the bundle; must not exist, or be empty.
        name: of the bundle.
        progress: is told what is being done.

    Raises:
        ExportError: the graph differs from the network, or something cannot be written.
    """
    say = progress or (lambda _: None)
    known, spec = bundle.manifest, network.spec
    assert known.generation is not None  # noqa: S101
    example = graphs.random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, spec.vertices)
    with open_runtime(bundle, "mapping") as mapping:
        tables = [_table(mapping, z) for z in example["z"]]
    example["table_0"] = np.stack(tables)
    rows = example["table_0"][example["slot"][:, None, None], example["vertices"]].transpose(0, 3, 1, 2)
    image, mask, embedding = graphs.tensors(example, "image", "mask", "embedding")
    with torch.no_grad(), new_bundle_folder(output) as work:
        crops = Answered(image, mask, embedding, torch.from_numpy(rows), image, 1 - mask)
        expected = {"output": generate(network, crops).numpy()}
        # It is for float16. A network that needs it would differ from its graph.
        free = unbounded(network)
        modulation = TableModulation(free)
        del free.style_net
        plan = graphs.surface_generator(fold(free), modulation, example, half=False)
        parity = write_and_compare(plan, expected, work, DEFAULT_OPSET, say)
        files = {known.graphs["mapping"].file, *(array.file for array in known.arrays.values())}
        draft = {
            **{field: getattr(known, field) for field in ManifestDraft.model_fields},
            "name": name,
            "graphs": {
                "mapping": known.graphs["mapping"],
                plan.key: Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs),
            },
            "exporter": f"standin {metadata.version('standin')}, torch {torch.__version__}",
            "parity": (*(case for case in known.parity if case.graph == "mapping"), *parity),
            # Those of the wide one say nothing of this one.
            "generation": known.generation.model_copy(update={"activations": (), "config": name}),
        }
        contents: dict[str, bytes | Path] = {file: bundle.file(file) for file in files}
        write_bundle(work / "bundle", ManifestDraft(**draft), contents | {plan.file: work / plan.file})
    return open_bundle(output)


def _table(mapping: Runtime, z: Floats) -> Floats:
    return np.asarray(mapping.run({"z": z[None], "truncation": np.ones(1, np.float32)})["table_0"], np.float32)
