"""The pictures of a report, taken from what a network answers, and the page around them."""

import csv
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convfabric.data.imageset import ImageSet, in_order
from convfabric.environment import machine, versions
from convfabric.evaluation.answers import answers
from convfabric.fabric.archive import Passport, write_atomically
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Task
from convfabric.report.box_pictures import box_pictures
from convfabric.report.confusions import Confusion
from convfabric.report.drawing import draw
from convfabric.report.edge_facts import edge_facts
from convfabric.report.pages import Drawn, page
from convfabric.report.pictures import Picture, as_colours, as_picture, shades_of
from convfabric.report.plots import curves, exit_curve
from convfabric.runs.folder import job_of
from convfabric.runs.record import RunRecord

MOST_ERRORS, MOST_MASKS = 2000, 12
MOST_TEXT = 600_000
"""Letters of the pictures of errors: a page is a few hundred kB."""
BATCH = 64
ERROR_WIDTH, MASK_WIDTH = 112, 480
"""Pixels on the screen, and of images that are larger."""


@dataclass(frozen=True)
class Answered:
    """What a network answers on the scored split: pictures, and of classification the confusion."""

    pictures: Sequence[Picture]
    confusion: Confusion = ()


def write_report(
    folder: Path, record: RunRecord, whole: Graph, network: Fabric, papers: Passport, data: ImageSet
) -> Path:
    """``report.html`` in a run folder, from its record and what the network answers."""
    answered = ANSWERED[data.task](network, data)
    with (folder / "metrics.csv").open(newline="") as table:
        rows = [_numbers(row) for row in csv.DictReader(table)]
    conditions = {"training ran in": record.plan, **machine(), **versions()}
    worth, edge_ms = (record.cut.worth, record.cut.edge_ms) if record.cut else ({}, {})
    facts = edge_facts(whole, papers.graph, worth, edge_ms, papers.preprocessing.size)
    drawn = Drawn(
        network=draw(whole, papers.graph, worth, facts),
        curves=curves(rows),
        exits=exit_curve(record.exits) if record.exits and record.exits.budgeted else "",
        pictures=answered.pictures,
        confusion=answered.confusion,
        shades=["rgb({},{},{})".format(*shade) for shade in shades_of(len(data.classes)).tolist()],
        again=_again(folder),
        run=folder.resolve().name,
        conditions=[f"{name}: {value}" for name, value in conditions.items()],
    )
    write_atomically(folder / "report.html", page(record, drawn))
    write_atomically(folder / "network.svg", draw(whole, papers.graph, worth))
    return folder / "report.html"


def _again(folder: Path) -> str:
    """What is typed to repeat a run."""
    data = job_of(folder).data
    out = folder.with_name(f"{folder.resolve().name}-again")
    return shlex.join(["convfabric", "fit", data, "--config", str(folder / "config.yaml"), "--out", str(out)])


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    return {k: v if k == "stage" or v == "" else float(v) for k, v in row.items()}


@dataclass(frozen=True, order=True)
class _Mistake:
    """An image answered wrong."""

    truth: int
    guess: int
    odds: float
    """Probability of what was predicted."""
    at: int
    """Its position in the split."""


def wrong_pictures(network: Fabric, data: ImageSet) -> Iterator[Picture]:
    """Every image of the scored split that is answered wrong, by class and prediction; the 2,000 surest at most.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> digits = open_data("digits")
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1, classes=10))
    >>> len(list(wrong_pictures(fabric, digits))) <= len(digits.splits["test"])
    True
    """
    yield from _pictured(sorted(_surest(_mistakes(network, data)[0])), data)


def _classified(network: Fabric, data: ImageSet) -> Answered:
    """Pictures of the surest errors, as many as a page bears, and the confusion."""
    mistakes, confusion = _mistakes(network, data)
    shown, text = list[Picture](), 0
    for picture in _pictured(_surest(mistakes), data):
        text += len(picture.source)
        if text > MOST_TEXT:
            break
        shown.append(picture)
    return Answered(sorted(shown, key=lambda one: one.mistake or (0, 0)), confusion)


