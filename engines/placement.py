"""Placement: which provider of ONNX Runtime got which nodes of a graph.

A session whose first provider is a GPU's may still run nodes on the CPU, each with copies before and behind it; nothing
is raised, and `get_providers` does not tell. ONNX Runtime keeps the assignment that it made while it partitioned the
graph, if it is asked to before the session is made. That is asked here: unlike a profile it needs no run, no file and
no example inputs, and unlike the log its form is declared. ONNX Runtime 1.24 to 1.26 leave out nodes that came to the
CPU because nobody else computes them in float16, which is just what is looked for: they count as not telling.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

CPU_PROVIDER: Final = "CPUExecutionProvider"
_ENTRY: Final = "session.record_ep_graph_assignment_info"
#: The first version of ONNX Runtime whose assignment is whole.
_WHOLE: Final = (1, 27)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the nodes of a graph were placed.

    Attributes:
        providers: Provider -> operator -> how many nodes.
    """

    providers: Mapping[str, Mapping[str, int]]

    @property
    def nodes(self) -> int:
        """All of them."""
        return sum(sum(operators.values()) for operators in self.providers.values())

    @property
    def on_cpu(self) -> Mapping[str, int]:
        """Operator -> how many nodes, of those on the CPU."""
        return self.providers.get(CPU_PROVIDER, {})

    def __str__(self) -> str:
        count = sum(self.on_cpu.values())
        operators = ", ".join(f"{name} {many}" for name, many in sorted(self.on_cpu.items()))
        text = f"{count} of {self.nodes} nodes on the CPU{f' ({operators})' if count else ''}"
        others = [name for name in self.providers if name != CPU_PROVIDER]
        if len(others) > 1:
            # Such as what TensorRT's provider left to CUDA's.
            text += "".join(f", {sum(self.providers[name].values())} on {name}" for name in others)
        return text


def ask_for_placement(options: Any) -> None:
    """Has a session keep its assignment; builds that cannot do so take no notice.

    Args:
        options: ONNX Runtime's `SessionOptions`.
    """
    options.add_session_config_entry(_ENTRY, "1")


def placement_of(session: Any, version: str) -> Placement | None:
    """Where a session's nodes are.

    Args:
        session: ONNX Runtime's `InferenceSession`.
        version: ONNX Runtime's.

    Returns:
        None if this build of ONNX Runtime does not tell.
    """
    if _release(version) < _WHOLE or not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    try:
        assigned = session.get_provider_graph_assignment_info()
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions have no common base class
        log.debug("ONNX Runtime does not tell where nodes are: %s", " ".join(str(error).split()))
        return None
    found: dict[str, Counter[str]] = {}
    for part in assigned:
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return Placement(found)


def _release(version: str) -> tuple[int, ...]:
    numbers = version.split(".")[:2]
    return tuple(int(number) for number in numbers) if all(number.isdecimal() for number in numbers) else ()
