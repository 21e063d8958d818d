"""Networks written the plain way, with the wiring of a graph: what a first implementation would be."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.graph import Graph, Place, Step


class Plain(ABC, nn.Module):
    """The walk of a paper's fabric with one operation for each edge, out-of-place sums, and logits at the corner."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        channels = graph.node(graph.entry.place).channels
        self.entry = nn.Conv2d(graph.entry.image_channels, channels, 3, padding=1)
        self.norms = nn.ModuleDict({str(node.place): nn.BatchNorm2d(node.channels) for node in graph.nodes})
        self.head = nn.Linear(channels, graph.head.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        responses: dict[Place, Tensor] = {}
        for step in self.graph.walk:
            responses[step.place] = F.relu(self.norms[str(step.place)](self.joined(step, responses, images)))
        last: Tensor = responses[self.graph.head.reads[0]]
        logits: Tensor = self.head(last.mean((2, 3)))
        return logits

    def joined(self, step: Step, responses: dict[Place, Tensor], images: Tensor) -> Tensor:
        """What arrives at a place, added."""
        total: Tensor = self.entry(images) if step.place == self.graph.entry.place else torch.zeros(())
        for name, _, source in step.arriving:
            total = total + self.edge(name, responses[source], step.place.scale - source.scale)
        return total

    @abstractmethod
    def edge(self, name: str, x: Tensor, moved: int) -> Tensor:
        """What one edge makes of a response."""


class ZeroInserting(Plain):
    """One dense convolution per edge; before those to a finer scale zeros are inserted."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        ends = {edge.name: (graph.node(edge.source).channels, graph.node(edge.target).channels) for edge in graph.edges}
        self.edges = nn.ModuleDict({name: nn.Conv2d(*pair, 3, padding=1) for name, pair in ends.items()})

    def edge(self, name: str, x: Tensor, moved: int) -> Tensor:
        conv = self.edges[name]
        if moved < 0:
            spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
            spread[:, :, ::2, ::2] = x
            x = spread
        assert isinstance(conv, nn.Conv2d)
        return F.conv2d(x, conv.weight, conv.bias, stride=2 if moved > 0 else 1, padding=1)


class Gathering(Plain):
    """Each channel's three neighbours gathered, then one convolution in as many groups as there are channels."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        channels = graph.node(graph.entry.place).channels
        self.edges = nn.ParameterDict(
            {edge.name: nn.Parameter(torch.randn(channels, 3, 3, 3) / 5) for edge in graph.edges}
        )
        self.beside = nn.Buffer((torch.arange(channels)[:, None] + torch.arange(3)).reshape(-1))

    def edge(self, name: str, x: Tensor, moved: int) -> Tensor:
        weight = self.edges[name]
        gathered = F.pad(x, (0, 0, 0, 0, 1, 1))[:, self.beside]
        groups = len(weight)
        if moved < 0:
            turned = weight.reshape(3 * groups, 1, 3, 3).flip(2, 3)
            return F.conv_transpose2d(gathered, turned, stride=2, padding=1, output_padding=1, groups=groups)
        return F.conv2d(gathered, weight, stride=1 + moved, padding=1, groups=groups)
