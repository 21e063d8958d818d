"""Exported files, each compared with the network before it is kept."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from convfabric.data.imageset import ImageSet, in_order
from convfabric.errors import ExportError
from convfabric.exporting.formats import FORMATS, Answer, Format, Logits, Pixels
from convfabric.exporting.program import on_cpu, program
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import delivered
from convfabric.fabric.module import Fabric

COMPARED_IMAGES = 256


def export(
    fabric: Fabric,
    papers: Passport,
    data: ImageSet,
    folder: Path,
    split: str = "val",
    formats: Sequence[Format] = FORMATS,
) -> float:
    """The files of every format in a folder, ``model.onnx`` and so on, and the largest difference of logits seen.

    Each is run on images of the split, 256 at most, and all are kept only where all answer like the network.
    Raises ExportError with the difference where one does not; files that were there then stay.
    """
    network = on_cpu(fabric)
    exported = program(network, papers)
    drafts = {format_: folder / f".model.{os.getpid()}.draft{format_.suffix}" for format_ in formats}
    try:
        worst = 0.0
        for format_, draft in drafts.items():
            format_.write(exported, papers, draft)
            worst = max(worst, compared(format_, format_.run(draft), network, data, split))
        for format_, draft in drafts.items():
            draft.replace(folder / format_.file)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    return worst


def compared(format_: Format, answer: Answer, network: Fabric, data: ImageSet, split: str) -> float:
    """The largest difference between a file's logits and the network's on images of a split.

    Raises ExportError where the format does not accept it, naming the split.
    """
    worst = 0.0
    for pixels, wanted in _answers(network, data, split):
        try:
            worst = max(worst, format_.accept(format_.file, wanted, answer(pixels)))
        except ExportError as fault:
            raise ExportError(f"on images of {split}, {fault}") from None
    return worst


def _answers(network: Fabric, data: ImageSet, split: str) -> Iterator[tuple[Pixels, Logits]]:
    batch, share = (32, 1) if data.task == "classification" else (4, 16)
    count = min(len(data.splits[split]), COMPARED_IMAGES // share)
    for pixels, _ in data.splits[split].batches(in_order(count, batch)):
        with torch.inference_mode():
            logits = network(data.preprocessing.normalised(pixels))
            yield pixels.float().numpy(), delivered(logits, data.task, data.preprocessing.size).numpy()
