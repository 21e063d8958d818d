"""The pictures of a report, taken from what a network answers, and the page around them."""

import csv
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from convfabric.data.imageset import ImageSet, in_order
from convfabric.environment import machine, versions
from convfabric.evaluation.answers import answers
from convfabric.fabric.archive import Passport, write_atomically
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Task
from convfabric.report.box_pictures import box_pictures
from convfabric.report.drawing import draw
from convfabric.report.pages import Picture, page
from convfabric.report.pictures import as_colours, as_picture, shades_of
from convfabric.report.plots import curves, exit_curve
from convfabric.runs.record import RunRecord

MOST_ERRORS, MOST_MASKS = 2000, 12
BATCH = 64


def write_report(
    folder: Path, record: RunRecord, whole: Graph, network: Fabric, papers: Passport, data: ImageSet
) -> Path:
    """``report.html`` in a run folder, from its record and what the network answers."""
    taken = PICTURES[data.task](network, data)
    with (folder / "metrics.csv").open(newline="") as table:
        rows = [_numbers(row) for row in csv.DictReader(table)]
    conditions = {"training ran in": record.plan, **machine(), **versions()}
    lines = [f"{name}: {value}" for name, value in conditions.items()]
    drawing = draw(whole, papers.graph, record.cut.worth if record.cut else {})
    exits = exit_curve(record.exits) if record.exits and record.exits.budgeted else ""
    content = page(record, drawing, curves(rows), list(taken), lines, exits)
    write_atomically(folder / "report.html", content)
    write_atomically(folder / "network.svg", drawing)
    return folder / "report.html"


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    return {k: v if k == "stage" or v == "" else float(v) for k, v in row.items()}


def wrong_pictures(network: Fabric, data: ImageSet) -> Iterator[Picture]:
    """Every image of the judging split that is answered wrong, as *prediction (truth)*; 2,000 at most.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> digits = open_data("digits")
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1, classes=10))
    >>> len(list(wrong_pictures(fabric, digits))) <= len(digits.splits["test"])
    True
    """
    return islice(_all_errors(network, data), MOST_ERRORS)


def _all_errors(network: Fabric, data: ImageSet) -> Iterator[Picture]:
    split = data.splits[data.scored_split]
    pixels = split.batches(in_order(len(split), BATCH))
    for (images, _), (logits, targets) in zip(pixels, answers(network, data, split, BATCH), strict=True):
        guesses = logits.argmax(1)
        for wrong in (guesses != targets).nonzero().flatten().tolist():
            guess, truth = data.classes[int(guesses[wrong])], data.classes[int(targets[wrong])]
            yield as_picture(_shown(images[wrong]), f"{guess} ({truth})", 64)


def _masks(network: Fabric, data: ImageSet) -> Iterator[Picture]:
    """Images evenly taken from the judging split, each beside its truth and its prediction."""
    split = data.splits[data.scored_split]
    stride = max(1, len(split) // MOST_MASKS)
    shades = shades_of(len(data.classes))
    pixels = split.batches(in_order(len(split), 1))
    for (image, _), (logits, targets) in islice(
        zip(pixels, answers(network, data, split, 1), strict=True), 0, stride * MOST_MASKS, stride
    ):
        truth, guess = targets[0].numpy(), logits[0].argmax(0).numpy()
        void = (truth == data.ignore)[..., None]
        maps = [np.where(void, 0, shades[np.minimum(m, len(shades) - 1)]).astype(np.uint8) for m in (truth, guess)]
        yield as_picture(np.concatenate([_shown(image[0]), *maps], axis=1), "", 720)


def _shown(image_CHW: Tensor) -> Any:
    """uint8 (height, width, 3) of an image with any number of channels."""
    return as_colours(image_CHW.permute(1, 2, 0).numpy())


PICTURES: Mapping[Task, Callable[[Fabric, ImageSet], Iterator[Picture]]] = MappingProxyType(
    {"classification": wrong_pictures, "segmentation": _masks, "detection": box_pictures}
)
"""What a page shows of a network's answers, for each task."""
