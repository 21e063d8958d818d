import pytest

from convfabric.errors import GraphError, NoRouteError
from convfabric.graph import Place, tied
from convfabric.graph.laws import broken_laws
from convfabric.weavers import Purpose, Trellis, weave, weave_trellis
from graphs import random_restriction, random_trellis


def test_restrict_drops_nodes_that_reach_nothing() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    small = graph.restrict(["L0S0_L1S0", "L1S0_L2S1", "L0S0_L0S1", "L0S1_L1S1"])
    assert {str(node.place) for node in small.nodes} == {"L0S0", "L1S0", "L2S1"}
    assert small.edge_names == {"L0S0_L1S0", "L1S0_L2S1"}


def test_restrict_drops_nodes_that_nothing_reaches() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    small = graph.restrict(["L0S0_L1S0", "L1S0_L2S1", "L1S1_L2S1"])
    assert small.edge_names == {"L0S0_L1S0", "L1S0_L2S1"}


def test_a_cut_through_every_route_is_an_error_that_names_both_ends() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    with pytest.raises(NoRouteError, match=r"with 1 of 10 edges no route is left from L0S0 to L2S1"):
        graph.restrict(["L0S0_L1S0"])


def test_restrict_names_an_edge_it_does_not_have() -> None:
    with pytest.raises(GraphError, match="has no edge L9S9_L9S9"):
        weave("fabric-tiny").restrict(["L9S9_L9S9"])


@pytest.mark.parametrize("seed", range(40))
def test_restrictions_obey_every_law_and_restricting_again_changes_nothing(seed: int) -> None:
    graph, _ = random_trellis(seed)
    small = random_restriction(graph, seed)
    if small is not None:
        assert broken_laws(small) == []
        assert small.restrict(small.edge_names) == small


def test_narrow_changes_channels_and_nothing_else() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    small = graph.narrow({Place(1, 0): 2})
    assert small.node(Place(1, 0)).channels == 2
    assert small.edges == graph.edges


def test_narrow_refuses_more_channels_than_there_are() -> None:
    with pytest.raises(GraphError, match="L1S0: 9 channels asked for; it has 4"):
        weave_trellis(Trellis(layers=3, scales=2, channels=4)).narrow({Place(1, 0): 9})


def test_narrow_refuses_to_part_what_identities_tie() -> None:
    graph = weave_trellis(Trellis(layers=2, scales=1, channels=4, operators="block"))
    with pytest.raises(GraphError, match="tied by identities need equal channels; asked for L0S0 4, L1S0 2"):
        graph.narrow({Place(1, 0): 2})
    assert graph.narrow({Place(0, 0): 2, Place(1, 0): 2}).nodes[0].channels == 2


def test_tied_places_of_a_block_trellis_are_its_rows() -> None:
    groups = tied(weave_trellis(Trellis(layers=3, scales=2, channels=4, operators="block")))
    assert [{place.scale for place in group} for group in groups] == [{0}, {1}]


def test_order_names_the_places_that_run_in_a_circle() -> None:
    with pytest.raises(GraphError, match=r"the edges among L0S0, L0S1 run in a circle"):
        weave_trellis(Trellis(layers=1, scales=2, channels=4), Purpose(task="segmentation"))


def test_every_place_stands_after_all_that_feed_it() -> None:
    for seed in range(20):
        graph, _ = random_trellis(seed)
        position = {place: i for i, place in enumerate(graph.order)}
        assert all(position[edge.source] < position[edge.target] for edge in graph.edges)
