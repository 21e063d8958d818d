"""How well a sub-network answers with the weights it inherits, its statistics refreshed: what a search goes by."""

from dataclasses import dataclass, field, replace

from convfabric.data.imageset import ImageSet, drawn
from convfabric.extraction.statistics import refresh
from convfabric.extraction.surgery import extract
from convfabric.fabric import Fabric
from convfabric.graph import Graph
from convfabric.scores import score

REFRESHING, JUDGING = 512, 1024
PIXELS = 32 * 32
"""Images of so many pixels are used in those numbers; of larger ones there are fewer."""
FEWEST = 32
LOSS_SHARE = 0.01


@dataclass(frozen=True)
class Judge:
    """Fitness of the sub-networks of one fabric: accuracy or mIoU on validation images, less a hundredth of the loss.

    The images are the same for all; a graph asked for twice is judged once.
    """

    fabric: Fabric
    few: ImageSet
    """The training images that statistics are refreshed on, and the validation images to be answered."""
    known: dict[Graph, float] = field(default_factory=dict)

    @classmethod
    def of(cls, fabric: Fabric, data: ImageSet) -> "Judge":
        """The judge of a fabric, by a few images of the data."""
        height, width = data.preprocessing.size
        share = min(1.0, PIXELS / (height * width))
        wanted = {"train": REFRESHING, "val": JUDGING}
        splits = {n: drawn(data.splits[n], max(FEWEST, round(count * share))) for n, count in wanted.items()}
        return cls(fabric, replace(data, splits=splits))

    def __call__(self, graph: Graph) -> float:
        """The fitness of a sub-network."""
        if graph not in self.known:
            found = score(refresh(extract(self.fabric, graph), self.few), self.few, "val")
            self.known[graph] = found.headline - LOSS_SHARE * found.loss
        return self.known[graph]
