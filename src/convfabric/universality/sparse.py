"""A convolution that mixes all channels, in the paper's sparse fabric, where each channel reads its two neighbours.

Legend of the suffixes: O output channels, I input channels, H height, W width.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from convfabric.errors import EmbeddingError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.operators import Norm, Size
from convfabric.universality.kernels import centred
from convfabric.weavers import Purpose, Trellis, weave_trellis

FEWEST = 4
"""Channels from which on a sparse edge is not dense."""
ONE = centred(torch.ones(1, 1)).weight_OIHW[0, 0]


@dataclass
class Layer:
    """One layer of a sparse fabric: kernels from channels to channels, and constants."""

    kernels: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """(3, 3), by output and input channel, which are at most one apart."""
    constants: dict[int, float] = field(default_factory=dict)


def dense_in_sparse(weight_OIHW: Tensor, constant_O: Tensor, size: Size, most: float = 1.0) -> Fabric:
    """A sparse fabric that answers with relu(convolution) of images of a size, whose values lie between 0 and ``most``.

    Each input is copied for every output, one copy a layer; copies change places with their neighbours until those for
    one output stand together; each is convolved, with a constant that keeps it from falling below zero; those for one
    output are added up from both ends, and the constants taken away again; the outputs move to the front. For values
    beyond ``most``, or below zero, answers are wrong. Beside a single output stands one that is zero. Raises
    EmbeddingError for kernels that are not 3×3, or constants that do not go with them.

    >>> weight, images = torch.randn(2, 3, 3, 3), torch.rand(1, 3, 8, 8)
    >>> fabric = dense_in_sparse(weight, torch.zeros(2), (8, 8))
    >>> wanted = torch.conv2d(images, weight, padding=1).relu()
    >>> bool(torch.allclose(fabric(images), wanted, atol=1e-5)), len(fabric.graph.nodes)
    (True, 12)
    """
    outputs, inputs = _checked(weight_OIHW, constant_O, most)
    weight, constant = weight_OIHW.detach().double(), constant_O.detach().double()
    copied, order = _copied(inputs, outputs)
    layers = [*copied, *_sorted(order, inputs), _convolved(weight, most)]
    layers += _summed(inputs, outputs, constant + weight.clamp_max(0).sum((1, 2, 3)) * most)
    return _fabric(layers, inputs, outputs, size)


def _checked(weight_OIHW: Tensor, constant_O: Tensor, most: float) -> tuple[int, int]:
    """Outputs and inputs; EmbeddingError for what is no layer of 3×3 kernels."""
    if weight_OIHW.ndim != 4 or weight_OIHW.shape[2:] != (3, 3) or constant_O.shape != weight_OIHW.shape[:1]:
        shapes = f"kernels {tuple(weight_OIHW.shape)} and constants {tuple(constant_O.shape)}"
        raise EmbeddingError(f"{shapes}: kernels (outputs, inputs, 3, 3) and a constant for each output are embedded.")
    if not 0 < most < inf:
        raise EmbeddingError(f"most={most}: the largest value of the images is a finite number above 0.")
    if not (weight_OIHW.numel() and weight_OIHW.isfinite().all() and constant_O.isfinite().all()):
        raise EmbeddingError("kernels and constants: there is at least one, and all are finite numbers.")
    return weight_OIHW.shape[0], weight_OIHW.shape[1]


def _copied(inputs: int, outputs: int) -> tuple[list[Layer], list[int]]:
    """Layers that each insert one more copy of a channel, and the copies' inputs from the first channel on."""
    there, layers = list(range(inputs)), list[Layer]()
    while len(there) < inputs * outputs:
        at = next(i for i, channel in enumerate(there) if there.count(channel) < outputs)
        layers.append(_moved({i: i if i <= at else i - 1 for i in range(len(there) + 1)}))
        there.insert(at, there[at])
    return layers, there


