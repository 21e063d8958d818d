"""Where bfloat16 is worth it."""

from pathlib import Path

import torch

from convfabric.graph import Graph

NARROWEST = 16
"""Channels below which the conversions cost more than the products save (measured on a CPU)."""


def takes_bfloat16(precision: str, graph: Graph, device: torch.device) -> bool:
    """Whether a graph is run in bfloat16 on a device.

    >>> from convfabric.weavers import weave
    >>> takes_bfloat16("float32", weave(), torch.device("cpu"))
    False
    """
    if precision != "auto":
        return precision == "bfloat16"
    if min(node.channels for node in graph.nodes) < NARROWEST:
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _processor_multiplies_bfloat16()


def _processor_multiplies_bfloat16() -> bool:
    facts = Path("/proc/cpuinfo")
    flags = facts.read_text().split() if facts.is_file() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags
