"""A network with its preprocessing inside, as it leaves the house and as it is timed."""

import torch
from torch import Tensor, nn

from convfabric.boxes.answers import boxes_and_odds
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric, image_size
from convfabric.graph import Task
from convfabric.operators import Size


class Deployable(nn.Module):
    """Normalisation, then the network; for detection the boxes that its answer says."""

    def __init__(self, fabric: Fabric, papers: Passport) -> None:
        super().__init__()
        shape = (1, papers.preprocessing.channels, 1, 1)
        self.fabric, self.task = fabric, papers.graph.head.task
        self.mean = nn.Buffer(255 * torch.tensor(papers.preprocessing.mean).view(shape))
        self.scale = nn.Buffer(1 / (255 * torch.tensor(papers.preprocessing.std).view(shape)))

    def normalised(self, images: Tensor) -> Tensor:
        """The network's input for float32 pixels from 0 to 255."""
        return (images - self.mean) * self.scale

    def forward(self, images: Tensor) -> Tensor:
        """What :func:`delivered` makes of the logits of float32 pixels (B, C, H, W) from 0 to 255."""
        return delivered(self.fabric(self.normalised(images)), self.task, image_size(images))


def delivered(logits: Tensor, task: Task, image: Size) -> Tensor:
    """What an exported file answers: logits, or of detection the boxes of every anchor and their probabilities.

    Those are (B, N, 4 + K), see :func:`convfabric.boxes.answers.boxes_and_odds`.

    >>> delivered(torch.zeros(2, 3), "classification", (8, 8)).shape
    torch.Size([2, 3])
    """
    return boxes_and_odds(logits, image) if task == "detection" else logits
