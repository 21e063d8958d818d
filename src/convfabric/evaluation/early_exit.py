"""Networks with several exits: answers that stop early for real, scores of every exit, budgeted batches.

Legend of the suffixes: B images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet
from convfabric.errors import SettingError
from convfabric.evaluation.answers import each_answer
from convfabric.evaluation.exit_thresholds import Confidences, Exit, Exits, budgeted, cheapest_as_good
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric, image_size
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs
from convfabric.graph.sizes import map_sizes


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Answers, and where each image left."""

    logits_BK: Tensor
    exits_B: Tensor
    """int64, counted from 0."""


@torch.inference_mode()
def answer_early(fabric: Fabric, images_BCHW: Tensor, limits: Sequence[float]) -> Stopped:
    """The answers of a classifier whose images leave at the first exit confident enough.

    ``limits`` has a threshold for each exit. Work behind the exit that is taken is not done: the walk ends when
    the last image has left, and images that have left are taken out of the batch.
    Raises SettingError where there are not as many thresholds as exits, or the network does not classify or is
    in training.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("msdnet", exits=2, base=1, growth=2, channels=2)).eval()
    >>> answer_early(fabric, torch.zeros(3, 3, 32, 32), (0.0, 0.0)).exits_B.tolist()
    [0, 0, 0]
    """
    image, heads = image_size(images_BCHW), fabric.graph.heads
    sizes = map_sizes(fabric.graph, image)
    if fabric.graph.head.task != "classification" or fabric.training:
        raise SettingError("answering early is for classifiers in evaluation mode: call eval() first.")
    if not isinstance(limits, Sequence) or len(limits) != len(heads):
        raise SettingError(f"limits={limits}: give a threshold for each of the {len(heads)} exits.")
    count, device = len(images_BCHW), images_BCHW.device
    logits_BK = images_BCHW.new_zeros(count, heads[0].classes)
    exits_B = torch.zeros(count, dtype=torch.int64, device=device)
    inside = torch.arange(count, device=device)
    responses: dict[Place, Tensor] = {}
    for step in fabric.walk:
        responses[step.place] = fabric.respond(step, responses, images_BCHW, sizes)
        for number in step.exits:
            logits = fabric.answer(heads[number], responses, image)
            last = number == len(heads) - 1
            leaves = torch.full_like(inside, last, dtype=torch.bool)
            leaves |= logits.softmax(1).amax(1) >= limits[number]
            logits_BK[inside[leaves]], exits_B[inside[leaves]] = logits[leaves], number
            if leaves.all():
                return Stopped(logits_BK=logits_BK, exits_B=exits_B)
            if leaves.any():
                stays = ~leaves
                inside, images_BCHW = inside[stays], images_BCHW[stays]
                responses = {place: response[stays] for place, response in responses.items()}
        for place in step.done:
            del responses[place]
    raise AssertionError("the last exit answers for whoever is left")


def exit_macs(graph: Graph, image: tuple[int, int]) -> list[int]:
    """Multiply-accumulates of an image that leaves at each exit, with all work before it.

    >>> from convfabric.weavers import weave
    >>> exit_macs(weave("msdnet", exits=2, base=1), (32, 32))
    [5905664, 11516416]
    """
    return [costs(graph.until(number + 1), image).macs for number in range(len(graph.heads))]


def confidences(fabric: Fabric, data: ImageSet, split: str) -> Confidences:
    """Confidence and correctness of every exit on every image of a split."""
    largest: list[list[Tensor]] = [[] for _ in fabric.graph.heads]
    right: list[list[Tensor]] = [[] for _ in fabric.graph.heads]
    for exits, targets in each_answer(fabric, data, data.splits[split]):
        for number, logits in enumerate(exits):
            odds, guess = logits.softmax(1).max(1)
            largest[number].append(odds.cpu())
            right[number].append((guess == targets).cpu())
    joined = [np.stack([torch.cat(part).numpy() for part in parts]) for parts in (largest, right)]
    return Confidences(largest_KN=joined[0], right_KN=joined[1])


def exits_of(fabric: Fabric, data: ImageSet, split: str) -> Exits:
    """Score and cost of each exit on a split; for classification budgeted batches and recommended thresholds, too.

    Thresholds are chosen on val; the recommended ones are the cheapest that there are no worse than the last exit.
    """
    macs = exit_macs(fabric.graph, data.preprocessing.size)
    names = [head.name for head in fabric.graph.heads]
    if data.task == "segmentation":
        scores = [score(_AtExit(fabric, number), data, split).headline for number in range(len(macs))]
        return Exits(split=split, each=_each(names, scores, macs))
    chosen, judged = confidences(fabric, data, "val"), confidences(fabric, data, split)
    pairs = budgeted(chosen, judged, macs)
    best = cheapest_as_good([on_val for on_val, _ in pairs], float(chosen.right_KN[-1].mean()))
    return Exits(
        split=split,
        each=_each(names, [float(right_N.mean()) for right_N in judged.right_KN], macs),
        budgeted=tuple(on_split for _, on_split in pairs),
        recommended=next(on_split for on_val, on_split in pairs if on_val is best),
    )


def _each(names: Sequence[str], scores: Sequence[float], macs: Sequence[int]) -> tuple[Exit, ...]:
    rows = zip(names, scores, macs, strict=True)
    return tuple(Exit(name=name, score=found, macs=cost) for name, found, cost in rows)


class _AtExit(nn.Module):
    """A fabric whose answer is that of one exit."""

    def __init__(self, fabric: Fabric, number: int) -> None:
        super().__init__()
        self.fabric, self.number = fabric, number

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.fabric.forward_exits(images_BCHW)[self.number]
