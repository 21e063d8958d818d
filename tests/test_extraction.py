from dataclasses import replace

import pytest
import torch
from torch import nn

from convfabric.cutting.dead_channels import without_dead_channels
from convfabric.cutting.surgery import _fill, extract, ranked
from convfabric.errors import GraphError, NoRouteError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs
from convfabric.operators import Conv
from convfabric.weavers import Purpose, Trellis, weave, weave_trellis
from graphs import random_restriction, random_trellis


def lively_fabric(graph: Graph, seed: int) -> Fabric:
    """A fabric whose norms, statistics and biases are all random, in evaluation mode."""
    torch.manual_seed(seed)
    fabric = Fabric(graph)
    for name, tensor in fabric.state_dict().items():
        if tensor.dtype.is_floating_point:
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
    return fabric.eval()


@pytest.mark.parametrize("block", range(15))
def test_extracted_fabric_answers_exactly_as_its_restricted_parent(block: int) -> None:
    feasible = 0
    for seed in range(10 * block, 10 * block + 10):
        graph, size = random_trellis(seed)
        smaller = random_restriction(graph, seed)
        if smaller is None:
            continue
        feasible += 1
        fabric = lively_fabric(graph, seed)
        images = torch.randn(2, graph.entry.image_channels, *size)
        with torch.no_grad():
            assert torch.equal(extract(fabric, smaller)(images), fabric(images, smaller))
    assert feasible >= 3, "too few draws left a route for the property to mean something"


def test_enough_restrictions_are_tried_and_the_others_are_errors() -> None:
    drawn = [random_restriction(random_trellis(seed)[0], seed) for seed in range(375)]
    assert sum(graph is not None for graph in drawn) >= 200
    assert any(graph is None for graph in drawn)


def test_no_route_is_said_alike_before_and_after_extraction() -> None:
    graph = weave("fabric-tiny", size=(8, 8))
    with pytest.raises(NoRouteError):
        extract(Fabric(graph), graph.restrict([]))


def test_a_masked_node_would_have_answered_otherwise() -> None:
    """The trap that restrict avoids: a node with nothing arriving still emits relu(norm(0))."""
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    fabric = lively_fabric(graph, 0)
    images, smaller = torch.randn(1, 3, 8, 8), graph.restrict(graph.edge_names - {"L0S1_L1S1", "L0S0_L1S1"})
    answers = extract(fabric, smaller)(images)
    for name in ("L0S1_L1S1", "L0S0_L1S1"):
        for parameter in fabric.edges[name].parameters():
            parameter.data.zero_()
    assert not torch.allclose(fabric(images), answers, atol=1e-3)


@pytest.mark.parametrize("operators", ["plain", "block", "residual"])
def test_a_narrowed_fabric_answers_as_its_parent_with_the_other_channels_silent(operators: str) -> None:
    graph = weave_trellis(Trellis(layers=4, scales=2, channels=6, operators=operators))  # type: ignore[arg-type]
    fabric = lively_fabric(graph, 1)
    group = next(tie.places for tie in graph.ties if Place(1, 0) in tie.places)
    smaller = graph.narrow(dict.fromkeys(group, 4))
    for place in group:
        silent = [4, 5]
        _silence_inside(fabric.nodes[str(place)], silent)
        if place == graph.entry.place:
            _silence_inside(fabric.entry, silent)
        for edge in graph.edges:
            if edge.target == place and operators != "plain":
                _silence_inside(fabric.edges[edge.name], silent)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(extract(fabric, smaller)(images), fabric(images))


def _silence_inside(module: torch.nn.Module, silent: list[int]) -> None:
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data[silent] = 0.0
            part.bias.data[silent] = 0.0


def test_extract_refuses_a_graph_of_another_fabric() -> None:
    fabric = Fabric(weave("fabric-tiny", size=(8, 8)))
    with pytest.raises(GraphError, match="not a part of fabric-tiny"):
        extract(fabric, weave_trellis(Trellis(layers=9, scales=2, channels=12)))


def test_extract_refuses_a_graph_with_another_operator() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=1, channels=4))
    other = replace(graph, edges=(replace(graph.edges[0], operator=Conv(kernel=1)), *graph.edges[1:]))
    with pytest.raises(GraphError, match="whose L0S0_L1S0 is another operator"):
        extract(Fabric(graph), other)
    with pytest.raises(GraphError, match="whose L0S0_L1S0 is another operator"):
        Fabric(graph)(torch.zeros(1, 3, 8, 8), other)


@pytest.mark.parametrize("name", ["nin", "fcn", "linknet", "gridnet"])
def test_channels_that_are_classes_stay_in_order(name: str) -> None:
    graph = weave(name, task="segmentation", size=(32, 32), classes=5, channels=4)
    place, fabric = graph.head.reads[0], Fabric(graph)
    backwards = {place: torch.arange(4, -1, -1)}
    with pytest.raises(GraphError, match="its channels are the image's or classes"):
        extract(fabric, graph, backwards)


