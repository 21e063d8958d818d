"""Any network of kernels, rectifiers and pools as a fabric of 3×3 edges that answers alike.

The paper claims that a trellis embeds every such network (Saxena & Verbeek 2016, section 3); here it is woven.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from convfabric.errors import EmbeddingError
from convfabric.execution.folding import as_delivered
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Join, Place
from convfabric.graph.sizes import map_sizes
from convfabric.operators import (
    Composite,
    Concat,
    FullyConnected,
    GlobalPool,
    Opaque,
    Operator,
    Pool,
    Size,
    Sum,
    halved,
)
from convfabric.universality.assembly import assembled
from convfabric.universality.kernels import Kernel, centred, kernel_of
from convfabric.universality.pools import flattened, largest_of_all, pool_of_largest, sum_of_all
from convfabric.universality.rectifiers import bent
from convfabric.universality.wiring import (
    Response,
    Signal,
    Value,
    Wiring,
    added,
    channels_of,
    concatenated,
    pending,
    side_by_side,
)
from convfabric.weavers import Purpose, Trellis, weave_trellis


@dataclass(frozen=True)
class Embedding:
    """A network in a fabric."""

    fabric: Fabric
    """Of 3×3 edges alone: a part of the paper's trellis, narrowed to the channels that are used."""

    @property
    def graph(self) -> Graph:
        """Its graph."""
        return self.fabric.graph

    @property
    def trellis(self) -> Graph:
        """The whole trellis that it is a part of, to be drawn."""
        head = self.graph.head
        purpose = Purpose(task=head.task, classes=head.classes, size=(2**self.scales, 2**self.scales))
        numbers = Trellis(layers=self.layers, scales=self.scales, channels=self.channels, head="all")
        return weave_trellis(numbers, purpose)

    @property
    def layers(self) -> int:
        """Columns of the trellis."""
        return 1 + max(node.place.layer for node in self.graph.nodes)

    @property
    def scales(self) -> int:
        """Rows of the trellis."""
        return 1 + max(node.place.scale for node in self.graph.nodes)

    @property
    def channels(self) -> int:
        """Of the widest node."""
        return max(node.channels for node in self.graph.nodes)


def embedded(fabric: Fabric, image: Size) -> Embedding:
    """A fabric of 3×3 edges that answers as a fabric in evaluation mode does, for images of a size.

    Raises EmbeddingError, which names the operator, for what no construction is known for: products, norms over what
    is there, smooth activations, maps that are not halves and doubles of one another.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("unet", size=(16, 16), task="segmentation", scales=2, channels=4)).eval()
    >>> found, images = embedded(fabric, (16, 16)), torch.rand(1, 3, 16, 16)
    >>> found.layers, found.scales, sorted({type(edge.operator).__name__ for edge in found.graph.edges})
    (10, 2, ['Conv', 'UpConv'])
    >>> bool(torch.allclose(found.fabric(images), fabric(images), atol=1e-5))
    True
    """
    if not (isinstance(image, tuple) and len(image) == 2 and all(isinstance(side, int) for side in image)):
        raise EmbeddingError(f"image={image!r}: height and width in pixels, such as (32, 32).")
    simple = as_delivered(fabric).double()
    with torch.no_grad():
        walk = _Walk(simple, image)
        return Embedding(assembled(walk.wiring, walk.responses, simple, image))


