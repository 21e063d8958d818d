"""Pictures of images with boxes in them: those that are there, and those that a network finds."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from convfabric.boxes.answers import LIKELY, found_in
from convfabric.data.imageset import ImageSet, in_order
from convfabric.evaluation.answers import answers
from convfabric.fabric.module import Fabric
from convfabric.report.pictures import Picture, as_colours, as_picture, shades_of

MOST_PICTURES, WIDE = 12, 360
Drawn = tuple[Sequence[float], int, str]
"""Left, top, right and bottom in pixels of the image, the class, and what is written at the box."""


def box_pictures(network: Fabric, data: ImageSet) -> Iterator[Picture]:
    """Images evenly taken from the judging split, each with the boxes that are there beside those that are found."""
    split, size = data.splits[data.scored_split], data.preprocessing.size
    stride = max(1, len(split) // MOST_PICTURES)
    shades = shades_of(len(data.classes))
    pixels = split.batches(in_order(len(split), 1))
    both = zip(pixels, answers(network, data, split, 1), strict=True)
    for (image, _), (answer, targets) in islice(both, 0, stride * MOST_PICTURES, stride):
        there = [(row[1:], int(row[0]), data.classes[int(row[0])]) for row in targets[0].tolist() if row[0] >= 0]
        found = found_in(answer, size)[0]
        likely = [
            (box, label, f"{data.classes[label]} {odds:.0%}")
            for box, label, odds in zip(*(part.tolist() for part in found), strict=True)
            if odds >= LIKELY
        ]
        halves = [_drawn(image[0], boxes, shades) for boxes in (there, likely)]
        yield as_picture(np.concatenate(halves, axis=1), f"{len(there)} there, {len(likely)} found", 2 * WIDE)


def _drawn(image_CHW: Tensor, boxes: Sequence[Drawn], shades: Any) -> Any:
    """uint8 (height, width, 3) of an image, enlarged, with boxes on it."""
    array = as_colours(image_CHW.permute(1, 2, 0).numpy())
    times = WIDE / array.shape[1]
    image = Image.fromarray(array).resize((WIDE, max(1, round(times * array.shape[0]))))
    pen = ImageDraw.Draw(image)
    for sides, label, said in boxes:
        left, top, right, bottom = (times * side for side in sides)
        colour = tuple(map(int, shades[label]))
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
        corner = left + 3, max(0, top - 12)
        pen.rectangle(pen.textbbox(corner, said), fill=(255, 255, 255))
        pen.text(corner, said, fill=(0, 0, 0))
    return np.asarray(image)