def test_extract_refuses_positions_that_do_not_fit() -> None:
    fabric = Fabric(weave_trellis(Trellis(layers=3, scales=1, channels=4)))
    smaller = fabric.graph.narrow({Place(1, 0): 2})
    with pytest.raises(GraphError, match="L1S0: 2 positions given for 2 of 4 channels"):
        extract(fabric, smaller, {Place(1, 0): torch.tensor([1, 7])})


@pytest.mark.parametrize("positions", [[0, 0], [-1, 1]])
def test_extract_refuses_positions_that_stand_twice_or_below_zero(positions: list[int]) -> None:
    fabric = Fabric(weave_trellis(Trellis(layers=3, scales=1, channels=4)))
    with pytest.raises(GraphError, match="L1S0: 2 positions given for 2 of 4 channels"):
        extract(fabric, fabric.graph.narrow({Place(1, 0): 2}), {Place(1, 0): torch.tensor(positions)})


@pytest.mark.parametrize("network", ["fabric-tiny", "densenet", "unet"])
def test_a_narrowed_graph_is_run_as_it_is_extracted(network: str) -> None:
    graph = weave(network, size=(16, 16), **({"blocks": (2, 2)} if network == "densenet" else {}))
    fabric = lively_fabric(graph, 2)
    free = [tie.places for tie in graph.ties if all(graph.node(place).join == "sum" for place in tie.places)]
    smaller = graph.narrow({place: max(1, graph.node(place).channels // 2) for group in free for place in group})
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(extract(fabric, smaller)(images), fabric(images, smaller))
    assert sum(p.numel() for p in extract(fabric, smaller).parameters()) == costs(smaller, (16, 16)).parameters


@pytest.mark.parametrize("network", ["fabric-tiny", "resnet-20", "unet", "linknet", "paper-mnist-sparse"])
def test_a_ranked_fabric_answers_as_before(network: str) -> None:
    fabric = lively_fabric(weave(network, size=(32, 32), image_channels=3), 3).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ranked(fabric)(images), fabric(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", ["fabric-tiny", "unet"])
def test_weights_of_other_names_or_shapes_are_not_filled_in(network: str) -> None:
    fabric = lively_fabric(weave(network, size=(32, 32), image_channels=3), 3)
    weights = dict(fabric.state_dict())
    name = next(name for name, weight in weights.items() if weight.ndim > 1)
    for other in (weights | {name: weights[name][:1]}, weights | {"another": weights[name]}, {name: weights[name]}):
        with pytest.raises(GraphError, match="do not fit the weights given"):
            _fill(fabric, other)


@pytest.mark.parametrize("operators", ["plain", "block", "residual"])
def test_ranking_puts_silent_channels_last(operators: str) -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=6, operators=operators))  # type: ignore[arg-type]
    fabric, silent = lively_fabric(graph, 4), [0, 3]
    _silence_inside(fabric, silent)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        narrow = fabric(images, graph.narrow({node.place: 4 for node in graph.nodes}))
        after = ranked(fabric)(images, graph.narrow({node.place: 4 for node in graph.nodes}))
        assert not torch.allclose(narrow, fabric(images), atol=1e-3)
        torch.testing.assert_close(after, fabric(images), rtol=1e-4, atol=1e-4)


def test_the_parent_is_left_as_it_was() -> None:
    fabric = Fabric(weave("fabric-tiny", size=(8, 8)))
    before = {name: tensor.clone() for name, tensor in fabric.state_dict().items()}
    small = extract(fabric, fabric.graph)
    for parameter in small.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in fabric.state_dict().items())


def test_channels_that_are_always_zero_are_taken_out_and_answers_stay() -> None:
    torch.manual_seed(0)
    fabric = Fabric(weave_trellis(Trellis(layers=3, scales=2, channels=6), Purpose())).eval()
    dead = {Place(1, 0): [1, 4], Place(1, 1): [0, 1, 2, 3, 4, 5], Place(2, 0): [5]}
    for place, channels in dead.items():
        norm = fabric.nodes[str(place)].get_submodule("steps.0")
        assert isinstance(norm, nn.BatchNorm2d)
        with torch.no_grad():
            norm.weight[channels] = 0
            norm.bias[channels] = -torch.rand(len(channels))
    simple = without_dead_channels(fabric)
    counts = {place: simple.graph.node(place).channels for place in dead}
    assert counts == {Place(1, 0): 4, Place(1, 1): 1, Place(2, 0): 5}
    images = torch.rand(2, 3, 9, 8)
    assert torch.allclose(simple(images), fabric(images), atol=1e-6)
    assert without_dead_channels(simple).graph.node(Place(1, 0)).channels == 4


def test_a_network_without_dead_channels_is_left_as_it_is() -> None:
    fabric = Fabric(weave_trellis(Trellis(layers=2, scales=2, channels=4), Purpose())).eval()
    assert without_dead_channels(fabric) is fabric