class _Walk:
    """A pass through a network, place by place, that wires the signals of the fabric."""

    def __init__(self, fabric: Fabric, image: Size) -> None:
        self.fabric, self.sizes = fabric, [image]
        while max(self.sizes[-1]) > 1:
            self.sizes.append(halved(self.sizes[-1]))
        channels = fabric.graph.entry.image_channels
        self.wiring = Wiring(Signal(-1, 0, (), torch.zeros(channels, dtype=torch.float64)))
        self.responses: dict[Place, Value] = {}
        wanted = map_sizes(fabric.graph, image)
        for place in fabric.graph.order:
            response = self._respond(place)
            if wanted[place] != self.sizes[response.scale]:
                self._refuse_size(str(place), wanted[place], response.scale)
            self.responses[place] = response

    def _respond(self, place: Place) -> Value:
        graph = self.fabric.graph
        node, arriving = graph.node(place), list[Response]()
        for edge in graph.arriving(place):
            layer, source = self.fabric.edges[edge.weights], self.responses[edge.source]
            arriving.append(self._through(edge.operator, layer, source, edge.name))
        if place == graph.entry.place:
            arriving.append(self._entered())
        joined = self._joined(arriving, node.join, place)
        return self.wiring.settled(self._through(node.then, self.fabric.nodes[str(place)], joined, str(place)))

    def _joined(self, arriving: Sequence[Response], join: Join, place: Place) -> Response:
        if join == "product" and len(arriving) > 1:
            raise EmbeddingError(f"{place}: a product of responses is no sum of rectified kernels.")
        if join == "concatenation":
            return concatenated([self.wiring.settled(one) for one in arriving])
        return added(arriving)

    def _entered(self) -> Response:
        """The images through the stem; what one layer can do reads them directly, all else both of their signs."""
        entry = self.fabric.graph.entry
        value = Value(0, ((self.wiring.image, torch.eye(entry.image_channels, dtype=torch.float64)),))
        kernel = kernel_of(entry.operator, self.fabric.entry, entry.image_channels, self.sizes[0])
        if kernel and kernel.move == 0 and kernel.reach <= 1:
            return self.wiring.convolved(value, kernel)
        return self._through(entry.operator, self.fabric.entry, self.wiring.settled(value), "the stem")

    def _through(self, operator: Operator, layer: nn.Module, x: Response, name: str) -> Response:
        """What an operator makes of a response."""
        if operator.negative_slope == 1:
            return x
        if (found := bent(self.wiring, operator, layer, x)) is not None:
            return found
        size = self.sizes[x.scale]
        if not isinstance(operator, Composite) and math.isfinite(operator.stride):
            self._check_size(operator, x.scale, name)
        kernel = kernel_of(operator, layer, channels_of(x), size)
        if kernel and size == (1, 1) and kernel.move >= 0:  # what lies around the pixel is zero
            kernel = replace(centred(kernel.tap((0, 0))), constant_O=kernel.constant_O)
        if kernel and kernel.is_pointwise:
            return _at_each_pixel(kernel, x)
        if kernel:
            return self.wiring.convolved(self.wiring.settled(x), kernel)
        if isinstance(operator, Composite):
            return self._through_parts(operator, layer, x, name)
        return self._pooled(operator, layer, self.wiring.settled(x), name)

    def _through_parts(self, operator: Composite, layer: nn.Module, x: Response, name: str) -> Response:
        inside = list(zip(operator.inside, layer.get_submodule(operator.field).children(), strict=True))
        if not isinstance(operator, Sum | Concat):
            for part, own in inside:
                x = self._through(part, own, x, name)
            return x
        value = self.wiring.settled(x)
        found = [self._through(part, own, value, name) for part, own in inside]
        return added(found) if isinstance(operator, Sum) else side_by_side([pending(one) for one in found])

    def _pooled(self, operator: Operator, layer: nn.Module, value: Value, name: str) -> Response:
        """Pools, and what reads a whole map."""
        size = self.sizes[value.scale]
        if isinstance(operator, Pool) and size == (1, 1):
            return value
        try:
            if isinstance(operator, Pool) and operator.kind == "max":
                return pool_of_largest(self.wiring, operator, value, size)
            if isinstance(operator, GlobalPool) and operator.kind == "max":
                return largest_of_all(self.wiring, value, size)
        except EmbeddingError as fault:
            raise EmbeddingError(f"{name}: {fault}") from None
        if isinstance(operator, GlobalPool) and operator.kind != "length":
            pixels = size[0] * size[1] if operator.kind == "average" else 1
            summed = sum_of_all(self.wiring, value, size)
            return summed.mixed(torch.eye(value.channels, dtype=torch.float64) / pixels)
        if isinstance(operator, FullyConnected):
            weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
            return flattened(self.wiring, value, size, weight, bias)
        raise EmbeddingError(
            f"{name}: {_named(operator)} is no sum of rectified kernels that are alike at every pixel."
        )

    def _check_size(self, operator: Operator, before: int, name: str) -> None:
        """Raises EmbeddingError where a map would have another size than the fabric's at its scale."""
        scale = min(before + operator.scales_moved, len(self.sizes) - 1)
        if scale < 0:
            raise EmbeddingError(f"{name}: {_named(operator)} makes a map that is finer than the images.")
        made = operator.size_after(self.sizes[before], self.sizes[scale])
        if made != self.sizes[scale]:
            self._refuse_size(name, made, scale)

    def _refuse_size(self, name: str, made: Size, scale: int) -> None:
        height, width = self.sizes[scale]
        raise EmbeddingError(
            f"{name}: a map of {made[0]}×{made[1]} pixels is made, where a trellis has {height}×{width}: each scale "
            "has half the rows and columns of the one before, rounded up. With other images, or padding, it may fit."
        )


def _named(operator: Operator) -> str:
    return "a module that no operator describes" if isinstance(operator, Opaque) else str(operator)


def _at_each_pixel(kernel: Kernel, x: Response) -> Response:
    """A kernel of one tap, without a layer of its own where it can."""
    weight, constant = kernel.tap((0, 0)), kernel.constant_O
    if isinstance(x, Value) and not constant.any():
        return x.mixed(weight)
    return pending(x).mixed(weight, constant)
