"""Each operator by itself as a fabric of 3×3 edges, beside what torch makes of the same images.

Legend of the suffixes: B images, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.operators import (
    Chain,
    Conv,
    Depthwise,
    FullyConnected,
    Identity,
    LeakyRelu,
    Nearest,
    Operator,
    Pool,
    Relu,
    Relu6,
    Size,
    UpConv,
    ZeroInsertion,
)
from convfabric.universality.embedding import Embedding, embedded
from convfabric.universality.sparse import dense_in_sparse
from convfabric.weavers.builder import PLAIN, Draft, Purpose

SIZE, CHANNELS, IMAGES = (16, 16), 2, 4
State = dict[str, Tensor]
"""The weights of an operator's layer, by name."""
BILINEAR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4


@dataclass(frozen=True, kw_only=True)
class Built:
    """An operator or a network as a fabric of 3×3 edges, and how far their answers are apart."""

    name: str
    layers: int
    scales: int
    channels: int
    """Of the widest node."""
    largest_difference: float
    """Between the values of both, as a share of the largest value."""


@dataclass(frozen=True, kw_only=True)
class Construction:
    """An operator, and what torch has for it."""

    name: str
    operator: Operator
    wanted: Callable[[Tensor, State], Tensor]
    """From a response (B, C, H, W) and the operator's weights to what torch makes of it."""
    channels_out: int = CHANNELS
    signed: bool = False
    """Whether what it reads may be below zero."""


