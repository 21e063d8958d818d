import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from convfabric.errors import GraphError, NoRouteError
from convfabric.graph import Place
from convfabric.graph.laws import broken_laws
from convfabric.graph.subnetworks import widths
from convfabric.operators import Conv, Identity
from convfabric.weavers import Draft, Purpose, Trellis, weave, weave_trellis
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


def test_the_image_s_channels_can_neither_go_nor_be_too_few() -> None:
    draft = Draft("raw", Purpose(image_channels=3))
    start = draft.enter(Place(0, 0), Identity(), 3, then=Identity())
    draft.answer(draft.put(Place(1, 0), 4, (start, Conv())))
    graph = draft.finished()
    with pytest.raises(GraphError, match="L0S0 holds the image's 3 channels, which have to stay"):
        graph.narrow({start: 2})
    fewer = tuple(replace(node, channels=2) if node.place == start else node for node in graph.nodes)
    assert broken_laws(replace(graph, nodes=fewer)) == [
        "an operator that keeps channels joins equal counts: the stem joins 3 to 2"
    ]
    assert widths(graph, 0.5)[0].places == {Place(1, 0)}


def test_narrowing_weights_that_are_shared_narrows_all_who_share() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4, shared=True))
    assert {len(tie.places) for tie in graph.ties} == {2}
    small = graph.narrow({Place(1, 0): 2, Place(1, 1): 2})
    assert broken_laws(small) == []
    with pytest.raises(GraphError, match="need equal channels"):
        graph.narrow({Place(1, 0): 2})


def test_groups_are_cut_whole_and_with_what_feeds_them() -> None:
    draft = Draft("groups", Purpose())
    start = draft.enter(Place(0, 0), Conv(), 8)
    grouped = draft.put(Place(1, 0), 16, (start, Conv(groups=4)))
    draft.answer(draft.put(Place(2, 0), 6, (grouped, Conv(kernel=1))))
    graph = draft.finished()
    [tie] = [tie for tie in graph.ties if start in tie.places]
    assert (tie.places, tie.units) == ({start, grouped}, 4)
    small = graph.narrow({start: 6, grouped: 12})
    assert small.edges[0].operator == Conv(groups=3)
    with pytest.raises(GraphError, match="L0S0 6, L1S0 16"):
        graph.narrow({start: 6})
    with pytest.raises(GraphError, match="L0S0_L1S0: channels of Conv in 4 groups belong together"):
        graph.narrow({start: 5, grouped: 10})


def test_tied_places_of_a_block_trellis_are_its_rows() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4, operators="block"))
    assert [{place.scale for place in tie.places} for tie in graph.ties] == [{0}, {1}]


def test_order_names_the_places_that_run_in_a_circle() -> None:
    with pytest.raises(GraphError, match=r"the edges among L0S0, L0S1 run in a circle"):
        weave_trellis(Trellis(layers=1, scales=2, channels=4), Purpose(task="segmentation"))


def test_every_place_stands_after_all_that_feed_it() -> None:
    for seed in range(20):
        graph, _ = random_trellis(seed)
        position = {place: i for i, place in enumerate(graph.order)}
        assert all(position[edge.source] < position[edge.target] for edge in graph.edges)


def test_a_graph_from_another_process_is_the_same_key() -> None:
    code = "import pickle, sys; from convfabric import weave; graph = weave('vgg'); hash(graph); graph.ties; "
    code += "sys.stdout.buffer.write(pickle.dumps(graph))"
    told = {**os.environ, "PYTHONHASHSEED": "1"}
    graph = pickle.loads(subprocess.run([sys.executable, "-c", code], env=told, check=True, capture_output=True).stdout)
    assert {weave("vgg"): "found"}[graph] == "found"
    assert {edge.operator for edge in graph.edges} == {edge.operator for edge in weave("vgg").edges}
