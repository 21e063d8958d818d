"""What is asked to be timed: an ONNX model, and a line that says the same of it in every run."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from convfabric.fabric.archive import Passport
from convfabric.graph import Graph
from convfabric.graph.json_format import graph_to_json
from convfabric.latency.drafts import network_draft, operation_draft
from convfabric.latency.target import Target
from convfabric.operators import Operator, Work

HOW = "padding in one"
"""Changed whenever operations are timed otherwise, so that what was kept before is not taken for the same."""
Kind = Literal["operation", "network"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model to be timed, and how."""

    kind: Kind
    key: str
    """Says what it is."""
    model: Callable[[], bytes]
    shape: tuple[int, int, int, int]
    """Of its float32 input: batch, channels, height and width."""
    threads: int
    runtime: str
    seconds: float = 0.0
    """Of each block of runs, for networks."""

    @property
    def wanted(self) -> dict[str, object]:
        """How it is to be timed, as the timing program reads it."""
        return {name: getattr(self, name) for name in ("kind", "shape", "threads", "seconds", "runtime")}

    @property
    def file(self) -> str:
        """The name of a file for it, the same for the same model under the same conditions."""
        said = f"{self.kind} {self.key} {self.shape} {self.threads} {self.seconds if self.kind == 'network' else HOW}"
        said += f" {self.runtime}" * (self.runtime != "onnxruntime")
        return f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.onnx"


def of_operation(work: Work, target: Target) -> Asked:
    """An operation between two convolutions.

    >>> from convfabric.operators import Conv
    >>> of_operation(Work(Conv(), 3, 4, (8, 8), (8, 8)), Target(batch=2)).shape
    (2, 3, 8, 8)
    """
    return Asked(
        kind="operation",
        key=f"{target.precision} {key_of(work)}",
        model=partial(operation_draft, work, target.batch, target.precision),
        shape=(target.batch, work.channels_in, *work.size_in),
        threads=target.threads,
        runtime=target.runtime,
    )


def of_network(graph: Graph, papers: Passport, target: Target, seconds: float) -> Asked:
    """A graph with fresh weights, folded as for delivery."""
    return Asked(
        kind="network",
        key=f"{target.precision} {hashlib.sha256(graph_to_json(graph).encode()).hexdigest()}",
        model=partial(network_draft, graph, papers, target.batch, target.precision),
        shape=(target.batch, papers.preprocessing.channels, *papers.preprocessing.size),
        threads=target.threads,
        runtime=target.runtime,
        seconds=seconds,
    )


def of_file(model: Path | bytes, image: tuple[int, int, int], target: Target, seconds: float) -> Asked:
    """A model as it is delivered, for images of (channels, height, width)."""
    content = model.read_bytes() if isinstance(model, Path) else model
    return Asked(
        kind="network",
        key=hashlib.sha256(content).hexdigest(),
        model=lambda: content,
        shape=(target.batch, *image),
        threads=target.threads,
        runtime=target.runtime,
        seconds=seconds,
    )


@lru_cache(maxsize=1 << 16)
def key_of(work: Work) -> str:
    """One line that says what an operation is.

    >>> from convfabric.operators import pointwise_up
    >>> key_of(Work(pointwise_up(), 16, 32, (8, 8), (16, 16)))
    'Chain((Conv(kernel=1, bias=False), Nearest())) 16→32 8×8→16×16'
    """
    (top, left), (bottom, right) = work.size_in, work.size_out
    return f"{_said(work.operator)} {work.channels_in}→{work.channels_out} {top}×{left}→{bottom}×{right}"


def _said(value: object) -> str:
    """An operator without what is as usual."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))})"
    if not isinstance(value, Operator):
        return repr(value)
    own = [(part, getattr(value, part.name)) for part in fields(value)]  # type: ignore[arg-type]
    unusual = [(part.name, found) for part, found in own if found != part.default]
    alone = len(unusual) == 1 and isinstance(unusual[0][1], tuple)
    parts = [_said(found) if alone else f"{name}={_said(found)}" for name, found in unusual]
    return f"{type(value).__name__}({', '.join(parts)})"
