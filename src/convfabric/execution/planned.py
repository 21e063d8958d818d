"""A fabric run after a plan: sparse places that do not wait for each other are one call of the sparse operator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convfabric.execution import enlarging, norms, sparse
from convfabric.fabric.layers import added
from convfabric.fabric.module import NO_GATES, Fabric, Gates, image_size
from convfabric.graph import Graph, Place, Step
from convfabric.graph.sizes import map_sizes
from convfabric.operators import Norm, Size


@dataclass(frozen=True)
class Together:
    """Steps that one call of the sparse operator does; or a single step, when it cannot."""

    steps: tuple[Step, ...]
    sparse: bool
    through: bool
    """Whether some of the steps need others among them, so that activations are part of the call."""


class Planned(nn.Module):
    """A fabric whose sparse layers run as one operator each; the weights and their names are the fabric's.

    Called like :class:`convfabric.fabric.module.EveryExit`: logits of every exit, the earliest first. ``frozen`` says
    that weights will not change and nothing is learnt: layers in a row whose nodes only add and activate then
    run in one call (see :func:`convfabric.execution.folding.folded`), with kernels laid out beforehand.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("paper-mnist-sparse", layers=2, scales=2, channels=4)).eval()
    >>> images = torch.rand(2, 1, 8, 8)
    >>> bool((Planned(fabric)(images)[0] - fabric(images)).abs().max() < 1e-5)
    True
    """

    def __init__(self, fabric: Fabric, *, frozen: bool = False) -> None:
        super().__init__()
        self.fabric = fabric
        self.stages = [_stage(fabric, together, frozen) for together in stages(fabric.graph, frozen)]

    def forward(self, images_BCHW: Tensor, gates: Gates = NO_GATES) -> tuple[Tensor, ...]:
        """Logits of every exit, the earliest first; with gates every edge runs by itself."""
        if gates:
            return self.fabric.forward_exits(images_BCHW, gates=gates)
        fabric, image = self.fabric, image_size(images_BCHW)
        sizes = map_sizes(fabric.graph, image)
        responses: dict[Place, Tensor] = {}
        logits: list[Tensor] = []
        for steps, call in self.stages:
            known = call is not None and call.takes(responses)
            responses |= call(fabric, responses, sizes) if call and known else {}
            for step in steps:
                if not known:
                    joined = fabric.joined(step, responses, images_BCHW, sizes)
                    responses[step.place] = then(fabric, step.place, joined, sizes)
                heads = [fabric.graph.heads[exit_] for exit_ in step.exits]
                logits += [fabric.answer(head, responses, image, enlarging.enlarged) for head in heads]
                for place in step.done:
                    responses.pop(place, None)
        return tuple(logits)


def stages(graph: Graph, frozen: bool = False) -> Iterator[Together]:
    """The walk, with the steps that the sparse operator can do at once together.

    >>> from convfabric.weavers import weave
    >>> graph = weave("paper-mnist-sparse", layers=3, scales=2)
    >>> [len(together.steps) for together in stages(graph)]
    [1, 1, 2, 1, 1]
    """
    waiting: list[Step] = []

    def flushed() -> Iterator[Together]:
        if waiting:
            yield Together(tuple(waiting), True, frozen and all(_plain(graph, step) for step in waiting))
            waiting.clear()

    for step in graph.walk:
        needs = {source for _, _, source in step.arriving} & {before.place for before in waiting}
        if not _fuses(graph, step):
            yield from flushed()
            yield Together((step,), False, False)
            continue
        if needs and not (frozen and all(_plain(graph, before) for before in (*waiting, step))):
            yield from flushed()
        waiting.append(step)
    yield from flushed()


def then(fabric: Fabric, place: Place, joined: Tensor, sizes: Mapping[Place, Size]) -> Tensor:
    """The response of a node, from its joined input."""
    module = fabric.nodes[str(place)]
    operator = fabric.graph.node(place).then
    if fabric.training and norms.runs(operator, joined):
        norm, bounds = (
            module if isinstance(operator, Norm) else module.get_submodule("steps.0"),
            norms.bounds_of(operator),
        )
        assert isinstance(norm, nn.BatchNorm2d)
        assert bounds is not None
        return norms.norm_relu(norm, joined, *bounds)
    response: Tensor = module(joined, sizes[place])
    return response


def _plain(graph: Graph, step: Step) -> bool:
    """Whether a node is a ReLU or nothing, as the kernel knows them."""
    return graph.node(step.place).then.negative_slope in (0.0, 1.0)


def _fuses(graph: Graph, step: Step) -> bool:
    edges = graph.arriving(step.place)
    if not edges or step.join != "sum" or step.place == graph.entry.place:
        return False
    ends = [(edge.operator, graph.node(edge.source).channels, graph.node(edge.target).channels) for edge in edges]
    return all(sparse.runs(*end) for end in ends)


def _stage(fabric: Fabric, together: Together, frozen: bool) -> "tuple[tuple[Step, ...], _Call | None]":
    return together.steps, _Call(fabric, together, frozen) if together.sparse else None


class _Call:
    """How the sparse operator is told of some steps."""

    def __init__(self, fabric: Fabric, together: Together, frozen: bool) -> None:
        self.steps, self.through = together.steps, together.through
        graph, own = fabric.graph, {step.place for step in together.steps}
        self.edges = [(weights, source, step.place) for step in self.steps for _, weights, source in step.arriving]
        self.sources = [source for source in dict.fromkeys(s for _, s, _ in self.edges) if source not in own]
        position = {place: i for i, place in enumerate((*self.sources, *(step.place for step in self.steps)))}
        move = {edge.weights: edge.operator.scales_moved for edge in graph.edges}
        into = [self._into(step) for step in self.steps]
        self.arriving = [[(position[source], move[weights]) for weights, source, _ in edges] for edges in into]
        read = {edge.source for edge in graph.edges if edge.target not in own} | set(graph.reads)
        self.kept = [not self.through or step.place in read for step in self.steps]
        nodes = [graph.node(step.place) for step in self.steps]
        self.channels = [node.channels for node in nodes]
        self.active = [self.through and node.then.negative_slope == 0.0 for node in nodes]
        self.biased = any(fabric.edges[weights].bias is not None for weights, _, _ in self.edges)
        self.packed: list[Tensor] = []
        self.biases: list[Tensor] = []
        if frozen:
            kernels = [
                sparse.packed(self._weight(fabric, weights), graph.node(source).channels, graph.node(at).channels)
                for weights, source, at in self.edges
            ]
            self.packed = [torch.cat(kernels)]
            self.biases = [torch.cat(self._biases(fabric)).detach()] if self.biased else []

    def takes(self, responses: Mapping[Place, Tensor]) -> bool:
        """Whether the operator knows the device and the dtype of what it would read, and what is asked of it."""
        maps = [responses[source] for source in self.sources]
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return False
        if self.packed and torch.is_grad_enabled() and any(m.requires_grad for m in maps):
            return False
        return all(m.device.type == "cpu" and _read_as(m) in sparse.DTYPES for m in maps)

    def __call__(
        self, fabric: Fabric, responses: Mapping[Place, Tensor], sizes: Mapping[Place, Size]
    ) -> dict[Place, Tensor]:
        """The responses at the places that others read."""
        maps = [responses[source].to(_read_as(responses[source])) for source in self.sources]
        kernels = self.packed or [self._weight(fabric, weights) for weights, _, _ in self.edges]
        biases = self.biases if self.packed else self._biases(fabric)
        form = "packed" if self.packed else "stored"
        alone = self.packed and not torch.compiler.is_compiling()
        sums_of = sparse.direct_sums if alone else torch.ops.convfabric.banded_sums
        found = sums_of(maps, kernels, biases, self._wiring(sizes), form)
        kept = [step.place for step, kept in zip(self.steps, self.kept, strict=True) if kept]
        sums: dict[Place, Tensor] = dict(zip(kept, found, strict=True))
        if self.through:
            return sums
        return {place: then(fabric, place, sum_, sizes) for place, sum_ in sums.items()}

    def _wiring(self, sizes: Mapping[Place, Size]) -> list[int]:
        wiring: list[int] = []
        number = 0
        for step, channels, kept, active, arriving in zip(
            self.steps, self.channels, self.kept, self.active, self.arriving, strict=True
        ):
            what = sparse.KEPT * kept + sparse.RELU * active
            wiring += [*sizes[step.place], channels, what, len(arriving)]
            for source, moved in arriving:
                wiring += [source, number, moved]
                number += 1
        return wiring

    def _into(self, step: Step) -> list[tuple[str, Place, Place]]:
        return [edge for edge in self.edges if edge[2] == step.place]

    @staticmethod
    def _weight(fabric: Fabric, weights: str) -> Tensor:
        return fabric.edges[weights].get_parameter("weight").float()

    def _biases(self, fabric: Fabric) -> list[Tensor]:
        """The constants of each node's edges, added."""
        if not self.biased:
            return []
        layers = [[fabric.edges[weights] for weights, _, _ in self._into(step)] for step in self.steps]
        biases = [[layer.get_parameter("bias").float() for layer in into if layer.bias is not None] for into in layers]
        device = next(fabric.parameters()).device
        return [
            added(some) if some else torch.zeros(channels, device=device)
            for some, channels in zip(biases, self.channels, strict=True)
        ]


def _read_as(response: Tensor) -> torch.dtype:
    """The dtype in which a convolution would read a response, under autocast or not."""
    kind = response.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else response.dtype
