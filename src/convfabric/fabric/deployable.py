"""A network with its preprocessing inside, as it leaves the house and as it is timed."""

import torch
from torch import Tensor, nn

from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric


class Deployable(nn.Module):
    """Normalisation, then the network."""

    def __init__(self, fabric: Fabric, papers: Passport) -> None:
        super().__init__()
        shape = (1, papers.preprocessing.channels, 1, 1)
        self.fabric = fabric
        self.mean = nn.Buffer(255 * torch.tensor(papers.preprocessing.mean).view(shape))
        self.scale = nn.Buffer(1 / (255 * torch.tensor(papers.preprocessing.std).view(shape)))

    def normalised(self, images: Tensor) -> Tensor:
        """The network's input for float32 pixels from 0 to 255."""
        return (images - self.mean) * self.scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits of float32 pixels (B, C, H, W) from 0 to 255."""
        logits: Tensor = self.fabric(self.normalised(images))
        return logits
