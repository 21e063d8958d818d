"""Random graphs and restrictions of them, by seed."""

import random

from convfabric.errors import NoRouteError
from convfabric.graph import Graph
from convfabric.weavers import Purpose, Trellis, weave_trellis


def random_trellis(seed: int, most_channels: int = 6) -> tuple[Graph, tuple[int, int]]:
    """A trellis of any shape, and the size of images it takes: odd and uneven ones too."""
    dice = random.Random(seed)
    finest, task = dice.choice((0, 0, 1, 2)), dice.choice(("classification", "segmentation"))
    scales = dice.randint(1, 4)
    layers = dice.randint(2 if task == "segmentation" else 1, 6)
    operators = dice.choice(("plain", "block", "banded", "residual"))
    numbers = Trellis(
        layers=layers,
        scales=scales,
        channels=dice.randint(1, most_channels),
        doubling=dice.random() < 0.5,
        finest=finest,
        operators=operators,
        head=dice.choice(("corner", "all")),
        down="strided" if operators == "banded" else dice.choice(("strided", "pooled")),
    )
    least = 2 ** (finest + scales - 1)
    size = (least + dice.randint(0, 9), least + dice.randint(0, 9))
    purpose = Purpose(image_channels=dice.randint(1, 4), classes=dice.randint(2, 5), task=task)
    graph = weave_trellis(numbers, purpose)
    return graph, size


def random_restriction(graph: Graph, seed: int) -> Graph | None:
    """A random part of a graph, or None where the draw left no route."""
    dice = random.Random(seed)
    share = dice.uniform(0.2, 1.0)
    try:
        return graph.restrict(edge.name for edge in graph.edges if dice.random() < share)
    except NoRouteError:
        return None
