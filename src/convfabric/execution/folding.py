"""Norms as part of the convolutions before them: another graph with the same answers in evaluation.

A norm multiplies each channel by γ/√(σ²+ε) and adds β - μγ/√(σ²+ε) (Ioffe & Szegedy 2015, section 3.1). Where
every operator that arrives at a node can carry the factor, all do, and one of them carries the constant.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from convfabric.fabric.module import Fabric
from convfabric.graph import Edge, Graph, Node
from convfabric.operators import (
    BandedConv,
    Bilinear,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Dropout,
    FullyConnected,
    Identity,
    Nearest,
    Norm,
    Operator,
    Sum,
    UpConv,
    taps,
)

State = dict[str, Tensor]
"""The tensors of one operator's layer, by the names they have in it."""
Folded = tuple[Operator, State]
Ends = tuple[int, int]
"""Channels before and after."""
EPSILON = 1e-5


def folded(fabric: Fabric) -> Fabric:
    """A new fabric in evaluation mode without the norms that others could take over; the old one is untouched.

    Weights that several edges share, and operators that can carry no factor, such as the identity, keep the norm
    of the node behind them.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("paper-mnist-dense", layers=2, scales=2, channels=4)).eval()
    >>> simple, images = folded(fabric), torch.rand(2, 1, 8, 8)
    >>> {type(node.then).__name__ for node in simple.graph.nodes}
    {'Relu'}
    >>> bool(torch.allclose(simple(images), fabric(images), atol=1e-5))
    True
    """
    graph = fabric.graph
    own = {name: tensor.detach().double() for name, tensor in fabric.state_dict().items()}
    parts: dict[str, Folded] = {}
    for name, operator, ends in _operators(graph):
        parts[name] = _inside(operator, _under(own, f"{name}."), ends)
    for node in graph.nodes:
        parts |= _node_folded(graph, node, parts)
    simpler = replace(
        graph,
        entry=replace(graph.entry, operator=parts["entry"][0]),
        edges=tuple(replace(edge, operator=parts[_edge(edge)][0]) for edge in graph.edges),
        nodes=tuple(replace(node, then=parts[f"nodes.{node.place}"][0]) for node in graph.nodes),
    )
    state = _under(own, "heads.", kept="heads.")
    for name, (_, tensors) in parts.items():
        state |= {f"{name}.{inner}": tensor for inner, tensor in tensors.items()}
    return with_state(simpler, state, next(fabric.parameters()))


def with_state(graph: Graph, state: State, like: Tensor) -> Fabric:
    """A fabric in evaluation mode with these tensors, on the device of another tensor and in its dtype."""
    made = Fabric(graph).to(like.device, like.dtype)
    made.load_state_dict(state)
    return made.eval()


def _operators(graph: Graph) -> list[tuple[str, Operator, Ends]]:
    """Everything that has weights, by the name of its layer: the entry, edges by weights, nodes."""
    entry = graph.node(graph.entry.place).channels
    found: list[tuple[str, Operator, Ends]] = [("entry", graph.entry.operator, (graph.entry.image_channels, entry))]
    for edge in {edge.weights: edge for edge in graph.edges}.values():
        before, target = graph.node(edge.source).channels, graph.node(edge.target)
        found.append((_edge(edge), edge.operator, (before, before if _joins(target) else target.channels)))
    return found + [(f"nodes.{node.place}", node.then, (node.channels, node.channels)) for node in graph.nodes]


def _joins(node: Node) -> bool:
    return node.join == "concatenation"


def _edge(edge: Edge) -> str:
    return f"edges.{edge.weights}"


