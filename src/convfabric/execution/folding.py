"""Norms as part of the convolutions before them: another graph with the same answers in evaluation.

A norm multiplies each channel by γ/√(σ²+ε) and adds β - μγ/√(σ²+ε) (Ioffe & Szegedy 2015, section 3.1). Where
every operator that arrives at a node can carry the factor, all do, and one of them carries the constant.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

import torch
from torch import Tensor

from convfabric.execution.shortcuts import taken_over, without_shortcuts
from convfabric.fabric.module import Fabric
from convfabric.graph import Edge, Graph, Node
from convfabric.operators import Chain, Composite, Depthwise, Identity, Norm, Operator, Pool

State = dict[str, Tensor]
"""The tensors of one operator's layer, by the names they have in it."""
Folded = tuple[Operator, State]
Ends = tuple[int, int]
"""Channels before and after."""


def folded(fabric: Fabric) -> Fabric:
    """A new fabric in evaluation mode without the norms, and identities, that convolutions could take over.

    The old one is untouched. Weights that several edges share, and operators that can carry no factor, such as an
    identity with no convolution beside it, keep the norm of the node behind them.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("paper-mnist-dense", layers=2, scales=2, channels=4)).eval()
    >>> simple, images = folded(fabric), torch.rand(2, 1, 8, 8)
    >>> {type(node.then).__name__ for node in simple.graph.nodes}
    {'Relu'}
    >>> bool(torch.allclose(simple(images), fabric(images), atol=1e-5))
    True
    """
    return with_norms_folded(merged(fabric))


