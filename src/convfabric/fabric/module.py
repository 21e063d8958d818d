"""A graph made runnable: an ordinary ``nn.Module`` with a stem, the edges, the nodes and its heads.

Legend of the suffixes: B images, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.boxes.answers import laid_out
from convfabric.fabric.inherited_weights import check_is_part, inherited, leading_slices
from convfabric.fabric.layers import added, layer, multiplied
from convfabric.graph import Graph, Head, Join, Place, Step, remembered
from convfabric.graph.laws import check
from convfabric.graph.sizes import map_sizes
from convfabric.operators import Size

Gates = Mapping[str, Tensor]
"""By the name of an edge, what its result is multiplied by: (B, 1, 1, 1) or a number."""
NO_GATES: Gates = MappingProxyType({})
Enlarge = Callable[[Tensor, Size], Tensor]
"""How maps (B, C, H, W) are brought to a larger size."""
HEADS = ("heads.",)
"""What names of the weights of heads begin with."""


def enlarged(maps_BCHW: Tensor, size: Size) -> Tensor:
    """The maps at a size, by bilinear interpolation.

    >>> enlarged(torch.ones(1, 1, 2, 2), (3, 5)).shape
    torch.Size([1, 1, 3, 5])
    """
    if maps_BCHW.shape[-2:] == size:
        return maps_BCHW
    return F.interpolate(maps_BCHW, size=size, mode="bilinear", align_corners=False)


class Fabric(nn.Module):
    """The network that a graph describes.

    Images are float tensors (batch, image channels, height, width); answers are logits,
    (batch, classes) for classification and (batch, classes, height, width) for segmentation; for detection they are
    (batch, classes + 9, anchors), see :mod:`convfabric.boxes`.
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
        self.edges = nn.ModuleDict()
        for edge in {edge.weights: edge for edge in graph.edges}.values():
            self.edges[edge.weights] = layer(edge.operator, *graph.ends(edge))
        self.nodes = nn.ModuleDict(
            {str(node.place): layer(node.then, node.channels, node.channels) for node in graph.nodes}
        )
        self.heads = nn.ModuleDict({head.name: _HeadLayer(graph, head) for head in graph.heads})

    def forward(self, images_BCHW: Tensor, graph: Graph | None = None) -> Tensor:
        """Logits of the last exit of the whole graph, or of a restriction of it."""
        return self.forward_exits(images_BCHW, graph)[-1]

    def forward_exits(
        self, images_BCHW: Tensor, graph: Graph | None = None, gates: Gates = NO_GATES
    ) -> tuple[Tensor, ...]:
        """Logits of every exit, the earliest first.

        A restriction that takes channels from a concatenation runs on slices of the weights; running
        statistics of norms that were sliced are then not updated in training.
        """
        if graph is not None and not has_all_channels(graph, self.graph):
            return self._run_sliced(images_BCHW, graph, gates)
        graph = graph or self.graph
        image = image_size(images_BCHW)
        sizes = map_sizes(graph, image)
        responses: dict[Place, Tensor] = {}
        logits: list[Tensor] = []
        for step in graph.walk:
            responses[step.place] = self.respond(step, responses, images_BCHW, sizes, gates)
            logits += [self.answer(graph.heads[exit_], responses, image) for exit_ in step.exits]
            for place in step.done:
                del responses[place]
        return tuple(logits)

    def forward_features(self, images_BCHW: Tensor, places: Collection[Place] = ()) -> dict[str, Tensor]:
        """The responses at some places, or of those that the last head reads, by the name of the place."""
        wanted = places or self.graph.head.reads
        sizes = map_sizes(self.graph, image_size(images_BCHW))
        responses: dict[Place, Tensor] = {}
        for step in self.walk:
            responses[step.place] = self.respond(step, responses, images_BCHW, sizes)
            for place in step.done:
                if place not in wanted:
                    del responses[place]
        return {str(place): responses[place] for place in wanted}

    def respond(
        self,
        step: Step,
        responses: Mapping[Place, Tensor],
        images_BCHW: Tensor,
        sizes: Mapping[Place, Size],
        gates: Gates = NO_GATES,
    ) -> Tensor:
        """The response of one place, from those before it."""
        joined = self.joined(step, responses, images_BCHW, sizes, gates)
        response: Tensor = self.nodes[str(step.place)](joined, sizes[step.place])
        return response

    def joined(
        self,
        step: Step,
        responses: Mapping[Place, Tensor],
        images_BCHW: Tensor,
        sizes: Mapping[Place, Size],
        gates: Gates = NO_GATES,
    ) -> Tensor:
        """The results of the edges that end at one place, joined."""
        size = sizes[step.place]
        arriving = []
        for name, weights, source in step.arriving:
            result = self.edges[weights](responses[source], size)
            arriving.append(result * gates[name] if name in gates else result)
        if step.place == self.graph.entry.place:
            arriving.append(self.entry(images_BCHW, size))
        return _joined(arriving, step.join)

    def answer(self, head: Head, responses: Mapping[Place, Tensor], image: Size, enlarge: Enlarge = enlarged) -> Tensor:
        """The logits of one head."""
        read = {str(place): responses[place] for place in head.reads}
        logits: Tensor = self.heads[head.name](read, image, enlarge)
        return logits

    def leave_out(self, share: float) -> None:
        """In training heads read so much less from now on: the share of values that dropout makes zero."""
        for head in self.heads.values():
            assert isinstance(head, _HeadLayer)
            head.dropout = share

    def _run_sliced(self, images_BCHW: Tensor, graph: Graph, gates: Gates) -> tuple[Tensor, ...]:
        own = dict(self.named_parameters()) | dict(self.named_buffers())
        weights = inherited(own, leading_slices(self.graph, graph))
        runner = unweighted(graph).to(images_BCHW.device).train(self.training)
        named = {f"fabric.{name}": weight for name, weight in weights.items()}
        answers: tuple[Tensor, ...] = torch.func.functional_call(runner, named, (images_BCHW, gates))
        return answers