def _under(state: State, start: str, kept: str = "") -> State:
    return {kept + name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def _node_folded(graph: Graph, node: Node, parts: dict[str, Folded]) -> dict[str, Folded]:
    """The operators around a node whose norm has gone into those that arrive; nothing where it cannot."""
    own = f"nodes.{node.place}"
    then, state = parts[own]
    steps = then.steps if isinstance(then, Chain) else (then,)
    arriving = [(_edge(edge), edge) for edge in graph.arriving(node.place)]
    names = [name for name, _ in arriving] + ["entry"] * (node.place == graph.entry.place)
    if not isinstance(steps[0], Norm) or _joins(node) or any(edge.shared for _, edge in arriving):
        return {}
    scale, shift = _factors(_under(state, "steps.0.") if isinstance(then, Chain) else state)
    ends = {name: ends for name, _, ends in _operators(graph)}
    found: dict[str, Folded] = {}
    for name in names:
        carried = _scaled(*parts[name], ends[name], scale, torch.zeros_like(shift) if found else shift)
        if carried is None:
            return {}
        found[name] = carried
    left = steps[1:] or (Identity(),)
    inner = [_under(state, f"steps.{i}.") for i in range(1, len(steps))]
    found[own] = (left[0], inner[0] if inner else {}) if len(left) == 1 else _chained(left, inner)
    return found


def _chained(steps: Sequence[Operator], states: Sequence[State]) -> Folded:
    names = {f"steps.{i}.{name}": tensor for i, state in enumerate(states) for name, tensor in state.items()}
    return Chain(tuple(steps)), names


def _factors(norm: State) -> tuple[Tensor, Tensor]:
    scale = norm["weight"] / (norm["running_var"] + EPSILON).sqrt()
    return scale, norm["bias"] - norm["running_mean"] * scale


def _inside(operator: Operator, state: State, ends: Ends) -> Folded:
    """The operator with norms inside chains folded into the step before them."""
    if isinstance(operator, Sum | Concat):
        branches, names = [], State()
        for i, part in enumerate(operator.parts(*ends)):
            branch, inner = _inside(part[0], _under(state, f"branches.{i}."), (part[1], part[2]))
            branches.append(branch)
            names |= {f"branches.{i}.{name}": tensor for name, tensor in inner.items()}
        return replace(operator, branches=tuple(branches)), names
    if not isinstance(operator, Chain):
        return operator, state
    steps: list[Operator] = []
    states: list[State] = []
    widths: list[Ends] = []
    for i, part in enumerate(operator.parts(*ends)):
        step, inner = _inside(part[0], _under(state, f"steps.{i}."), (part[1], part[2]))
        carried = (
            _scaled(steps[-1], states[-1], widths[-1], *_factors(inner)) if isinstance(step, Norm) and steps else None
        )
        if carried:
            steps[-1], states[-1] = carried
        else:
            steps.append(step)
            states.append(inner)
            widths.append((part[1], part[2]))
    return replace(operator, steps=tuple(steps)), _chained(steps, states)[1]


def _scaled(operator: Operator, state: State, ends: Ends, scale: Tensor, shift: Tensor) -> Folded | None:
    """The operator with its result multiplied and shifted by channel; None where it cannot carry that."""
    match operator:
        case Conv() | UpConv() | Depthwise() | BandedConv() | FullyConnected():
            rows = scale[_outputs(ends)] if isinstance(operator, BandedConv) else scale
            weight = state["weight"] * rows.view(-1, *[1] * (state["weight"].ndim - 1))
            bias = (state["bias"] * scale if operator.bias else 0) + shift
            if not operator.bias and not shift.any():
                return operator, {"weight": weight}
            return replace(operator, bias=True), {"weight": weight, "bias": bias}
        case Norm():
            return operator, state | {"weight": state["weight"] * scale, "bias": state["bias"] * scale + shift}
        case Chain():
            last = max((i for i, step in enumerate(operator.steps) if not _passes(step)), default=-1)
            part = operator.parts(*ends)[last]
            carried = _scaled(part[0], _under(state, f"steps.{last}."), (part[1], part[2]), scale, shift)
            return None if last < 0 or carried is None else _replaced(operator, "steps", state, last, carried)
        case Sum():
            for i, branch in enumerate(operator.parts(*ends)):
                inner, own = _under(state, f"branches.{i}."), shift if i == 0 else torch.zeros_like(shift)
                carried = _scaled(branch[0], inner, (branch[1], branch[2]), scale, own)
                if carried is None:
                    return None
                operator, state = _replaced(operator, "branches", state, i, carried)
            return operator, state
        case Concat():
            at = 0
            for i, branch in enumerate(operator.parts(*ends)):
                here, inner = slice(at, at := at + branch[2]), _under(state, f"branches.{i}.")
                carried = _scaled(branch[0], inner, (branch[1], branch[2]), scale[here], shift[here])
                if carried is None:
                    return None
                operator, state = _replaced(operator, "branches", state, i, carried)
            return operator, state
        case _:
            return None


def carries(operator: Operator) -> bool:
    """Whether an operator can take over the norm of the node behind it.

    >>> carries(Conv()), carries(Chain((Conv(), Nearest()))), carries(Sum((Identity(), Conv())))
    (True, True, False)
    """
    match operator:
        case Conv() | UpConv() | Depthwise() | BandedConv() | FullyConnected() | Norm():
            return True
        case Chain():
            last = [step for step in operator.steps if not _passes(step)]
            return bool(last) and carries(last[-1])
        case Sum() | Concat():
            return all(carries(branch) for branch in operator.branches)
        case _:
            return False


def _passes(step: Operator) -> bool:
    """Whether a factor and a constant for each channel may as well come before it."""
    return isinstance(step, Nearest | Bilinear | Identity | Dropout)


def _outputs(ends: Ends) -> list[int]:
    """The output channel of each stored kernel of a band."""
    return [after for after, _ in sorted(pair for group in taps(*ends) for pair in group)]


def _replaced(operator: Operator, field: str, state: State, at: int, by: Folded) -> Folded:
    """A composite with one of its parts replaced."""
    parts = list(getattr(operator, field))
    parts[at] = by[0]
    others = {name: tensor for name, tensor in state.items() if not name.startswith(f"{field}.{at}.")}
    return replace(operator, **{field: tuple(parts)}), others | {f"{field}.{at}.{n}": t for n, t in by[1].items()}  # type: ignore[type-var]
