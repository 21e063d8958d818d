"""Structural priors as rewrites: functions from a graph to a graph with the same nodes and other kernels.

Each replaces convolutions wherever they stand, inside composites too, and leaves the rest as it is. Only
kernels larger than 1×1 are spatial; those that read images are never divided into groups. A stage is a
scale: the finest that holds spatial convolutions, apart from the stem, is the first.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from convfabric import operators
from convfabric.errors import GraphError, SettingError
from convfabric.graph.laws import check
from convfabric.graph.parts import POINT, Edge, Head, Place
from convfabric.graph.structure import Graph
from convfabric.operators import Chain, Composite, Conv, Depthwise, Operator, mapped, pointwise, sides

Rule = Callable[[Conv], Operator]
FINEST_OF_BOXES = 2
"""The finest scale at whose pixels boxes are looked for: where maps have a quarter of an image's side."""


def root(graph: Graph, groups: int) -> Graph:
    """Filter groups at the first stage, half as many at each further one (Deep Roots, Ioannou et al. 2017).

    Raises GraphError where the groups do not divide the channels.

    >>> from convfabric.weavers import weave
    >>> grouped = root(weave("nin"), 8)
    >>> [edge.operator.steps[1].groups for edge in grouped.edges if edge.operator.stride > 1]
    [8, 4]
    """
    return _grouped(graph, groups, lambda stage: max(1, groups >> stage))


def tree(graph: Graph, groups: int) -> Graph:
    """Filter groups at the first stage, twice as many at each further one; the tree of Deep Roots.

    Raises GraphError where the groups do not divide the channels.

    >>> from convfabric.weavers import weave
    >>> grouped = tree(weave("nin"), 4)
    >>> [edge.operator.steps[1].groups for edge in grouped.edges if edge.operator.stride > 1]
    [4, 8]
    """
    return _grouped(graph, groups, lambda stage: groups << stage)


def column(graph: Graph, groups: int) -> Graph:
    """As many filter groups at every stage; the column of Deep Roots.

    Raises GraphError where the groups do not divide the channels.

    >>> from convfabric.weavers import weave
    >>> grouped = column(weave("nin"), 4)
    >>> [edge.operator.steps[1].groups for edge in grouped.edges if edge.operator.stride > 1]
    [4, 4]
    """
    return _grouped(graph, groups, lambda stage: groups)


def low_rank(graph: Graph, shares: tuple[int, int, int] = (0, 1, 1), *, mixed: bool = False, finest: int = 0) -> Graph:
    """Square kernels as k×k, k×1 and 1×k side by side, in these shares of the channels (Ioannou et al. 2016).

    ``mixed`` adds a 1×1 over them; kernels at scales finer than ``finest`` stay as they are.
    Kernels are drawn as that paper says, see :class:`convfabric.operators.Concat`.
    Raises GraphError where channels cannot be shared out, or for shares that are not three, or all zero.

    >>> from convfabric.graph.costs import costs
    >>> from convfabric.weavers import weave
    >>> vgg = weave("vgg", norm=False, top="global max", size=(224, 224), classes=1000)
    >>> costs(low_rank(vgg), (224, 224)).parameters
    26054888
    """
    if len(shares) != 3 or min(shares) < 0 or not any(shares):
        raise GraphError(f"shares={shares}: three whole numbers for k×k, k×1 and 1×k, not all of them zero.")

    def rule(conv: Conv) -> Operator:
        high, wide = sides(conv.kernel)
        if high != wide or conv.groups > 1 or conv.dilation > 1:
            return conv
        return operators.low_rank(high, conv.stride, conv.bias, shares, mixed)

    return rewritten(graph, rule, finest=finest)


def in_sequence(graph: Graph, *, finest: int = 0) -> Graph:
    """Square kernels as a row kernel, then a column kernel: the sequential filters of Ioannou et al. 2016.

    The row kernel makes all channels, so where they grow much this costs more than the square.

    >>> from convfabric.weavers import weave
    >>> in_sequence(weave("nin")).edges[2].operator.steps[1].steps[0].kernel
    (1, 5)
    """

    def rule(conv: Conv) -> Operator:
        high, wide = sides(conv.kernel)
        if high != wide or conv.groups > 1:
            return conv
        row = replace(conv, kernel=(1, wide))
        return Chain((row, replace(conv, kernel=(high, 1), stride=1)))

    return rewritten(graph, rule, finest=finest)


def separable(graph: Graph) -> Graph:
    """Spatial kernels of each channel alone, then a 1×1 (MobileNet, Howard et al. 2017); the stem stays.

    >>> from convfabric.graph.costs import costs
    >>> from convfabric.weavers import weave
    >>> costs(separable(weave("resnet-20")), (32, 32)).parameters
    40522
    """

    def rule(conv: Conv) -> Operator:
        if conv.groups > 1:
            return conv
        alone = Depthwise(kernel=conv.kernel, stride=conv.stride, dilation=conv.dilation, bias=False)
        return Chain((alone, pointwise(bias=conv.bias)))

    stems = {edge.name: edge for edge in graph.edges if _reads_images(graph, edge)}
    found = rewritten(graph, rule)
    return replace(found, entry=graph.entry, edges=tuple(stems.get(edge.name, edge) for edge in found.edges))


