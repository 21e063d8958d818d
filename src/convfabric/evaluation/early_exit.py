"""Networks with several exits: answers that stop early for real, scores of every exit, budgeted batches.

Legend of the suffixes: B images, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet
from convfabric.errors import SettingError
from convfabric.evaluation.exit_thresholds import Confidences, budgeted, cheapest_as_good
from convfabric.evaluation.scoring import each_answer, score
from convfabric.fabric.module import Fabric, map_sizes
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs


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
    sizes, heads = map_sizes(images_BCHW, fabric.walk), fabric.graph.heads
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
            logits = fabric.answer(heads[number], responses, sizes[0])
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
    """Multiply-accumulates of an image that leaves at each exit, with all work before it."""
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


def anytime_facts(fabric: Fabric, data: ImageSet, split: str) -> dict[str, Any]:
    """Score and cost of each exit on a split; for classification budgeted batches and recommended thresholds, too.

    Thresholds are chosen on val; the recommended ones are the cheapest that there are no worse than the last exit.
    """
    macs = exit_macs(fabric.graph, data.preprocessing.size)
    named = zip(fabric.graph.heads, macs, strict=True)
    if data.task == "segmentation":
        scores = [score(_AtExit(fabric, number), data, split) for number in range(len(macs))]
        rows = [
            {"name": head.name, "miou": found.miou, "macs": cost}
            for (head, cost), found in zip(named, scores, strict=True)
        ]
        return {"split": split, "exits": rows}
    chosen, judged = confidences(fabric, data, "val"), confidences(fabric, data, split)
    rows = [
        {"name": head.name, "accuracy": float(right_N.mean()), "macs": cost}
        for (head, cost), right_N in zip(named, judged.right_KN, strict=True)
    ]
    pairs = budgeted(chosen, judged, macs)
    best = cheapest_as_good([on_val for on_val, _ in pairs], float(chosen.right_KN[-1].mean()))
    recommended = next(on_split for on_val, on_split in pairs if on_val is best)
    curve = [asdict(on_split) for _, on_split in pairs]
    return {"split": split, "exits": rows, "budgeted": curve, "recommended": asdict(recommended)}


class _AtExit(nn.Module):
    """A fabric whose answer is that of one exit."""

    def __init__(self, fabric: Fabric, number: int) -> None:
        super().__init__()
        self.fabric, self.number = fabric, number

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.fabric.forward_exits(images_BCHW)[self.number]