def _convolution(name: str, conv: Conv, channels_out: int = 3) -> Construction:
    def wanted(x_BCHW: Tensor, state: State) -> Tensor:
        reach = conv.dilation * (int(conv.kernel) // 2) if isinstance(conv.kernel, int) else 0
        return F.conv2d(x_BCHW, state["weight"], state["bias"], conv.stride, reach, conv.dilation, conv.groups)

    return Construction(name=name, operator=conv, wanted=wanted, channels_out=channels_out, signed=True)


CONSTRUCTIONS = (
    Construction(
        name="average pool 2×2, stride 2", operator=Pool(kind="average"), wanted=lambda x, _: F.avg_pool2d(x, 2)
    ),
    Construction(name="max pool 2×2, stride 2", operator=Pool(), wanted=lambda x, _: F.max_pool2d(x, 2)),
    Construction(
        name="max pool 2×2, stride 2, of any sign",
        operator=Pool(),
        wanted=lambda x, _: F.max_pool2d(x, 2),
        signed=True,
    ),
    Construction(
        name="max pool 3×3, stride 2", operator=Pool(kernel=3), wanted=lambda x, _: F.max_pool2d(x, 3, 2, padding=1)
    ),
    Construction(name="nearest upsampling", operator=Nearest(), wanted=lambda x, _: F.interpolate(x, scale_factor=2.0)),
    Construction(
        name="bilinear upsampling, corners aligned",
        operator=Chain((ZeroInsertion(), Depthwise(bias=False))),
        wanted=lambda x, _: F.interpolate(
            x, size=[2 * side - 1 for side in x.shape[-2:]], mode="bilinear", align_corners=True
        ),
    ),
    Construction(
        name="transposed convolution 2×2, stride 2",
        operator=UpConv(kernel=2),
        wanted=lambda x, state: F.conv_transpose2d(
            x, state["weight"].transpose(0, 1).flip(2, 3), state["bias"], stride=2
        ),
        signed=True,
    ),
    _convolution("convolution 5×5", Conv(kernel=5)),
    _convolution("convolution 7×7, stride 2", Conv(kernel=7, stride=2)),
    _convolution("convolution 11×11, stride 4", Conv(kernel=11, stride=4)),
    _convolution("convolution 3×3, dilation 4", Conv(dilation=4)),
    _convolution("convolution 5×5 in 2 groups", Conv(kernel=5, groups=2), channels_out=4),
    Construction(
        name="fully connected layer",
        operator=FullyConnected(size=SIZE),
        wanted=lambda x, state: F.linear(x.flatten(1), state["weight"].flatten(1), state["bias"])[..., None, None],
        channels_out=5,
        signed=True,
    ),
    Construction(name="leaky ReLU", operator=LeakyRelu(), wanted=lambda x, _: F.leaky_relu(x, 0.1), signed=True),
    Construction(name="ReLU6", operator=Relu6(), wanted=lambda x, _: F.relu6(x), signed=True),
)


def constructed(seed: int = 0) -> Iterator[Built]:
    """Every construction on random images, and a dense layer in the sparse fabric.

    >>> found = next(constructed())
    >>> found.name, found.layers, found.scales, found.largest_difference < 1e-6
    ('average pool 2×2, stride 2', 2, 2, True)
    """
    torch.manual_seed(seed)
    for one in CONSTRUCTIONS:
        yield _built(one)
    weight, constant, images = torch.randn(3, 3, 3, 3), torch.randn(3), torch.rand(IMAGES, 3, *SIZE)
    fabric = dense_in_sparse(weight, constant, SIZE)
    wanted = F.conv2d(images, weight, constant, padding=1).relu()
    yield built("dense layer in a sparse fabric", Embedding(fabric), response(fabric, images), wanted)


def built(name: str, embedding: Embedding, found: Tensor, wanted: Tensor) -> Built:
    """An embedding beside what was wanted of it."""
    apart = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    sizes = {"layers": embedding.layers, "scales": embedding.scales, "channels": embedding.channels}
    return Built(name=name, **sizes, largest_difference=apart)


def _built(one: Construction) -> Built:
    fabric = Fabric(alone(one.operator, CHANNELS, one.channels_out, SIZE, one.signed)).eval()
    state = {name: tensor for name, tensor in fabric.edges.state_dict().items() if "_" in name}
    heads = fabric.heads["head"].state_dict()
    for tensor in state.values():
        filled = BILINEAR.expand_as(tensor) if isinstance(one.operator, Chain) else torch.randn_like(tensor)
        tensor.copy_(filled)
    fabric.heads["head"].load_state_dict(
        {name: torch.eye(*tensor.shape) if tensor.ndim > 1 else tensor for name, tensor in heads.items()}
    )
    images = torch.randn(IMAGES, CHANNELS, *SIZE) * 4
    embedding = embedded(fabric, SIZE)
    read = images[..., ::2, ::2] if one.operator.stride < 1 else images
    read = read if one.signed else read.relu()
    wanted = one.wanted(read, {name.rpartition(".")[2]: tensor for name, tensor in state.items()})
    found = response(embedding.fabric, images)[..., : wanted.shape[-2], : wanted.shape[-1]]
    return built(one.name, embedding, found, wanted)


def alone(operator: Operator, channels: int, channels_out: int, size: Size, signed: bool = False) -> Graph:
    """A graph with one operator, behind a ReLU unless what it reads may be below zero; one that rises reads half a map.

    >>> from convfabric.operators import Conv
    >>> [edge.name for edge in alone(Conv(), 2, 3, (8, 8)).edges]
    ['L0S0_L1S0']
    """
    purpose = Purpose(task="segmentation", classes=channels_out, image_channels=channels, size=size)
    draft, rises = Draft("one operator", purpose), operator.stride < 1
    enters = Pool(kind="average", kernel=1) if rises else Identity()
    first = draft.enter(Place(0, int(rises)), enters, channels, then=PLAIN if signed else Relu())
    answers = draft.put(Place(1, rises + operator.scales_moved), channels_out, (first, operator), then=PLAIN)
    draft.answer(answers)
    return draft.finished()


def response(fabric: Fabric, images_BCHW: Tensor) -> Tensor:
    """The answer of a fabric at each pixel of the map that its head reads, before it is enlarged."""
    head = fabric.graph.head
    maps = fabric.forward_features(images_BCHW)
    weights = fabric.heads[head.name].get_submodule("reads")
    with torch.no_grad():
        answers = [
            torch.einsum("kc,bchw->bkhw", weights.get_parameter(f"{place}.weight"), maps[str(place)])
            for place in head.reads
        ]
        return torch.stack(answers).sum(0) + fabric.heads[head.name].get_parameter("bias")[:, None, None]