def _surest(mistakes: Sequence[_Mistake]) -> list[_Mistake]:
    return sorted(mistakes, key=lambda one: -one.odds)[:MOST_ERRORS]


def _mistakes(network: Fabric, data: ImageSet) -> tuple[list[_Mistake], Confusion]:
    classes, found, begin = len(data.classes), list[_Mistake](), 0
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for logits, targets in answers(network, data, data.splits[data.scored_split]):
        odds, guesses = logits.softmax(1).max(1)
        counts += torch.bincount(classes * targets.cpu() + guesses.cpu(), minlength=classes**2).view(classes, classes)
        found += [
            _Mistake(int(targets[at]), int(guesses[at]), float(odds[at]), begin + at)
            for at in (guesses != targets).nonzero().flatten().tolist()
        ]
        begin += len(targets)
    return found, tuple(map(tuple, counts.tolist()))


def _pictured(mistakes: Sequence[_Mistake], data: ImageSet) -> Iterator[Picture]:
    groups = [mistakes[start : start + BATCH] for start in range(0, len(mistakes), BATCH)]
    loaded = data.splits[data.scored_split].batches([[one.at for one in group] for group in groups])
    for group, (images, _) in zip(groups, loaded, strict=True):
        for one, image in zip(group, images, strict=True):
            said = f"{data.classes[one.guess]}, {one.odds:.0%} ({data.classes[one.truth]})"
            picture = as_picture(_at_most(_shown(image), 2 * ERROR_WIDTH), said, ERROR_WIDTH, photo=True)
            yield replace(picture, mistake=(one.truth, one.guess))


def _masked(network: Fabric, data: ImageSet) -> Answered:
    """Images evenly taken from the scored split, with their masks and the network's to lay over them."""
    split = data.splits[data.scored_split]
    stride = max(1, len(split) // MOST_MASKS)
    shades = shades_of(len(data.classes))
    pixels = split.batches(in_order(len(split), 1))
    both = islice(zip(pixels, answers(network, data, split, 1), strict=True), 0, stride * MOST_MASKS, stride)
    pictures = []
    for (image, _), (logits, targets) in both:
        truth, guess = targets[0].cpu().numpy(), logits[0].argmax(0).cpu().numpy()
        counted = truth != data.ignore
        right = float((truth == guess)[counted].mean()) if counted.any() else 0.0
        above = [_overlay(mask, shades, counted) for mask in (truth, guess)]
        said = f"{right:.1%} of its pixels right"
        pictures.append(as_picture(_at_most(_shown(image[0]), MASK_WIDTH), said, MASK_WIDTH, above, photo=True))
    return Answered(pictures)


def _overlay(mask: Any, shades: Any, counted: Any) -> Any:
    """A mask in colours, uint8 (height, width, 4); clear where nothing counts."""
    colours = shades[np.minimum(mask, len(shades) - 1)]
    return np.concatenate([colours, np.where(counted, 255, 0)[..., None]], axis=2).astype(np.uint8)


def _shown(image_CHW: Tensor) -> Any:
    """uint8 (height, width, 3) of an image with any number of channels."""
    return as_colours(image_CHW.permute(1, 2, 0).numpy())


def _at_most(pixels: Any, wide: int) -> Any:
    """The same, made smaller where it is wider."""
    if pixels.shape[1] <= wide:
        return pixels
    high = max(1, round(pixels.shape[0] * wide / pixels.shape[1]))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((wide, high)))


def _boxed(network: Fabric, data: ImageSet) -> Answered:
    return Answered(list(box_pictures(network, data)))


ANSWERED: Mapping[Task, Callable[[Fabric, ImageSet], Answered]] = MappingProxyType(
    {"classification": _classified, "segmentation": _masked, "detection": _boxed}
)
"""What a page shows of a network's answers, for each task."""