def merged(fabric: Fabric) -> Fabric:
    """A new fabric in evaluation mode in which convolutions have taken over identities; itself where none can.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("trellis", layers=2, scales=1, channels=4, operators="shortcut")).eval()
    >>> simple, images = merged(fabric), torch.rand(1, 3, 8, 8)
    >>> len(simple.graph.edges), bool(torch.allclose(simple(images), fabric(images), atol=1e-6))
    (1, True)
    """
    pairs = list(taken_over(fabric.graph))
    if not pairs:
        return fabric
    state = {name: tensor.detach().clone() for name, tensor in fabric.state_dict().items()}
    for _, beside in pairs:
        weight = state[f"edges.{beside.weights}.weight"]
        height, width = weight.shape[-2:]
        weight[:, :, height // 2, width // 2] += torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    return with_state(without_shortcuts(fabric.graph), state, next(fabric.parameters()))


def with_norms_folded(fabric: Fabric) -> Fabric:
    """The same without the norms alone, every edge as it was."""
    graph = fabric.graph
    own = {name: tensor.detach().double() for name, tensor in fabric.state_dict().items()}
    states, operators = _by_owner(own), _operators(graph)
    parts = {name: _inside(one, states.get(name, {}), ends) for name, (one, ends) in operators.items()}
    for node in graph.nodes:
        parts |= _node_folded(graph, node, parts, operators)
    return _rebuilt(fabric, parts, own)


def as_delivered(fabric: Fabric) -> Fabric:
    """A new fabric in evaluation mode as files hold it: folded, and norms that are left as convolutions.

    Those are 1×1, each channel by itself, and so can be in int8 and take the activation behind them.

    >>> from convfabric.weavers import weave
    >>> fabric, images = Fabric(weave("fabric-small", operators="residual")).eval(), torch.rand(1, 3, 32, 32)
    >>> simple = as_delivered(fabric)
    >>> ["Norm" in str(one.graph.nodes) for one in (folded(fabric), simple)]
    [True, False]
    >>> bool(torch.allclose(simple(images), fabric(images), atol=1e-5))
    True
    """
    return with_convolutions_for_norms(folded(fabric))


def with_convolutions_for_norms(fabric: Fabric) -> Fabric:
    """The last step of the same."""
    own = {name: tensor.detach().double() for name, tensor in fabric.state_dict().items()}
    states, operators = _by_owner(own), _operators(fabric.graph)
    parts = {name: _without_norms(one, states.get(name, {}), ends) for name, (one, ends) in operators.items()}
    return _rebuilt(fabric, parts, own)


def _without_norms(operator: Operator, state: State, ends: Ends) -> Folded:
    if isinstance(operator, Norm):
        scale, shift = operator.affine(state)
        return Depthwise(kernel=1), {"weight": scale.view(-1, 1, 1, 1), "bias": shift}
    if not isinstance(operator, Composite):
        return operator, state
    inside, found = list[Operator](), State()
    for i, part in enumerate(operator.parts(*ends)):
        one, own = _without_norms(part[0], _under(state, f"{operator.field}.{i}."), (part[1], part[2]))
        inside.append(one)
        found |= {f"{operator.field}.{i}.{name}": tensor for name, tensor in own.items()}
    return operator.rebuilt(inside), found


def _rebuilt(fabric: Fabric, parts: dict[str, Folded], own: State) -> Fabric:
    """A fabric with other operators, by the names of their layers, and the heads of before."""
    graph = fabric.graph
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


def _operators(graph: Graph) -> dict[str, tuple[Operator, Ends]]:
    """Everything that has weights, by the name of its layer: the entry, edges by weights, nodes."""
    ends = graph.entry.image_channels, graph.node(graph.entry.place).channels
    found: dict[str, tuple[Operator, Ends]] = {"entry": (graph.entry.operator, ends)}
    found |= {_edge(edge): (edge.operator, graph.ends(edge)) for edge in graph.edges}
    return found | {f"nodes.{node.place}": (node.then, (node.channels, node.channels)) for node in graph.nodes}


def _edge(edge: Edge) -> str:
    return f"edges.{edge.weights}"


def _by_owner(state: State) -> dict[str, State]:
    """A fabric's tensors parted by the layers of :func:`_operators`."""
    found: dict[str, State] = {}
    for name, tensor in state.items():
        owner = "entry" if name.startswith("entry.") else ".".join(name.split(".")[:2])
        found.setdefault(owner, {})[name.removeprefix(f"{owner}.")] = tensor
    return found


def _under(state: State, start: str, kept: str = "") -> State:
    return {kept + name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def _node_folded(
    graph: Graph, node: Node, parts: dict[str, Folded], operators: dict[str, tuple[Operator, Ends]]
) -> dict[str, Folded]:
    """The operators around a node whose norm has gone into those that arrive; nothing where it cannot."""
    own = f"nodes.{node.place}"
    then, state = parts[own]
    steps = then.steps if isinstance(then, Chain) else (then,)
    arriving = [(_edge(edge), edge) for edge in graph.arriving(node.place)]
    names = [name for name, _ in arriving] + ["entry"] * (node.place == graph.entry.place)
    if not steps[0].normalises or node.join != "sum" or any(edge.shared for _, edge in arriving):
        return {}
    scale, shift = steps[0].affine(_under(state, "steps.0.") if isinstance(then, Chain) else state)
    found: dict[str, Folded] = {}
    for name in names:
        carried = _scaled(*parts[name], operators[name][1], scale, torch.zeros_like(shift) if found else shift)
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


def _inside(operator: Operator, state: State, ends: Ends) -> Folded:
    """The operator with norms inside chains folded into the step before them."""
    if not isinstance(operator, Composite):
        return operator, state
    inside: list[Folded] = []
    widths: list[Ends] = []
    for i, part in enumerate(operator.parts(*ends)):
        step = _inside(part[0], _under(state, f"{operator.field}.{i}."), (part[1], part[2]))
        follows = isinstance(operator, Chain) and inside and step[0].normalises
        carried = _scaled(*inside[-1], widths[-1], *step[0].affine(step[1])) if follows else None
        if carried:
            inside[-1] = carried
        else:
            inside.append(step)
            widths.append((part[1], part[2]))
    named = ((f"{operator.field}.{i}.", own) for i, (_, own) in enumerate(inside))
    names = {under + name: tensor for under, own in named for name, tensor in own.items()}
    return operator.rebuilt([one for one, _ in inside]), names


def _scaled(operator: Operator, state: State, ends: Ends, scale: Tensor, shift: Tensor) -> Folded | None:
    """The operator with its result multiplied and shifted by channel; None where it cannot carry that."""
    if _ends_with_maximum(operator):
        return _before_maximum_scaled(operator, state, ends, scale, shift)
    if not operator.linear:
        return None
    if not isinstance(operator, Composite):
        return _primitive_scaled(operator, state, ends, scale, shift)
    chained = isinstance(operator, Chain)
    opaque = [i for i, part in enumerate(operator.inside) if not part.transparent]
    at, found = 0, operator
    for i, part in enumerate(operator.parts(*ends)):
        if chained and i != opaque[-1]:
            continue
        # In a chain one part carries all; of a sum each the factor and the first the constant; else each its own share.
        shares = not chained and sum(p[2] for p in operator.parts(*ends)) == len(scale) != part[2]
        here = slice(at, at := at + part[2]) if shares else slice(None)
        own = shift[here] if chained or shares or i == 0 else torch.zeros_like(shift)
        carried = _scaled(part[0], _under(state, f"{operator.field}.{i}."), (part[1], part[2]), scale[here], own)
        assert carried is not None, f"{operator} says that it is linear, {part[0]} in it is not"
        found, state = _replaced(found, state, i, carried)
    return found, state


def _ends_with_maximum(operator: Operator) -> TypeGuard[Chain]:
    if not isinstance(operator, Chain) or len(operator.steps) < 2:
        return False
    last = operator.steps[-1]
    return isinstance(last, Pool) and last.kind == "max"


def _before_maximum_scaled(chain: Chain, state: State, ends: Ends, scale: Tensor, shift: Tensor) -> Folded | None:
    """The same of a chain that ends with a maximum, which is of the same pixel after a factor that is not negative."""
    *before, last = chain.steps
    carried = _scaled(replace(chain, steps=tuple(before)), state, ends, scale, shift) if scale.min() >= 0 else None
    if carried is None:
        return None
    found, state = carried
    assert isinstance(found, Chain)
    return replace(found, steps=(*found.steps, last)), state


def _primitive_scaled(operator: Operator, state: State, ends: Ends, scale: Tensor, shift: Tensor) -> Folded:
    axes = operator.axes["weight"]
    factors = scale[operator.outputs(*ends)] if "pair" in axes else scale
    at = axes.index("pair" if "pair" in axes else "out")
    weight = state["weight"] * factors.view([-1 if i == at else 1 for i in range(len(axes))])
    if "bias" not in state and not shift.any():
        return operator, state | {"weight": weight}
    operator = operator if "bias" in state else replace(operator, bias=True)  # type: ignore[type-var]
    each = [-1, *[1] * (len(operator.axes["bias"]) - 1)]
    constant = shift.view(each)
    if "bias" in state:
        bias = state["bias"] * scale.view(each) + constant
    else:
        bias = constant.expand([len(shift), *_other_sides(operator, weight)]).clone()
    return operator, state | {"weight": weight, "bias": bias}


def _other_sides(operator: Operator, weight: Tensor) -> list[int]:
    """The sides of a bias that has more dimensions than its channels: the last ones of the weight."""
    more = len(operator.axes["bias"]) - 1
    return list(weight.shape[-more:]) if more else []


def _replaced(operator: Composite, state: State, at: int, by: Folded) -> tuple[Composite, State]:
    """A composite with one of its parts replaced."""
    inside, under = list(operator.inside), f"{operator.field}.{at}."
    inside[at] = by[0]
    others = {name: tensor for name, tensor in state.items() if not name.startswith(under)}
    rebuilt = operator.rebuilt(inside)
    assert isinstance(rebuilt, Composite)
    return rebuilt, others | {under + name: tensor for name, tensor in by[1].items()}
