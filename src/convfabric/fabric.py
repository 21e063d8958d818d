"""A graph made runnable: an ordinary ``nn.Module`` with a stem, the edges, the nodes and a head.

Legend of the suffixes: B images, C channels, H height, W width, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.graph import Graph, Place
from convfabric.laws import check
from convfabric.layers import layer
from convfabric.operators import Norm, Size


class Fabric(nn.Module):
    """The network that a graph describes.

    Images are float tensors (batch, image channels, height, width); answers are logits,
    (batch, classes) for classification and (batch, classes, height, width) for segmentation.
    It can run any restriction of its own graph with the same weights.
    Raises GraphError for a graph that breaks a law.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), classes=3)).eval()
    >>> fabric(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 3])
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = check(graph)
        self.walk = graph.walk
        first = graph.node(graph.entry.place).channels
        self.entry = layer(graph.entry.operator, graph.entry.image_channels, first)
        self.edges = nn.ModuleDict(
            {
                edge.name: layer(edge.operator, graph.node(edge.source).channels, graph.node(edge.target).channels)
                for edge in graph.edges
            }
        )
        self.nodes = nn.ModuleDict(
            {str(node.place): layer(Norm(), node.channels, node.channels) for node in graph.nodes}
        )
        self.head = _HeadLayer(graph)

    def forward(self, images_BCHW: Tensor, graph: Graph | None = None) -> Tensor:
        """Logits of the whole graph, or of a restriction of it."""
        reads = self.forward_features(images_BCHW, graph)
        logits: Tensor = self.head(reads, (images_BCHW.shape[-2], images_BCHW.shape[-1]))
        return logits

    def forward_features(self, images_BCHW: Tensor, graph: Graph | None = None) -> dict[str, Tensor]:
        """The responses that the head reads, by the name of their place."""
        walk, head = (self.walk, self.graph.head) if graph is None else (graph.walk, graph.head)
        sizes = map_sizes(images_BCHW, max(step.place.scale for step in walk))
        responses: dict[Place, Tensor] = {}
        for step in walk:
            size = sizes[step.place.scale]
            arriving = [self.edges[name](responses[source], size) for name, source in step.arriving]
            if step.place == self.graph.entry.place:
                arriving.append(self.entry(images_BCHW, size))
            responses[step.place] = F.relu(self.nodes[str(step.place)](_added(arriving), size))
            for place in step.done:
                del responses[place]
        return {str(place): responses[place] for place in head.reads}


def _added(arriving: list[Tensor]) -> Tensor:
    total = arriving[0]
    for response in arriving[1:]:
        total = total + response
    return total


def map_sizes(images_BCHW: Tensor, scales: int) -> list[Size]:
    """Height and width of the maps at scales 0 to ``scales``.

    An even side is halved without rounding, so that a symbolic multiple stays one under torch.export.

    >>> map_sizes(torch.zeros(1, 3, 9, 8), 2)
    [(9, 8), (5, 4), (3, 2)]
    """
    sizes: list[Size] = [(images_BCHW.shape[-2], images_BCHW.shape[-1])]
    for _ in range(scales):
        sizes.append((_half(sizes[-1][0]), _half(sizes[-1][1])))
    return sizes


def _half(side: int) -> int:
    return side // 2 if side % 2 == 0 else side // 2 + 1


class _HeadLayer(nn.Module):
    """One linear map per response read, their results added; weights (K, C) by the name of the place."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.task, classes = graph.head.task, graph.head.classes
        self.reads = nn.ModuleDict(
            {str(place): nn.Linear(graph.node(place).channels, classes, bias=False) for place in graph.head.reads}
        )
        for weight in self.reads.parameters():
            nn.init.normal_(weight, std=0.01)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, responses: dict[str, Tensor], image: Size) -> Tensor:
        if self.task == "classification":
            logits_BK = [self.reads[name](response.mean((2, 3))) for name, response in responses.items()]
            return _added(logits_BK) + self.bias
        return self._pixel_logits(responses, image)

    def _pixel_logits(self, responses: dict[str, Tensor], image: Size) -> Tensor:
        maps_BKHW = [
            F.conv2d(response, self.reads[name].get_parameter("weight")[:, :, None, None])
            for name, response in responses.items()
        ]
        finest: Size = max(((m.shape[-2], m.shape[-1]) for m in maps_BKHW), key=lambda size: size[0] * size[1])
        logits_BKHW = _added([_enlarged(m, finest) for m in maps_BKHW]) + self.bias[:, None, None]
        return _enlarged(logits_BKHW, image)


def _enlarged(maps_BKHW: Tensor, size: Size) -> Tensor:
    if maps_BKHW.shape[-2:] == size:
        return maps_BKHW
    return F.interpolate(maps_BKHW, size=size, mode="bilinear", align_corners=False)
