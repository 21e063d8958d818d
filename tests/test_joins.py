"""Concatenations, exits, parallel edges and shared weights: what follows when something is cut."""

import pytest
import torch
import torchvision
from torch.nn import functional as F

from convfabric.cutting.surgery import extract
from convfabric.cutting.worth import _gradients
from convfabric.errors import GraphError, NoRouteError
from convfabric.graph import POINT, Graph, Place
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.operators import Chain, Conv, GlobalPool, Identity, Relu, Sigmoid
from convfabric.weavers import Draft, Purpose, Trellis, weave, weave_trellis
from convfabric.weavers.builder import PLAIN
from nearness import SINGLE, apart
from test_extraction import lively_fabric

START, LEFT, RIGHT, BOTH, END = Place(0, 0), Place(1, 0, 1), Place(1, 0, 2), Place(1, 0), Place(2, 0)


def branched(groups: int = 1, added: bool = False) -> Graph:
    """Two convolutions of 4 and 6 channels side by side, and a convolution that reads both."""
    draft = Draft("branched", Purpose(classes=3))
    draft.enter(START, Conv(), 5)
    draft.put(LEFT, 4, (START, Conv()), then=PLAIN)
    draft.put(RIGHT, 6, (START, Conv()), then=PLAIN)
    draft.concat(BOTH, LEFT, RIGHT)
    other = draft.put(Place(1, 0, 3), 10, (START, Conv())) if added else None
    arriving = [(BOTH, Identity()), (other, Identity())] if other else [(BOTH, Conv(groups=groups))]
    draft.put(END, 10 if added else 8, *arriving)  # type: ignore[arg-type]
    draft.answer(END)
    return draft.finished()


def without(graph: Graph, *names: str) -> Graph:
    return graph.restrict(graph.edge_names - set(names))


def test_cutting_a_branch_takes_its_channels() -> None:
    small = without(branched(), "L0S0_L1S0B1")
    assert small.node(BOTH).channels == 6
    assert {str(node.place) for node in small.nodes} == {"L0S0", "L1S0B2", "L1S0", "L2S0"}


@pytest.mark.parametrize("cut", ["L0S0_L1S0B1", "L0S0_L1S0B2"])
def test_what_is_left_answers_as_the_whole_with_zeros_in_place_of_the_branch(cut: str) -> None:
    graph = branched()
    fabric, images = lively_fabric(graph, 0), torch.randn(2, 3, 8, 8)
    smaller = without(graph, cut)
    for parameter in fabric.edges[cut].parameters():
        parameter.data.zero_()
    torch.testing.assert_close(extract(fabric, smaller)(images), fabric(images))


def test_a_sliced_run_reaches_the_weights_it_was_sliced_from() -> None:
    graph = branched()
    fabric, smaller = lively_fabric(graph, 0), without(graph, "L0S0_L1S0B1")
    fabric(torch.randn(2, 3, 8, 8), smaller).square().sum().backward()
    grad = fabric.edges["L1S0_L2S0"].get_parameter("weight").grad
    assert grad is not None
    assert grad[:, :4].abs().sum() == 0
    assert grad[:, 4:].abs().sum() > 0


def test_gates_reach_a_sliced_run() -> None:
    graph = branched()
    fabric, smaller = lively_fabric(graph, 0), without(graph, "L0S0_L1S0B1")
    images, shut = torch.randn(2, 3, 8, 8), {"L1S0_L2S0": torch.zeros(())}
    assert not torch.equal(fabric.forward_exits(images, smaller, shut)[0], fabric.forward_exits(images, smaller)[0])


def test_channels_that_can_no_longer_be_added_are_refused() -> None:
    with pytest.raises(GraphError, match=r"L2S0: 6, 10 channels arrive, which cannot be added"):
        without(branched(added=True), "L0S0_L1S0B1")


def test_groups_that_no_longer_divide_are_refused_with_the_edge() -> None:
    with pytest.raises(
        GraphError, match=r"L1S0_L2S0: channels of Conv in 5 groups belong together: of 10 it reads and 10 it makes, 6"
    ):
        without(wide_groups(), "L0S0_L1S0B1")


def wide_groups() -> Graph:
    draft = Draft("wide", Purpose(classes=3))
    draft.enter(START, Conv(), 5)
    draft.put(LEFT, 4, (START, Conv()), then=PLAIN)
    draft.put(RIGHT, 6, (START, Conv()), then=PLAIN)
    draft.concat(BOTH, LEFT, RIGHT)
    draft.put(END, 10, (BOTH, Conv(groups=5)))
    draft.answer(END)
    return draft.finished()


