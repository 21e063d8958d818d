"""From signals to the fabric that carries them: a part of the paper's trellis, with weights."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from convfabric.errors import EmbeddingError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Head, Place
from convfabric.operators import Norm, Size
from convfabric.universality.kernels import centred
from convfabric.universality.wiring import Signal, Value, Wiring
from convfabric.weavers import Purpose, Trellis, weave_trellis

Slots = Mapping[Place, Mapping[Signal, slice]]
"""Where each signal stands among the channels of each node that has it."""


def assembled(wiring: Wiring, responses: Mapping[Place, Value], network: Fabric, image: Size) -> Fabric:
    """The fabric of all signals that the heads of a network need, float32 and in evaluation mode.

    A signal that is read later than in the next layer is carried there along its scale by kernels of one tap. Norms of
    nodes are set to do nothing.
    """
    heads = network.graph.heads
    if len(heads) > 1:
        raise EmbeddingError(f"{network.graph.name} has {len(heads)} exits; one with a single exit can be embedded.")
    read = [responses[place] for place in heads[0].reads]
    last = max(signal.layer for value in read for signal, _ in value.parts)
    slots = _slots(_lifetimes(wiring, read, last))
    weights = _weights(wiring, slots)
    graph = _graph(slots, weights, network.graph, read, last, image)
    fabric = Fabric(graph).eval()
    state = {name: tensor.float() for name, tensor in _state(wiring, slots, weights, graph).items()}
    state |= _head_state(network, read, slots, last)
    fabric.load_state_dict(state | {name: fixed for name, fixed in fabric.state_dict().items() if name not in state})
    return fabric


def _lifetimes(wiring: Wiring, read: Iterable[Value], last: int) -> dict[Signal, int]:
    """The last layer in which each signal that is needed has to be there."""
    until = {signal: last for value in read for signal, _ in value.parts}
    for signal in reversed(wiring.signals):
        for arrival in signal.arrivals if signal in until else ():
            if not arrival.source.is_image:
                until[arrival.source] = max(until.get(arrival.source, 0), signal.layer - 1)
    return until


def _slots(until: Mapping[Signal, int]) -> Slots:
    """Channels for each signal in every layer from the one that writes it to the last that needs it."""
    slots: dict[Place, dict[Signal, slice]] = defaultdict(dict)
    for signal, end in until.items():
        for layer in range(signal.layer, end + 1):
            there = slots[Place(layer, signal.scale)]
            taken = max((slot.stop for slot in there.values()), default=0)
            there[signal] = slice(taken, taken + signal.channels)
    return slots


def _weights(wiring: Wiring, slots: Slots) -> dict[tuple[Place, Place], Tensor]:
    """The kernels (O, I, 3, 3) between nodes, float64."""
    found: dict[tuple[Place, Place], Tensor] = {}

    def add(source: Place, target: Place, before: Signal, after: Signal, weight: Tensor) -> None:
        if (source, target) not in found:
            shape = _width(slots[target]), _width(slots[source])
            found[source, target] = torch.zeros(*shape, 3, 3, dtype=torch.float64)
        found[source, target][slots[target][after], slots[source][before]] += weight

    for place, there in slots.items():
        back = Place(place.layer - 1, place.scale)
        for signal in there:
            if signal.layer < place.layer:
                add(back, place, signal, signal, centred(torch.eye(signal.channels)).weight_OIHW)
                continue
            for arrival in signal.arrivals:
                if not arrival.source.is_image:
                    source = Place(place.layer - 1, place.scale - arrival.move)
                    add(source, place, arrival.source, signal, arrival.weight_OIHW)
    return found


def _width(there: Mapping[Signal, slice]) -> int:
    return sum(signal.channels for signal in there)


def _graph(
    slots: Slots,
    weights: Mapping[tuple[Place, Place], Tensor],
    network: Graph,
    read: Iterable[Value],
    last: int,
    image: Size,
) -> Graph:
    """The paper's trellis, less the edges and the channels that are not needed."""
    head = network.head
    purpose = Purpose(task=head.task, classes=head.classes, image_channels=network.entry.image_channels, size=image)
    numbers = Trellis(
        layers=last + 1,
        scales=1 + max(place.scale for place in slots),
        channels=max(map(_width, slots.values())),
        head="all",
    )
    whole = weave_trellis(numbers, purpose, name=f"{network.name} in a trellis")
    own = Head(task=head.task, classes=head.classes, reads=tuple(dict.fromkeys(Place(last, v.scale) for v in read)))
    kept = {f"{source}_{target}" for source, target in weights}
    part = replace(whole, heads=(own,)).restrict(kept)
    return part.narrow({place: _width(there) for place, there in slots.items()})


def _state(
    wiring: Wiring, slots: Slots, weights: Mapping[tuple[Place, Place], Tensor], graph: Graph
) -> dict[str, Tensor]:
    """The tensors of stem, edges and nodes by name."""
    state: dict[str, Tensor] = {}
    constants = {place: torch.zeros(_width(there), dtype=torch.float64) for place, there in slots.items()}
    for place, there in slots.items():
        for signal, slot in there.items():
            if signal.layer == place.layer:
                constants[place][slot] = signal.constant_O
    entry = Place(0, 0)
    stem = torch.zeros(_width(slots[entry]), wiring.image.channels, 3, 3, dtype=torch.float64)
    for signal, slot in slots[entry].items():
        for arrival in signal.arrivals:
            stem[slot] += arrival.weight_OIHW
    state |= {"entry.weight": stem, "entry.bias": constants[entry]}
    for place, constant in constants.items():
        arriving = graph.arriving(place)
        for i, edge in enumerate(arriving):
            state[f"edges.{edge.name}.weight"] = weights[edge.source, edge.target]
            state[f"edges.{edge.name}.bias"] = constant if i == 0 else 0 * constant
        # A norm of mean 0 and variance 1 divides by √(1 + ε), which its factor takes back.
        norm = f"nodes.{place}.steps.0"
        state[f"{norm}.weight"] = torch.full_like(constant, (1 + Norm().eps) ** 0.5)
    return state


def _head_state(network: Fabric, read: Iterable[Value], slots: Slots, last: int) -> dict[str, Tensor]:
    """The weights of the head over the channels of the last layer."""
    head = network.graph.head
    own = network.state_dict()
    bias = own.get(f"heads.{head.name}.bias", torch.zeros(head.classes))
    found: dict[str, Tensor] = {"heads.head.bias": bias.float()}
    for place, value in zip(head.reads, read, strict=True):
        weight = own[f"heads.{head.name}.reads.{place}.weight"] if head.linear else torch.eye(head.classes)
        there = slots[Place(last, value.scale)]
        name = f"heads.head.reads.{Place(last, value.scale)}.weight"
        over = found.setdefault(name, torch.zeros(head.classes, _width(there)))
        for signal, matrix in value.parts:
            over[:, there[signal]] += (weight.double() @ matrix).float()
    return found
