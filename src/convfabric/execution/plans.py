"""How a graph is run on a machine: chosen in one place, from the graph, the device and what can be built there.

Imports no torch unless it is asked about a CUDA device.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from convfabric.errors import GraphError, SettingError
from convfabric.execution.compiler import library, missing
from convfabric.graph import Graph
from convfabric.graph.costs import works
from convfabric.operators import BandedConv, Size

Precision = Literal["auto", "float32", "bfloat16"]
Execution = Literal["auto", "readable", "compiled"]

WIDE = 16
"""Channels from which a convolution in bfloat16 pays for the conversions (measured on a CPU)."""
NOMINAL: Size = (64, 64)
"""Height and width for which shares of the work are counted; they hardly change with it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a fabric is run. Weights and their names never depend on it."""

    bfloat16: bool = False
    """Whether convolutions run in bfloat16, under autocast in training and by conversion in inference."""
    kernels: bool = False
    """Whether this package's kernels run sparse layers, enlarge maps, and in training norms and the loss of pixels."""
    compiled: bool = False
    """Whether torch.compile is put to work; it takes from half a minute."""
    note: str = ""
    """The part the machine lacks, if the plan would have been another with it."""

    def __str__(self) -> str:
        said = ["bfloat16" if self.bfloat16 else "float32", "channels-last"]
        said += ["own kernels"] * self.kernels + ["torch.compile"] * self.compiled
        return ", ".join(said) + (f" ({self.note})" if self.note else "")


def plan_for(
    graph: Graph,
    device: str = "cpu",
    *,
    training: bool,
    precision: Precision = "auto",
    execution: Execution = "auto",
    build: bool = True,
) -> Plan:
    """The plan for a graph on a kind of device, "cpu" or "cuda".

    ``execution``: "auto" takes this package's kernels where they can be built, "readable" runs every edge by
    itself, "compiled" adds torch.compile. Inference is in float32 unless told otherwise. Without ``build`` nothing
    is compiled to find out.

    >>> from convfabric.weavers import weave
    >>> print(plan_for(weave(), training=False, execution="readable"))
    float32, channels-last
    """
    for name, given, known in (("precision", precision, Precision), ("execution", execution, Execution)):
        if given not in get_args(known):
            raise SettingError(f"{name}={given}: give {', '.join(get_args(known))}.")
    banded = any(isinstance(edge.operator, BandedConv) for edge in graph.edges)
    lacking = _lacking(device, execution, build) if training or banded else ""
    half = precision == "bfloat16" or (
        precision == "auto" and training and _multiplies_bfloat16(device) and _mostly_wide(graph)
    )
    return Plan(
        bfloat16=half,
        kernels=lacking is None,
        compiled=execution == "compiled",
        note=f"sparse layers run as torch's convolutions, several times slower: {lacking}"
        if banded and lacking
        else "",
    )


def _lacking(device: str, execution: Execution, build: bool) -> str | None:
    """Why this package's kernels cannot be used, empty where they are not wanted; None where they can."""
    if execution == "readable":
        return ""
    if device != "cpu":
        return f"the kernels are for processors, not for {device}"
    if not build:
        return missing()
    found = library()
    return found if isinstance(found, str) else None


def _mostly_wide(graph: Graph) -> bool:
    """Whether most of the work is in convolutions that gain by bfloat16."""
    gaining = sum(macs for macs, wide in _convolutions(graph) if wide)
    return 2 * gaining >= sum(macs for macs, _ in _convolutions(graph))


def _convolutions(graph: Graph) -> Iterator[tuple[int, bool]]:
    """MACs of everything that has weights, and whether it is wide; the weights of what runs at a size of its own."""
    try:
        for _, work in works(graph, NOMINAL):
            wide = work.operator.matrix_width(work.channels_in, work.channels_out) >= WIDE
            yield work.operator.macs(*work[1:]), wide
    except GraphError:
        for edge in graph.edges:
            yield edge.operator.parameters(*graph.ends(edge)), min(graph.ends(edge)) >= WIDE


def _multiplies_bfloat16(device: str) -> bool:
    if device == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    facts = Path("/proc/cpuinfo")
    flags = facts.read_text().split() if device == "cpu" and facts.is_file() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags
