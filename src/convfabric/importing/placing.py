"""From responses to a graph on the grid, and the tensors that its weights are."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import log2

import torch

from convfabric.errors import ImportingError
from convfabric.graph import POINT, Edge, Entry, Graph, Head, Node, Place, Task
from convfabric.graph.laws import check
from convfabric.importing.decoder import decoded_from
from convfabric.importing.responses import Arrival, Constant, Response, Seen, Tensors
from convfabric.operators import Chain, Conv, FullyConnected, GlobalPool, Identity, Resize, Size


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A graph, and by the names of its weights the tensors they are."""

    graph: Graph
    weights: Mapping[str, Constant]
    fresh: tuple[str, ...] = ()
    """What names of weights begin with that are not among these, as they are new."""


def placed(
    images: Response,
    answered: Seen,
    name: str,
    classes: int | None = None,
    task: Task = "classification",
    decoder: int = 0,
) -> Placed:
    """The graph of the responses between the images and what is answered, or new heads where classes are given.

    For segmentation and detection those read a decoder of so many channels, if there are any.
    """
    image, last = images.size, answered.response
    reads, linear, found_task = _head(last, image)
    responses = _simplified(_needed(reads if classes is None else _trunk(reads, last.channels), images), images)
    shared = _shared(responses)
    responses = [part for one in responses for part in _apart(one, shared)]
    if all(one.point for one in responses):
        raise ImportingError("no map of more than one pixel is left: a convolutional network has some.")
    first, stem = _stem(responses, images)
    ends = [] if classes is None else _stage_ends(responses, image)
    decoded = decoded_from(ends, decoder, image) if decoder and task != "classification" else []
    responses += decoded
    order = responses if stem.source is images else [images, *responses]
    places = _places(order, images, image)
    nodes, edges, weights = [], [], dict[str, Constant]()
    for one in order:
        nodes.append(_node(one, places[one], weights))
        edges += _edges(() if stem.source is images and one is first else one.arriving, places[one], places, weights)
    entry = Entry(
        place=places[first if stem.source is images else images],
        operator=stem.operator,
        image_channels=images.channels,
    )
    _name(weights, "entry.", stem.tensors)
    if classes is None:
        heads, fresh = [_own_head(places[responses[-1]], found_task, last.channels, linear, weights)], list[str]()
    else:
        heads, fresh = _new_heads([places[one] for one in decoded[1::2] or ends], classes, task), ["heads."]
    edges, weights = _sharing(edges, weights)
    _check_not_shared(weights)
    graph = Graph(name=name, nodes=tuple(nodes), edges=tuple(edges), entry=entry, heads=tuple(heads))
    new = {places[one] for one in decoded}
    fresh += [f"nodes.{place}." for place in new] + [f"edges.{edge.name}." for edge in edges if edge.target in new]
    return Placed(graph=check(graph, image), weights=weights, fresh=tuple(fresh))


def _sharing(edges: list[Edge], weights: Mapping[str, Constant]) -> tuple[list[Edge], dict[str, Constant]]:
    """Edges that do the same with the same tensors share their weights, which then stand under the first one's name."""
    alike: dict[object, list[tuple[str, Tensors]]] = {}
    first_of: dict[str, str] = {}
    for edge in edges:
        under = f"edges.{edge.name}."
        own = {name.removeprefix(under): constant for name, constant in weights.items() if name.startswith(under)}
        if own and all(constant.origin for constant in own.values()):
            before = alike.setdefault((edge.operator, *sorted(constant.origin for constant in own.values())), [])
            first_of[edge.name] = next((name for name, other in before if _equal(own, other)), edge.name)
            before.append((edge.name, own))
    uses = Counter(first_of.values())
    shared = {name: first for name, first in first_of.items() if uses[first] > 1}
    others = tuple(f"edges.{name}." for name, first in shared.items() if name != first)
    kept = {name: constant for name, constant in weights.items() if not name.startswith(others)}
    return [replace(edge, shared=shared.get(edge.name, "")) for edge in edges], kept


def _equal(one: Tensors, other: Tensors) -> bool:
    """Whether tensors are the same by name; views of one parameter, as its transpose, need not be."""
    return one.keys() == other.keys() and all(torch.equal(one[name].tensor, other[name].tensor) for name in one)


def _shared(responses: Iterable[Response]) -> set[str]:
    """Weights and statistics that several operators have."""
    operators = [
        tensors for one in responses for tensors in (*(a.tensors for a in one.arriving), *(t for _, t in one.then))
    ]
    uses = Counter(constant.origin for tensors in operators for constant in tensors.values())
    return {origin for origin, count in uses.items() if origin and count > 1}


def _apart(one: Response, shared: set[str]) -> list[Response]:
    """A response, before it others at whose ends an operator stands that is used elsewhere: edges can share weights."""
    for at, (operator, tensors) in enumerate(one.then):
        if any(constant.origin in shared for constant in tensors.values()):
            before = replace(one, then=one.then[:at])
            one.arriving, one.join, one.then = [Arrival(before, operator, tensors)], "sum", one.then[at + 1 :]
            return [before, *_apart(one, shared)]
    return [one]


def _check_not_shared(weights: Mapping[str, Constant]) -> None:
    """ImportingError where two operators have the same weights."""
    uses = Counter(constant.origin for constant in weights.values() if constant.origin)
    if several := [origin for origin, count in uses.items() if count > 1]:
        raise ImportingError(
            f"{several[0]} is used {uses[several[0]]} times, and not alike: a graph would have weights for each. "
            f"Copies answer the same: give each use a nn.Parameter({several[0]}.detach().clone()) of its own."
        )


def _stem(responses: list[Response], images: Response) -> tuple[Response, Arrival]:
    """The first response that reads the images, and how; from None where the images need a node of their own."""
    readers = [one for one in responses for source in _sources(one) if source is images]
    if not readers:
        raise ImportingError("nothing reads the images.")
    alone = len(readers) == 1 and len(readers[0].arriving) == 1 and readers[0].join == "sum"
    return readers[0], readers[0].arriving[0] if alone else Arrival(None, Identity())


def _node(one: Response, place: Place, weights: dict[str, Constant]) -> Node:
    """The node of a response, whose weights are entered among others."""
    operators = tuple(operator for operator, _ in one.then)
    for i, (_, tensors) in enumerate(one.then):
        _name(weights, f"nodes.{place}." + (f"steps.{i}." if len(operators) > 1 else ""), tensors)
    then = Chain(operators) if len(operators) > 1 else operators[0] if operators else Identity()
    return Node(place=place, channels=one.channels, join=one.join, then=then)


def _edges(
    arriving: Iterable[Arrival], place: Place, places: Mapping[Response, Place], weights: dict[str, Constant]
) -> list[Edge]:
    """The edges that arrive at a place, told apart by lanes, whose weights are entered among others."""
    edges: list[Edge] = []
    for arrival in arriving:
        assert arrival.source is not None
        source = places[arrival.source]
        lane = sum(edge.source == source for edge in edges)
        edges.append(Edge(source=source, target=place, operator=arrival.operator, lane=lane))
        _name(weights, f"edges.{edges[-1].name}.", arrival.tensors)
    return edges


def _own_head(place: Place, task: Task, classes: int, linear: Tensors | None, weights: dict[str, Constant]) -> Head:
    """The head that answers as the network does, whose weights, if it has any, are entered among others."""
    for part, tensor in (linear or {}).items():
        weights[f"heads.head.{f'reads.{place}.weight' if part == 'weight' else part}"] = tensor
    return Head(task=task, classes=classes, reads=(place,), linear=linear is not None)


def _new_heads(places: list[Place], classes: int, task: Task) -> list[Head]:
    """For classification an exit after each place, for other tasks one head that reads all of them."""
    if task != "classification":
        return [Head(task=task, classes=classes, reads=tuple(places))]
    names = [f"exit{number}" for number in range(1, len(places))] + ["head"]
    each = zip(places, names, strict=True)
    return [Head(task=task, classes=classes, reads=(place,), name=name) for place, name in each]


def _trunk(response: Response, answers: int) -> Response:
    """The last map of more than one pixel on the way to an answer, before what makes as many channels as answers."""
    while response.point or response.channels == answers:
        before = [source for source in _sources(response) if source is not None]
        if not before:
            raise ImportingError("no map is left before its classifier.")
        response = max(before, key=lambda one: (not one.point, one.size[0] * one.size[1]))
    return response


LEAST_SCALE = 2
"""Stages of finer maps are too early to answer by."""


def _stage_ends(responses: list[Response], image: Size) -> list[Response]:
    """Of each size the last response that all routes run through, and that is not wide within a block only."""
    position = {one: at for at, one in enumerate(responses)}
    reach = list(range(len(responses)))
    for at, one in enumerate(responses):
        for source in _sources(one):
            if source in position:
                reach[position[source]] = max(reach[position[source]], at)
    jumped, farthest = set[int](), 0
    for at in range(len(responses)):
        if farthest > at:
            jumped.add(at)
        farthest = max(farthest, reach[at])
    found: dict[int, Response] = {}
    narrow: dict[int, int] = {}
    for at, one in enumerate(responses):
        scale = _scale(one, image)
        if at not in jumped and not one.point and scale >= LEAST_SCALE:
            narrow[scale] = min(narrow.get(scale, one.channels), one.channels)
            if one.channels <= 2 * narrow[scale]:
                found[scale] = one
    return [*(one for scale, one in found.items() if scale != _scale(responses[-1], image)), responses[-1]]