def rewritten(graph: Graph, rule: Rule, *, finest: int = 0) -> Graph:
    """The graph with a rule applied to every spatial convolution at these scales or coarser, the stem's included.

    Raises GraphError where the result breaks a law.

    >>> from convfabric.weavers import weave
    >>> rewritten(weave("resnet-20"), lambda conv: replace(conv, kernel=5)).entry.operator.kernel
    5
    """

    def changed(operator: Operator, place: Place) -> Operator:
        return _applied(operator, rule) if place.scale >= finest else operator

    edges = tuple(replace(edge, operator=changed(edge.operator, edge.target)) for edge in graph.edges)
    entry = replace(graph.entry, operator=changed(graph.entry.operator, graph.entry.place))
    return check(replace(graph, edges=edges, entry=entry))


def _grouped(graph: Graph, first: int, groups_at: Callable[[int], int]) -> Graph:
    divided = {edge.name for edge in graph.edges if _spatial(edge.operator) and not _reads_images(graph, edge)}
    stages = sorted({edge.target.scale for edge in graph.edges if edge.name in divided})
    if first < 1:
        raise GraphError(f"groups={first}: at least 1.")
    if not stages:
        raise GraphError(f"{graph.name} has no kernels larger than 1×1 to divide into groups.")

    def regrouped(edge: Edge) -> Edge:
        groups = groups_at(stages.index(edge.target.scale)) if edge.name in divided else 1
        return replace(edge, operator=_applied(edge.operator, lambda conv: _in_groups(conv, groups)))

    return check(replace(graph, edges=tuple(map(regrouped, graph.edges))))


def _reads_images(graph: Graph, edge: Edge) -> bool:
    """Whether an edge is a stem beside others, behind a node that holds the images as they are."""
    return graph.entry.passes_images and edge.source == graph.entry.place


def _in_groups(conv: Conv, groups: int) -> Conv:
    """A convolution in filter groups; one that has some keeps them."""
    return replace(conv, groups=groups) if conv.groups == 1 else conv


def _is_spatial(operator: Operator) -> bool:
    return isinstance(operator, Conv) and max(sides(operator.kernel)) > 1


def _spatial(operator: Operator) -> bool:
    """Whether there is a convolution in it that a rule would apply to."""
    return any(map(_spatial, operator.inside)) if isinstance(operator, Composite) else _is_spatial(operator)


def _applied(operator: Operator, rule: Rule) -> Operator:
    return mapped(operator, lambda one: rule(one) if isinstance(one, Conv) and _is_spatial(one) else one)


PRIORS: Mapping[str, Callable[[Graph, int], Graph]] = MappingProxyType(
    {
        "root": root,
        "tree": tree,
        "column": column,
        "low-rank": lambda graph, _: low_rank(graph),
        "sequential": lambda graph, _: in_sequence(graph),
        "separable": lambda graph, _: separable(graph),
    }
)
"""The rewrites by name."""
IN_GROUPS = frozenset({"root", "tree", "column"})
"""Those that take a number of groups."""


def find_prior(said: str) -> Callable[[Graph], Graph]:
    """The rewrite of a name, such as root-8 or low-rank; SettingError for another one.

    >>> from convfabric.weavers import weave
    >>> find_prior("column-4")(weave("nin")).name
    'nin'
    """
    name, _, number = said.rpartition("-") if said[-1:].isdigit() else (said, "", "1")
    if name not in PRIORS or (name in IN_GROUPS) != said[-1:].isdigit():
        known = [f"{key}-GROUPS" if key in IN_GROUPS else key for key in PRIORS]
        raise SettingError(f"prior={said}: known are {', '.join(known)}.")
    return lambda graph: PRIORS[name](graph, int(number))


def with_prior(graph: Graph, said: str) -> Graph:
    """The graph rewritten by a prior's name; SettingError for an unknown one, and where it does not fit.

    >>> from convfabric.weavers import weave
    >>> with_prior(weave("nin"), "column-4") == column(weave("nin"), 4)
    True
    """
    rewrite = find_prior(said)
    try:
        return rewrite(graph)
    except GraphError as fault:
        raise SettingError(f"prior={said} does not fit: {fault}") from None


def with_boxes(graph: Graph, classes: int) -> Graph:
    """The graph with one head for detection, which reads the last response at each scale but the finest ones.

    Raises GraphError where no scale is left.

    >>> from convfabric.weavers import weave
    >>> [str(place) for place in with_boxes(weave("vgg", size=(32, 32)), 3).head.reads]
    ['L3S2', 'L5S3', 'L7S4']
    """
    features = with_features(graph)
    reads = tuple(place for place in features.head.reads if place.scale >= FINEST_OF_BOXES)
    if not reads:
        raise GraphError(f"{graph.name} halves images fewer than {FINEST_OF_BOXES} times, and finds no boxes then.")
    head = Head(task="detection", classes=classes, reads=reads)
    return replace(features, heads=(head,)).restrict(features.edge_names)


def with_features(graph: Graph) -> Graph:
    """The graph with one head that reads the last response at each scale, less what only other heads needed.

    Where several heads read one response each, those are the last ones of their scales: what comes after them at the
    same scale begins the next stage.

    >>> from convfabric.weavers import weave
    >>> [str(place) for place in with_features(weave("vgg", size=(32, 32))).head.reads]
    ['L0S0', 'L1S1', 'L3S2', 'L5S3', 'L7S4']
    """
    scores = {place for head in graph.heads if not head.linear for place in head.reads}
    last = {place.scale: place for place in graph.order if place.scale < POINT and place not in scores}
    if len(graph.heads) > 1:
        last |= {
            place.scale: place for head in graph.heads if head.linear for place in head.reads if place.scale < POINT
        }
    reads = tuple(last[scale] for scale in sorted(last))
    head = replace(graph.head, reads=reads, linear=True, name="head")
    return replace(graph, heads=(head,)).restrict(graph.edge_names)