def test_a_grouped_kernel_is_not_torn_apart() -> None:
    with pytest.raises(
        GraphError, match="channels of Conv in 2 groups belong together: of 10 it reads and 8 it makes, 6"
    ):
        without(branched(groups=2), "L0S0_L1S0B1")
    graph = weave_trellis(Trellis(layers=3, scales=1, channels=8, operators="banded"))
    with pytest.raises(GraphError, match="L0S0_L1S0: channels of BandedConv belong together"):
        graph.narrow({Place(1, 0): 4})


def test_narrowing_a_branch_narrows_the_concatenation() -> None:
    graph = branched()
    small = graph.narrow({LEFT: 2})
    assert small.node(BOTH).channels == 8
    fabric = lively_fabric(graph, 0)
    network = extract(fabric, small, {LEFT: torch.tensor([1, 3])})
    weight = network.edges["L1S0_L2S0"].get_parameter("weight")
    assert torch.equal(weight, fabric.edges["L1S0_L2S0"].get_parameter("weight")[:, [1, 3, 4, 5, 6, 7, 8, 9]])
    with pytest.raises(GraphError, match="L1S0: 9 channels asked for; 10 follow from what arrives"):
        graph.narrow({BOTH: 9})


def test_exits_are_answered_in_order_and_what_the_first_needs_comes_first() -> None:
    graph = weave("msdnet", exits=3, base=1, step=1, channels=2, growth=2)
    done = [exit_ for step in graph.walk for exit_ in step.exits]
    assert done == [0, 1, 2]
    upto = next(i for i, step in enumerate(graph.walk) if step.exits)
    assert {step.place for step in graph.walk[: upto + 1]} == {node.place for node in graph.until(1).nodes}


def test_a_cut_may_take_an_exit_but_not_all() -> None:
    graph = weave("msdnet", exits=2, base=1, step=1, channels=2, growth=2)
    first, last = (head.reads[0] for head in graph.heads)
    gone = {edge.name for edge in graph.arriving(first)}
    assert [head.name for head in graph.restrict(graph.edge_names - gone).heads] == ["exit2"]
    with pytest.raises(NoRouteError):
        graph.restrict(graph.edge_names - gone - {edge.name for edge in graph.arriving(last)})


def test_two_edges_between_the_same_places_are_cut_one_by_one() -> None:
    graph = weave("resnet", channels=4, blocks=(2,))
    assert {"L0S0_L1S0", "L0S0_L1S0_1"} <= graph.edge_names
    small = without(graph, "L0S0_L1S0_1", "L1S0_L2S0_1")
    assert all(isinstance(edge.operator, Identity) for edge in small.edges)


def test_shared_weights_are_stored_and_counted_once_and_cut_where_they_are_no_longer_used() -> None:
    numbers = {"layers": 3, "scales": 3, "channels": 4}
    shared, own = (weave_trellis(Trellis(**numbers, shared=yes)) for yes in (True, False))
    assert shared.edge_names == own.edge_names
    fabric = lively_fabric(shared, 0)
    assert costs(shared, (8, 8)).parameters == sum(p.numel() for p in fabric.parameters())
    assert costs(shared, (8, 8)).parameters < costs(own, (8, 8)).parameters
    assert costs(shared, (8, 8)).macs == costs(own, (8, 8)).macs
    ups = {edge.name for edge in shared.edges if edge.operator.stride < 1}
    small = shared.restrict(shared.edge_names - ups)
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(extract(fabric, small)(images), fabric(images, small))
    assert not [name for name in extract(fabric, small).state_dict() if "_up_" in name]


def test_weights_are_shared_where_channels_double_too_each_scale_reading_parts_as_wide_as_the_finest() -> None:
    numbers = {"layers": 3, "scales": 4, "channels": 4, "leap": 2}
    doubling, constant = (weave_trellis(Trellis(**numbers, shared=True, doubling=yes)) for yes in (True, False))
    assert {edge.weights for edge in doubling.edges} >= {edge.weights for edge in constant.edges if edge.shared}
    fabric, images = lively_fabric(doubling, 0), torch.randn(2, 3, 16, 16)
    assert costs(doubling, (16, 16)).parameters == sum(p.numel() for p in fabric.parameters())
    found, read = fabric.forward_features(images, doubling.order), fabric.edges["layer1_same_1"]
    with torch.no_grad():
        for scale, parts in enumerate((1, 2, 4, 8)):
            kernel, constant_ = read.get_parameter("each.weight"), read.get_parameter("each.bias")
            wanted = F.conv2d(found[f"L0S{scale}"], kernel.repeat(parts, 1, 1, 1), None, 1, 1, 1, parts)
            given = read(found[f"L0S{scale}"], wanted.shape[2:])
            assert apart(given, wanted + constant_.repeat(parts)[:, None, None]) < SINGLE


def test_a_leap_reads_the_scales_so_many_away_of_maps_of_any_size() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=4, channels=4, leap=3), Purpose(size=(17, 23)))
    far = {edge.name for edge in graph.edges if abs(edge.target.scale - edge.source.scale) == 3}
    assert far == {"L0S0_L1S3", "L0S3_L1S0", "L1S0_L2S3", "L1S3_L2S0"}
    with torch.no_grad():
        assert lively_fabric(graph, 0)(torch.randn(2, 3, 17, 23)).shape == (2, 10)


