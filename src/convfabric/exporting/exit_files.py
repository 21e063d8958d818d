"""One file for each exit of a network: what lies between two exits, from the responses the first one left.

``exit-1.onnx`` takes ``images`` as model.onnx does; each further file takes the responses that are carried on,
named by their places. Every file gives ``logits`` and, but for the last, what the next one takes.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim

from convfabric.data.imageset import ImageSet, in_order
from convfabric.execution.folding import as_delivered
from convfabric.exporting.exporter import COMPARED_IMAGES
from convfabric.exporting.formats import OPSET, accept_close, save_onnx
from convfabric.exporting.program import MOST_BATCH, carried_facts, on_cpu, quiet
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place, Step
from convfabric.graph.sizes import map_sizes
from convfabric.operators import Size

Stage = tuple[tuple[Step, ...], tuple[Place, ...], tuple[Place, ...]]
"""Steps up to an exit, the places they take from before it, and those they leave for the next."""


def stages(graph: Graph) -> list[Stage]:
    """The walk of a graph, parted behind each exit.

    >>> from convfabric.weavers import weave
    >>> [(len(steps), len(taken), len(left)) for steps, taken, left in stages(weave("msdnet", exits=2, base=1))]
    [(8, 0, 3), (19, 3, 0)]
    """
    found: list[Stage] = []
    steps: list[Step] = []
    alive: set[Place] = set()
    taken: tuple[Place, ...] = ()
    for step in graph.walk:
        steps.append(step)
        alive = (alive | {step.place}) - set(step.done)
        if step.exits:
            found.append((tuple(steps), taken, tuple(sorted(alive))))
            steps, taken = [], tuple(sorted(alive))
    return found


class _Part(nn.Module):
    """One stage: images or carried responses in, logits and what is carried on out."""

    def __init__(self, deployable: Deployable, stage: Stage, image: Size) -> None:
        super().__init__()
        self.deployable = deployable
        self.steps, self.taken, self.left = stage
        self.image, self.sizes = image, map_sizes(deployable.fabric.graph, image)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        fabric = self.deployable.fabric
        images = inputs[0] if self.taken else self.deployable.normalised(inputs[0])
        responses = dict(zip(self.taken, inputs, strict=False))
        logits = images
        for step in self.steps:
            responses[step.place] = fabric.respond(step, responses, images, self.sizes)
            for number in step.exits:
                logits = fabric.answer(fabric.graph.heads[number], responses, self.image)
        return logits, *(responses[place] for place in self.left)


def export_stages(
    fabric: Fabric,
    papers: Passport,
    data: ImageSet,
    folder: Path,
    limits: Sequence[float],
    split: str = "val",
    opset: int = OPSET,
) -> float:
    """``exit-1.onnx`` and so on in a folder, and the largest difference of logits that was seen.

    ``limits`` are the thresholds of confidence that the first file carries for whoever runs them. The files are run
    one after another on images of the split, 256 at most, and kept only where every exit answers like the network.
    Raises ExportError where one does not; nothing is kept then.
    """
    network = on_cpu(fabric)
    deployable = Deployable(as_delivered(network), papers).eval()
    parts = stages(fabric.graph)
    drafts = [folder / f".exit-{number}.{os.getpid()}.draft.onnx" for number in range(1, len(parts) + 1)]
    facts = json.dumps(carried_facts(papers) | {"limits": list(limits)})
    try:
        for stage, draft in zip(parts, drafts, strict=True):
            _write(_Part(deployable, stage, papers.preprocessing.size), stage, papers, draft, facts, opset)
        worst = _compared(drafts, network, data, split)
        for number, draft in enumerate(drafts, 1):
            draft.replace(folder / f"exit-{number}.onnx")
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return worst


def _write(part: _Part, stage: Stage, papers: Passport, file: Path, facts: str, opset: int) -> None:
    _, taken, left = stage
    graph, sizes = part.deployable.fabric.graph, part.sizes
    shapes = [(graph.node(place).channels, *sizes[place]) for place in taken]
    shapes = shapes or [(papers.preprocessing.channels, *papers.preprocessing.size)]
    names, batch = [str(place) for place in taken] or ["images"], Dim("batch", min=1, max=MOST_BATCH)
    examples = tuple(torch.zeros(2, *shape) for shape in shapes)
    with quiet():
        exported = torch.export.export(part, examples, dynamic_shapes={"inputs": tuple({0: batch} for _ in examples)})
    save_onnx(exported, file, facts, opset, names, ["logits", *(f"{place}_on" for place in left)])


def _compared(files: Sequence[Path], fabric: Fabric, data: ImageSet, split: str) -> float:
    sessions = [onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in files]
    worst, count = 0.0, min(len(data.splits[split]), COMPARED_IMAGES)
    for pixels, _ in data.splits[split].batches(in_order(count, 32)):
        with torch.inference_mode():
            wanted = fabric.forward_exits(data.preprocessing.normalised(pixels))
        for number, (found, logits) in enumerate(zip(each_exit(sessions, pixels.float().numpy()), wanted, strict=True)):
            worst = max(worst, accept_close(f"exit-{number + 1}.onnx", logits.numpy(), found))
    return worst


def each_exit(sessions: Sequence[Any], pixels: Any) -> Iterator[Any]:
    """Logits of one exit after another; what lies behind the last one asked for is not run."""
    carried = {"images": pixels}
    for session in sessions:
        answers = dict(zip((output.name for output in session.get_outputs()), session.run(None, carried), strict=True))
        yield answers["logits"]
        carried = {name.removesuffix("_on"): value for name, value in answers.items() if name != "logits"}