@remembered
def has_all_channels(part: Graph, whole: Graph) -> bool:
    """Whether a part of a graph has all channels of the whole wherever it has a node, so that its layers can run it.

    Raises GraphError where it is no part of it.

    >>> from convfabric.weavers import weave
    >>> graph = weave("resnet")
    >>> has_all_channels(graph.restrict(graph.edge_names), graph)
    True
    """
    check_is_part(whole, part)
    return all(node.channels == whole.node(node.place).channels for node in part.nodes)


class EveryExit(nn.Module):
    """A fabric whose answer is that of every exit, as training needs it."""

    def __init__(self, fabric: Fabric) -> None:
        super().__init__()
        self.fabric = fabric

    def forward(self, images_BCHW: Tensor, gates: Gates = NO_GATES) -> tuple[Tensor, ...]:
        """Logits of every exit, the earliest first."""
        return self.fabric.forward_exits(images_BCHW, gates=gates)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards in the mode it was in.

    >>> norm = nn.BatchNorm2d(3)
    >>> with evaluating(norm):
    ...     print(norm.training)
    False
    >>> norm.training
    True
    """
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def unweighted(graph: Graph) -> EveryExit:
    """A fabric to be run with weights that are given; making it draws nothing from torch's generators.

    >>> from convfabric.weavers import weave
    >>> before = torch.random.get_rng_state()
    >>> _ = unweighted(weave("fabric-tiny"))
    >>> torch.equal(before, torch.random.get_rng_state())
    True
    """
    with torch.random.fork_rng(devices=[]):
        return EveryExit(Fabric(graph))


def _joined(arriving: list[Tensor], join: Join) -> Tensor:
    if join == "concatenation" and len(arriving) > 1:
        return torch.cat(arriving, 1)
    return multiplied(arriving) if join == "product" else added(arriving)


def image_size(images_BCHW: Tensor) -> Size:
    """Height and width of images: whole numbers, but symbols under torch.export.

    >>> image_size(torch.zeros(1, 3, 9, 8))
    (9, 8)
    """
    height, width = (side if isinstance(side, torch.SymInt) else int(side) for side in images_BCHW.shape[-2:])
    return height, width


class _HeadLayer(nn.Module):
    """One linear map per response read, their results added, or for detection side by side; weights (K, C) by place."""

    def __init__(self, graph: Graph, head: Head) -> None:
        super().__init__()
        self.task = head.task
        self.dropout = 0.0
        linear = {str(place): graph.node(place).channels for place in head.reads if head.linear}
        self.reads = nn.ModuleDict({name: nn.Linear(count, head.values, bias=False) for name, count in linear.items()})
        for weight in self.reads.parameters():
            nn.init.normal_(weight, std=0.01)
        self.bias = nn.Parameter(torch.zeros(head.values)) if head.linear else None

    def forward(self, responses: dict[str, Tensor], image: Size, enlarge: Enlarge) -> Tensor:
        if self.task == "classification":
            read = {name: self._thinned(response.mean((2, 3))) for name, response in responses.items()}
            logits_BK = added([self._mapped(name, values) for name, values in read.items()])
            return logits_BK if self.bias is None else logits_BK + self.bias
        maps_BKHW = [self._mapped_pixels(name, self._thinned(response)) for name, response in responses.items()]
        if self.task == "detection":
            assert self.bias is not None
            return torch.cat([laid_out(maps + self.bias[:, None, None], image) for maps in maps_BKHW], 2)
        finest: Size = max(((m.shape[-2], m.shape[-1]) for m in maps_BKHW), key=lambda size: size[0] * size[1])
        logits_BKHW = added([enlarge(m, finest) for m in maps_BKHW])
        return enlarge(logits_BKHW if self.bias is None else logits_BKHW + self.bias[:, None, None], image)

    def _thinned(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training) if self.dropout else values

    def _mapped(self, name: str, values_BC: Tensor) -> Tensor:
        if self.bias is None:
            return values_BC
        mapped: Tensor = self.reads[name](values_BC)
        return mapped

    def _mapped_pixels(self, name: str, response_BCHW: Tensor) -> Tensor:
        if self.bias is None:
            return response_BCHW
        weight_KC = self.reads[name].weight
        assert isinstance(weight_KC, Tensor)
        return F.conv2d(response_BCHW, weight_KC[:, :, None, None])
