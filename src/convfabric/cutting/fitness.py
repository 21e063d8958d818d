"""How well a sub-network answers with the weights it inherits, its statistics refreshed: what a search goes by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract
from convfabric.data.imageset import ImageSet, drawn
from convfabric.evaluation.scoring import Score, score
from convfabric.execution.processes import each
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.operators import Size
from convfabric.training.recipe import Recipe

REFRESHING, JUDGING = 512, 1024
PIXELS = 32 * 32
"""Images of so many pixels are used in those numbers; of larger ones there are fewer."""
FEWEST, FEWEST_JUDGED = 32, 128
"""However large they are; an accuracy of 0.9 on 128 images has a standard error of 2.7 %."""
LOSS_SHARE = 0.01


def fitness(found: Score) -> float:
    """Accuracy or mIoU, less a hundredth of the loss.

    >>> fitness(Score(images=8, loss=0.5, accuracy=0.75, miou=None, class_iou=()))
    0.745
    """
    return found.headline - LOSS_SHARE * found.loss


@dataclass(frozen=True)
class Judge:
    """The :func:`fitness` of the sub-networks of one fabric on validation images.

    The images are the same for all; a graph asked for twice is judged once.
    """

    fabric: Fabric
    few: ImageSet
    """The training images that statistics are refreshed on, and the validation images to be answered."""
    recipe: Recipe
    """That the fabric was trained by."""
    known: dict[Graph, float] = field(default_factory=dict)

    @classmethod
    def of(cls, fabric: Fabric, data: ImageSet, recipe: Recipe, known: dict[Graph, float] | None = None) -> "Judge":
        """The judge of a fabric, by a few images of the data; of the validation split at most half.

        What it finds is entered in ``known``.
        """
        train = drawn(data.splits["train"], _many(REFRESHING, data))
        val = drawn(data.splits["val"], _judging(data))
        few = replace(data, splits={"train": train, "val": val})
        return cls(fabric, few, recipe, {} if known is None else known)

    @staticmethod
    def unseen(data: ImageSet) -> ImageSet:
        """The data with validation images alone that no judge has seen, for what is decided after a search.

        What was searched for on some images looks better on them than it is. Where there is one image, it is that.
        """
        val = data.splits["val"]
        seen = _judging(data) if len(val) > 1 else 0
        return replace(data, splits={"val": drawn(val, 4 * _many(JUDGING, data), after=seen)})

    def __call__(self, graph: Graph) -> float:
        """The fitness of a sub-network."""
        return self.all([graph])[0]

    def all(self, graphs: Sequence[Graph]) -> list[float]:
        """The fitness of each sub-network; those that are not known are shared out among the processes of the run."""
        if fresh := [graph for graph in dict.fromkeys(graphs) if graph not in self.known]:
            size = self.few.preprocessing.size
            found = each(lambda asked: self.judged(asked[0]), [(graph, size) for graph in fresh])
            self.known.update(zip(fresh, found, strict=True))
        return [self.known[graph] for graph in graphs]

    @classmethod
    def helping(cls, fabric: Fabric, data: ImageSet, recipe: Recipe) -> Callable[[tuple[Graph, Size]], float]:
        """What :meth:`all` asks of the other processes: the fitness of a sub-network on images of a size."""
        at = cache(lambda size: cls.of(fabric, data.at(size), recipe))
        return lambda asked: at(asked[1]).judged(asked[0])

    def judged(self, graph: Graph) -> float:
        return fitness(score(refresh(extract(self.fabric, graph), self.few, self.recipe), self.few, "val"))


def _judging(data: ImageSet) -> int:
    return min(max(FEWEST_JUDGED, _many(JUDGING, data)), max(1, len(data.splits["val"]) // 2))


def _many(usual: int, data: ImageSet) -> int:
    """A number of images that takes as long as the usual one at 32×32 pixels."""
    height, width = data.preprocessing.size
    return max(FEWEST, round(usual * min(1.0, PIXELS / (height * width))))