def _sorted(copies: Sequence[int], inputs: int) -> Iterator[Layer]:
    """Layers in which neighbours change places, until the copies for one output stand together, in order."""
    seen = dict.fromkeys(copies, -1)
    keys = list[int]()
    for channel in copies:
        seen[channel] += 1
        keys.append(seen[channel] * inputs + channel)
    turn = 0
    while keys != sorted(keys):
        sources = {i: i for i in range(len(keys))}
        for i in range(turn % 2, len(keys) - 1, 2):
            if keys[i] > keys[i + 1]:
                keys[i : i + 2] = keys[i + 1], keys[i]
                sources |= {i: i + 1, i + 1: i}
        yield _moved(sources)
        turn += 1


def _moved(sources: Mapping[int, int]) -> Layer:
    """A layer in which each channel takes over one next to it, or its own."""
    return Layer(dict.fromkeys(sources.items(), ONE))


def _convolved(weight_OIHW: Tensor, most: float) -> Layer:
    """Each copy through its kernel, plus the most that it could be below zero."""
    least = -weight_OIHW.clamp_max(0).sum((2, 3)).flatten() * most
    kernels = {(i, i): kernel for i, kernel in enumerate(weight_OIHW.flatten(0, 1))}
    return Layer(kernels, dict(enumerate(least.tolist())))


def _summed(inputs: int, outputs: int, constant_O: Tensor) -> Iterator[Layer]:
    """Layers that add up the copies for each output, then bring the sums to the first channels."""
    low, high = 0, inputs - 1
    while low < high:
        left = range(low + 1, high) if high - low > 1 else range(low, low + 1)
        pairs = {(i, i) for i in left} | {(left[0], low), (left[-1], high)}
        yield Layer({(o * inputs + a, o * inputs + b): ONE for o in range(outputs) for a, b in pairs})
        low, high = left[0], left[-1]
    places = [o * inputs + low for o in range(outputs)]
    # The constants go with the first move of the sums, or where they stand.
    for i, (after, kernels) in enumerate(_to_the_front(places)):
        yield Layer(kernels, dict(zip(after, constant_O.tolist(), strict=True)) if i == 0 else {})


def _to_the_front(places: Iterable[int]) -> Iterator[tuple[list[int], dict[tuple[int, int], Tensor]]]:
    """Places of the sums after each layer, and its kernels; at least one layer."""
    before, begun = list(places), False
    while not begun or before != list(range(len(before))):
        after = [max(o, place - 1) for o, place in enumerate(before)]
        yield after, dict.fromkeys(zip(after, before, strict=True), ONE)
        before, begun = after, True


def _fabric(layers: Sequence[Layer], inputs: int, outputs: int, size: Size) -> Fabric:
    channels = max(FEWEST, inputs * outputs)
    numbers = Trellis(layers=len(layers) + 1, scales=1, channels=channels, operators="banded", head="all")
    purpose = Purpose(task="segmentation", classes=max(2, outputs), image_channels=inputs, size=size)
    fabric = Fabric(weave_trellis(numbers, purpose, name="a dense layer in a sparse trellis")).eval()
    state = fabric.state_dict()
    for name, tensor in state.items():
        if not name.endswith("running_var"):
            tensor.zero_()
        if name.startswith("nodes.") and name.endswith(".weight"):
            tensor.fill_((1 + Norm().eps) ** 0.5)
    state["entry.weight"][range(inputs), range(inputs)] = ONE.float()
    for i, one in enumerate(layers):
        _fill(state, f"edges.L{i}S0_L{i + 1}S0", one, fabric.graph)
    state[f"heads.head.reads.L{len(layers)}S0.weight"][range(outputs), range(outputs)] = 1
    fabric.load_state_dict(state)
    return fabric


def _fill(state: Mapping[str, Tensor], name: str, layer: Layer, graph: Graph) -> None:
    """The weights of an edge, one kernel for each pair of neighbours."""
    edge = next(edge for edge in graph.edges if name.endswith(edge.name))
    outputs = edge.operator.outputs(*graph.ends(edge))
    first = {after: outputs.index(after) for after in set(outputs)}
    for (after, before), kernel in layer.kernels.items():
        state[f"{name}.weight"][first[after] + before - max(0, after - 1)] = kernel.float()
    for channel, constant in layer.constants.items():
        state[f"{name}.bias"][channel] = constant
