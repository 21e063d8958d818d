"""A network as a torch.export program, which every kind of exported file is written from.

The input ``images`` is float32 (batch, channels, height, width) with pixel values 0 to 255; the output
``logits`` is (batch, classes), or (batch, classes, height, width) for segmentation. For detection it is ``boxes``,
(batch, anchors, 4 + classes): left, top, right and bottom in pixels, and the probability of each class.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch.export import Dim

from convfabric.execution.folding import as_delivered
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.module import Fabric
from convfabric.graph import POINT

MOST_BATCH, MOST_MULTIPLES = 4096, 512


def on_cpu(fabric: Fabric) -> Fabric:
    """A copy of a fabric on the processor, in evaluation mode; the fabric itself stays as it is and where it is.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny")).train()
    >>> on_cpu(fabric).training, fabric.training
    (False, True)
    """
    return copy.deepcopy(fabric).cpu().eval()


def variable_size(papers: Passport) -> int | None:
    """The multiple that both sides of an image may be any of; None where the size is fixed.

    Segmentation takes any multiple of the coarsest stride, if the size it was trained at is one.
    """
    scales = [node.place.scale for node in papers.graph.nodes if node.place.scale < POINT]
    cells = [2**edge.source.scale * edge.operator.cell for edge in papers.graph.edges if edge.source.scale < POINT]
    multiple = max(2 ** max(scales), *cells)
    fits = all(side % multiple == 0 and side > multiple for side in papers.preprocessing.size)
    return multiple if papers.graph.head.task == "segmentation" and fits else None


def program(fabric: Fabric, papers: Passport) -> torch.export.ExportedProgram:
    """The network as a torch.export program with a dynamic batch, and a dynamic size where the graph allows.

    Norms are part of the convolutions before them, or are convolutions themselves.
    """
    deployable = Deployable(as_delivered(on_cpu(fabric)), papers).eval()
    height, width = papers.preprocessing.size
    dynamic: dict[int, Any] = {0: Dim("batch", min=1, max=MOST_BATCH)}
    if multiple := variable_size(papers):
        dynamic[2] = multiple * Dim("rows", min=1, max=MOST_MULTIPLES)
        dynamic[3] = multiple * Dim("columns", min=1, max=MOST_MULTIPLES)
    example = torch.zeros(2, papers.preprocessing.channels, height, width)
    with quiet():
        return torch.export.export(deployable, (example,), dynamic_shapes={"images": dynamic})


def carried_facts(papers: Passport) -> dict[str, Any]:
    """Metadata of an exported file, for whoever runs it."""
    preprocessing = papers.preprocessing
    return {
        "task": papers.graph.head.task,
        "classes": list(papers.classes),
        "size": list(preprocessing.size),
        "channels": preprocessing.channels,
        "fitting": preprocessing.fitting,
        "bounds": list(preprocessing.bounds),
        "pixels": "float32 from 0 to 255; normalisation is inside",
        "range": [0, 255],
        "any_multiple_of": variable_size(papers),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what the exporter says to developers of torch.

    >>> with quiet():
    ...     print("nobody hears")
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
