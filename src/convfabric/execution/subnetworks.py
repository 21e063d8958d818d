"""Sub-networks in training: the whole fabric and parts of it answer the same images, with the same weights."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from convfabric.data.image_sizes import resized
from convfabric.execution.planned import Planned
from convfabric.fabric.inherited_weights import inherited, leading_slices
from convfabric.fabric.module import EveryExit, Fabric, unweighted
from convfabric.graph import Graph
from convfabric.operators import Size

Exits = tuple[Tensor, ...]
Asked = tuple[Graph, Size]
"""A sub-network, and the height and width of the images that it reads."""


class WithSubnetworks(nn.Module):
    """A fabric that gives the logits of every exit, of itself and then of each sub-network that is asked for.

    Sub-networks are normalised by the batch alone: running statistics are those of the whole. ``kernels`` says
    whether they run in this package's.
    """

    def __init__(self, fabric: Fabric, whole: nn.Module, kernels: bool) -> None:
        super().__init__()
        self.fabric, self.whole, self.kernels = fabric, whole, kernels

    def forward(self, images_BCHW: Tensor, parts: Sequence[Asked]) -> tuple[Exits, ...]:
        """Logits of every exit of the whole, then of each sub-network."""
        of_whole: Exits = self.whole(images_BCHW)
        every = {size: _laid_out(resized(images_BCHW, size)) for _, size in parts}
        return (of_whole, *(answered(self.fabric, graph, every[size], self.kernels) for graph, size in parts))


def _laid_out(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.contiguous(memory_format=torch.channels_last)


def answered(fabric: Fabric, graph: Graph, images_BCHW: Tensor, kernels: bool) -> Exits:
    """Logits of every exit of a part of a fabric in training, on the first channels of narrowed places.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny"))
    >>> part = fabric.graph.narrow({node.place: 4 for node in fabric.graph.nodes if node.place.lane})
    >>> answered(fabric, part, torch.rand(2, 3, 32, 32), kernels=False)[-1].shape
    torch.Size([2, 10])
    """
    own = dict(fabric.named_parameters())
    weights = inherited(own, leading_slices(fabric.graph, graph))
    runner = _skeleton(graph, kernels).to(images_BCHW.device)
    named = {f"fabric.{name}": weight for name, weight in weights.items()}
    exits: Exits = torch.func.functional_call(runner, named, (images_BCHW,))
    return exits


@lru_cache(maxsize=64)
def _skeleton(graph: Graph, kernels: bool) -> nn.Module:
    """A fabric in training to be run with weights that are given, without statistics of its own.

    What is kept from call to call follows from the graph alone, and making it draws nothing.
    """
    fabric = unweighted(graph).fabric
    for norm in fabric.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats, norm.momentum = False, 0.0
    return (Planned(fabric) if kernels else EveryExit(fabric)).train()
