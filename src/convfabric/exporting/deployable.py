"""A network with its preprocessing inside, as ONNX and as a torch.export program.

The input ``images`` is float32 (batch, channels, height, width) with pixel values 0 to 255; the output
``logits`` is (batch, classes), or (batch, classes, height, width) for segmentation.
"""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim

from convfabric.data.imageset import ImageSet, in_order
from convfabric.errors import ExportError
from convfabric.execution.folding import folded
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric
from convfabric.graph import POINT

TOLERANCE = 1e-4
"""Largest difference of logits that is let pass."""
COMPARED_IMAGES = 256
MOST_BATCH, MOST_MULTIPLES = 4096, 512


class Deployable(nn.Module):
    """Normalisation, then the network."""

    def __init__(self, fabric: Fabric, papers: Passport) -> None:
        super().__init__()
        shape = (1, papers.preprocessing.channels, 1, 1)
        self.fabric = fabric
        self.mean = nn.Buffer(255 * torch.tensor(papers.preprocessing.mean).view(shape))
        self.scale = nn.Buffer(1 / (255 * torch.tensor(papers.preprocessing.std).view(shape)))

    def normalised(self, images: Tensor) -> Tensor:
        """What the network sees of float32 pixels from 0 to 255."""
        return (images - self.mean) * self.scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits of float32 pixels (B, C, H, W) from 0 to 255."""
        logits: Tensor = self.fabric(self.normalised(images))
        return logits


def variable_size(papers: Passport) -> int | None:
    """The multiple that both sides of an image may be any of; None where the size is fixed.

    Segmentation takes any multiple of the coarsest stride, if the size it was trained at is one.
    """
    multiple = 2 ** max(node.place.scale for node in papers.graph.nodes if node.place.scale < POINT)
    fits = all(side % multiple == 0 and side > multiple for side in papers.preprocessing.size)
    return multiple if papers.graph.head.task == "segmentation" and fits else None


def program(fabric: Fabric, papers: Passport) -> torch.export.ExportedProgram:
    """The network as a torch.export program with a dynamic batch, and a dynamic size where the graph allows.

    Norms are part of the convolutions before them.
    """
    deployable = Deployable(folded(fabric.cpu()), papers).eval()
    height, width = papers.preprocessing.size
    dynamic: dict[int, Any] = {0: Dim("batch", min=1, max=MOST_BATCH)}
    if multiple := variable_size(papers):
        dynamic[2] = multiple * Dim("rows", min=1, max=MOST_MULTIPLES)
        dynamic[3] = multiple * Dim("columns", min=1, max=MOST_MULTIPLES)
    example = torch.zeros(2, papers.preprocessing.channels, height, width)
    with quiet():
        return torch.export.export(deployable, (example,), dynamic_shapes={"images": dynamic})


def write_onnx(exported: torch.export.ExportedProgram, papers: Passport, file: Path) -> None:
    """The program as an ONNX file that carries its classes and preprocessing as metadata."""
    with quiet():
        made = torch.onnx.export(exported, (), dynamo=True, input_names=["images"], output_names=["logits"])
    assert made is not None
    made.model.metadata_props["convfabric"] = json.dumps(carried_facts(papers))
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(file), external_data=False)


def carried_facts(papers: Passport) -> dict[str, Any]:
    """What the file tells whoever runs it."""
    preprocessing = papers.preprocessing
    return {
        "task": papers.graph.head.task,
        "classes": list(papers.classes),
        "size": list(preprocessing.size),
        "channels": preprocessing.channels,
        "fitting": preprocessing.fitting,
        "pixels": "float32 from 0 to 255; normalisation is inside",
        "any_multiple_of": variable_size(papers),
    }


def export(fabric: Fabric, papers: Passport, data: ImageSet, folder: Path, split: str = "val") -> float:
    """``model.onnx`` and ``model.pt2`` in a folder, and the largest difference of logits that was seen.

    Both are run on images of the split, 256 at most, and kept only where they answer like the network.
    Raises ExportError with the difference where they do not; files that were there then stay.
    """
    fabric = fabric.eval().cpu()
    exported = program(fabric, papers)
    draft = folder / ".draft.onnx"
    try:
        write_onnx(exported, papers, draft)
        session = onnxruntime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])
        apart = compared(lambda pixels: session.run(None, {"images": pixels})[0], fabric, data, split, "model.onnx")
        pt2 = folder / ".draft.pt2"
        with quiet():
            torch.export.save(exported, pt2)
            again: Any = torch.export.load(pt2).module()
        other = compared(
            lambda pixels: again(torch.from_numpy(pixels)).detach().numpy(), fabric, data, split, "model.pt2"
        )
        draft.replace(folder / "model.onnx")
        pt2.replace(folder / "model.pt2")
    finally:
        for left in (folder / ".draft.onnx", folder / ".draft.pt2"):
            left.unlink(missing_ok=True)
    return max(apart, other)


def compared(
    answer: Callable[[Any], Any], fabric: Fabric, data: ImageSet, split: str, name: str, images: int = COMPARED_IMAGES
) -> float:
    """The largest difference between a file's logits and the network's on images of a split.

    Raises ExportError where it is above the tolerance, or a first choice differs by more than rounding.
    """
    worst, batch = 0.0, 32 if data.task == "classification" else 4
    count = min(len(data.splits[split]), images if data.task == "classification" else images // 16)
    for pixels, _ in data.splits[split].batches(in_order(count, batch)):
        with torch.inference_mode():
            wanted = fabric(data.preprocessing.normalised(pixels)).numpy()
        found = answer(pixels.float().numpy())
        apart = float(np.abs(wanted - found).max())
        worst = max(worst, apart)
        if not apart <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise ExportError(
                f"{name} answers unlike the network: logits are up to {apart:.2e} apart on {split} images, "
                f"{TOLERANCE:.0e} is let pass. The file was not kept."
            )
    return worst


@contextmanager
def quiet() -> Any:
    """Silences what the exporter says to developers of torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