def _name(weights: dict[str, Constant], under: str, tensors: Tensors) -> None:
    weights |= {under + name: tensor for name, tensor in tensors.items()}


def _head(last: Response, image: Size) -> tuple[Response, Tensors | None, Task]:
    """What the head reads, its linear map where it has one, and the task."""
    made = last.arriving[0] if len(last.arriving) == 1 and not last.then and last.arriving else None
    if last.size != (1, 1) or not last.point:
        enlarged = made and made.operator == Resize(size=image)
        if made and made.source and enlarged:
            return made.source, None, "segmentation"
        if last.size != image:
            raise ImportingError(f"it answers with maps of {last.size[0]}×{last.size[1]} for images of {image}.")
        return last, None, "segmentation"
    pooled = _only(made.source) if made and isinstance(made.operator, FullyConnected | Conv) else None
    if made and made.source and pooled and pooled.operator == GlobalPool() and not made.source.then:
        assert pooled.source is not None
        tensors = dict(made.tensors)
        weight = tensors["weight"]
        flat = replace(weight, tensor=weight.tensor.flatten(1))
        none = Constant(weight.tensor.new_zeros(last.channels))
        return pooled.source, {"weight": flat, "bias": tensors.get("bias", none)}, "classification"
    return last, None, "classification"


def _only(response: Response | None) -> Arrival | None:
    """The one arrival of a response; None where there are others, or nothing but images."""
    if response is None or len(response.arriving) != 1 or response.arriving[0].source is None:
        return None
    return response.arriving[0]


def _sources(response: Response) -> list[Response | None]:
    return [arrival.source for arrival in response.arriving]


def _needed(last: Response, images: Response) -> list[Response]:
    """Every response that the last one needs but the images, each after all that it reads."""
    order: list[Response] = []
    known = {images}
    waiting = [(last, False)]
    while waiting:
        one, ready = waiting.pop()
        if ready:
            order.append(one)
        elif one not in known:
            known.add(one)
            waiting.append((one, True))
            waiting += [(source, False) for source in _sources(one) if source is not None]
    return order


def _simplified(responses: list[Response], images: Response) -> list[Response]:
    """Fewer responses that mean the same: what only changes another one is done there, sums of sums are one."""
    responses = _copied(responses)
    readers = Counter(arrival.source for one in responses for arrival in one.arriving)
    gone: set[Response] = set()
    for one in responses:
        if (made := _only(one)) and isinstance(made.operator, Identity) and readers[made.source] == 1:
            source = made.source
            if source is not None and source is not images:
                one.arriving, one.join, one.then = source.arriving, source.join, [*source.then, *one.then]
                gone.add(source)
        if one.join == "sum" and len(one.arriving) > 1:
            one.arriving = [part for arrival in one.arriving for part in _spread(arrival, readers, images, gone)]
    return [one for one in responses if one not in gone]


def _copied(responses: list[Response]) -> list[Response]:
    """The same responses once more, reading one another, so that a trace can be placed twice."""
    again: dict[Response | None, Response] = {}
    for one in responses:
        arriving = [replace(arrival, source=again.get(arrival.source, arrival.source)) for arrival in one.arriving]
        again[one] = replace(one, arriving=arriving, then=list(one.then))
    return list(again.values())


def _spread(
    arrival: Arrival, readers: Mapping[Response | None, int], images: Response, gone: set[Response]
) -> Iterable[Arrival]:
    """What arrives at a sum that is read by this sum alone; else the arrival itself."""
    source = arrival.source
    if source is None or source is images or readers[source] > 1 or source.then or source.join != "sum":
        return [arrival]
    if not isinstance(arrival.operator, Identity):
        return [arrival]
    gone.add(source)
    return source.arriving


def _places(order: list[Response], images: Response, image: Size) -> dict[Response, Place]:
    """Layers by depth, scales by size, lanes where several would stand in one place."""
    depth: dict[Response | None, int] = {None: -1, images: 0 if images in order else -1}
    taken: Counter[tuple[int, int]] = Counter()
    places: dict[Response, Place] = {}
    for one in order:
        if one is not images:
            depth[one] = 1 + max(depth[source] for source in _sources(one))
        scale = POINT if one.point else _scale(one, image)
        at = depth[one], scale
        places[one] = Place(*at, taken[at])
        taken[at] += 1
    return places


def _scale(response: Response, image: Size) -> int:
    """Halvings of the image, as near as its size is to one."""
    return min(POINT - 1, max(0, round(log2(image[0] / response.size[0]))))