def test_edges_that_share_weights_are_weighed_each_by_itself() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4, shared=True))
    gates = {name: torch.ones(2, 1, 1, 1, requires_grad=True) for name in graph.edge_names}
    gradients = _gradients(lively_fabric(graph, 0), torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), 255, gates)
    assert set(gradients) == graph.edge_names
    assert not torch.equal(gradients["L0S0_L1S0"], gradients["L0S1_L1S1"])


def test_long_reach_adds_an_edge_from_so_many_layers_before() -> None:
    graph = weave_trellis(Trellis(layers=5, scales=2, channels=4, reach=3))
    far = {edge.name for edge in graph.edges if edge.target.layer - edge.source.layer == 3}
    assert far == {"L0S0_L3S0", "L0S1_L3S1", "L1S0_L4S0", "L1S1_L4S1"}


def squeezing(channels: int = 8) -> Graph:
    draft = Draft("squeezing", Purpose(classes=3))
    start = draft.enter(START, Conv(), channels)
    squeezed = draft.put(Place(0, POINT), 2, (start, Chain((GlobalPool(), Conv(kernel=1)))), then=Relu())
    factors = draft.put(Place(0, POINT, 1), channels, (squeezed, Conv(kernel=1)), then=Sigmoid())
    both = draft.put(BOTH, channels, (start, Identity()), (factors, Identity()), then=PLAIN, join="product")
    draft.answer(draft.put(END, 5, (both, Conv())))
    return draft.finished()


def test_squeeze_and_excite_is_a_product_and_answers_as_torchvision_s() -> None:
    theirs = torchvision.ops.SqueezeExcitation(8, 2).eval()
    fabric = lively_fabric(squeezing(), 0)
    state = fabric.state_dict()
    for ours, name in (("edges.L0S0_L0S16.steps.1", "fc1"), ("edges.L0S16_L0S16B1", "fc2")):
        state |= {f"{ours}.{key}": value for key, value in theirs.get_submodule(name).state_dict().items()}
    fabric.load_state_dict(state)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        found = fabric.forward_features(images, (START, BOTH))
        torch.testing.assert_close(found["L1S0"], theirs(found["L0S0"]))


def test_a_product_ties_its_factors_and_loses_a_factor_with_what_only_it_fed() -> None:
    graph = squeezing()
    [tie] = [tie for tie in graph.ties if START in tie.places]
    assert tie.places == {START, Place(0, POINT, 1), BOTH}
    small = graph.narrow(dict.fromkeys(tie.places, 5))
    fabric, images = lively_fabric(graph, 0), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(extract(fabric, small)(images), fabric(images, small))
    plain = without(graph, "L0S0_L0S16")
    assert {str(node.place) for node in plain.nodes} == {"L0S0", "L1S0", "L2S0"}
    with pytest.raises(GraphError, match="L1S0: only maps of one pixel are left of its product"):
        without(graph, "L0S0_L1S0")
    sampler = Sampler.of(graph, 0.5, (8, 8))
    assert {"L0S0_L0S16", "L0S16_L0S16B1", "L0S16B1_L1S0"} in sampler.units
    assert sampler.smallest.edge_names == {"L0S0_L1S0", "L1S0_L2S0"}


def test_a_map_of_one_channel_multiplies_all_and_is_tied_to_none() -> None:
    draft = Draft("attention", Purpose(classes=3))
    start = draft.enter(START, Conv(), 4)
    where = draft.put(LEFT, 1, (start, Conv(kernel=7)), then=Sigmoid())
    both = draft.put(BOTH, 4, (start, Identity()), (where, Identity()), then=PLAIN, join="product")
    draft.answer(both)
    graph = draft.finished()
    assert [tie.places for tie in graph.ties if LEFT in tie.places] == [{LEFT}]
    fabric, images, small = lively_fabric(graph, 0), torch.randn(2, 3, 8, 8), graph.narrow({START: 3, BOTH: 3})
    with torch.no_grad():
        assert torch.equal(extract(fabric, small)(images), fabric(images, small))


def test_maps_of_two_sizes_do_not_meet() -> None:
    draft = Draft("uneven", Purpose(classes=3, size=(9, 9)))
    start = draft.enter(START, Conv(), 4)
    inner = draft.put(LEFT, 4, (start, Conv(padding=(0, 0, 0, 0))))
    draft.answer(draft.put(END, 4, (start, Conv()), (inner, Conv())))
    with pytest.raises(GraphError, match="L2S0: L0S0_L2S0 makes a map of 9×9, L1S0B1_L2S0 one of 7×7"):
        draft.finished()
