"""Random sub-networks: what they may be, and training with them."""

import random
from dataclasses import replace

import pytest
import torch

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.errors import SettingError
from convfabric.execution.subnetworks import answered
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs
from convfabric.graph.laws import broken_laws, check
from convfabric.graph.subnetworks import Sampler, Widths, ladder
from convfabric.operators import Conv, Identity, LocalResponseNorm, Operator, Shuffle
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import Draft, Purpose, weave
from graphs import random_trellis

IMAGE = (16, 16)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return open_data("digits")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_drawn_is_a_lawful_part_between_the_smallest_and_the_whole(seed: int) -> None:
    graph, image = random_trellis(seed, most_channels=40)
    sampler, dice = Sampler.of(graph, 0.25, image), random.Random(seed)
    least, most = (costs(part, image).macs for part in (sampler.smallest, graph))
    for _ in range(5):
        part = check(sampler.draw(dice))
        assert part.edge_names <= graph.edge_names
        assert least <= costs(part, image).macs <= most


def test_the_smallest_of_several_exits_ends_at_the_cheapest() -> None:
    graph = weave("msdnet")
    smallest = Sampler.of(graph, 1.0, (32, 32)).smallest
    assert [head.name for head in smallest.heads] == [graph.heads[0].name]
    assert costs(smallest, (32, 32)).macs < costs(graph.until(1), (32, 32)).macs


def test_draws_span_the_range_and_follow_the_dice() -> None:
    graph = weave("fabric-small", operators="residual")
    sampler = Sampler.of(graph, 0.25, (32, 32))
    drawn = [sampler.draw(random.Random(seed)) for seed in range(60)]
    shares = sorted(costs(part, (32, 32)).macs / costs(graph, (32, 32)).macs for part in drawn)
    assert shares[0] < 0.06
    assert shares[-1] > 0.5
    assert drawn == [sampler.draw(random.Random(seed)) for seed in range(60)]


def test_identities_go_only_with_what_they_lead_to() -> None:
    graph = weave("fabric-small", operators="residual")
    sampler = Sampler.of(graph, 1.0, (32, 32))
    free = [edge for edge in graph.edges if isinstance(edge.operator, Identity)]
    for seed in range(20):
        part = sampler.draw(random.Random(seed))
        alive = {node.place for node in part.nodes}
        assert all(edge.name in part.edge_names for edge in free if {edge.source, edge.target} <= alive)


def test_widths_end_at_all_channels_and_are_blocks_where_there_are_enough() -> None:
    for channels in range(1, 100):
        counts = ladder(channels, 0.25)
        assert counts[-1] == channels
        assert len(counts) <= 5
        assert all(1 <= count <= channels for count in counts)
        assert all(count % 4 == 0 for count in counts[:-1] if channels >= 16)
        assert all(count % 8 == 0 for count in counts[:-1] if channels >= 32)


def trained_parameters(fabric: Fabric, graph: Graph) -> set[str]:
    """Names of the parameters that a sub-network's answer has gradients for."""
    fabric.zero_grad()
    answered(fabric, graph, torch.rand(4, 3, *IMAGE), kernels=False)[-1].square().sum().backward()
    return {name for name, p in fabric.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


def test_a_sub_network_in_training_answers_as_its_extraction_and_touches_no_statistics() -> None:
    torch.manual_seed(0)
    graph = weave("fabric-tiny", size=IMAGE, operators="residual")
    fabric, part = Fabric(graph).train(), Sampler.of(graph, 0.5, IMAGE).draw(random.Random(3))
    before = {name: value.clone() for name, value in fabric.named_buffers()}
    images = torch.rand(4, 3, *IMAGE)
    from convfabric.cutting.surgery import extract

    alone = extract(fabric, part).train()
    torch.testing.assert_close(answered(fabric, part, images, kernels=False)[-1], alone(images), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in fabric.named_buffers())


def test_a_sub_network_trains_only_what_it_has() -> None:
    torch.manual_seed(0)
    graph = weave("fabric-tiny", size=IMAGE, operators="residual")
    fabric, part = Fabric(graph).train(), Sampler.of(graph, 0.5, IMAGE).smallest
    touched = trained_parameters(fabric, part)
    assert touched
    assert {name.split(".")[1] for name in touched if name.startswith("edges.")} <= part.edge_names
    inside = fabric.nodes[str(part.nodes[0].place)].get_parameter("steps.0.weight").grad
    assert inside is not None
    assert not inside[part.nodes[0].channels :].any()


def test_training_with_sub_networks_leaves_them_usable(digits: ImageSet) -> None:
    torch.manual_seed(0)
    graph = weave("fabric-tiny", size=(8, 8), image_channels=1, operators="residual")
    fabric = Fabric(graph)
    rows = train(fabric, digits, Recipe(epochs=3, subnetworks=2, narrowest=0.5), device="cpu")
    assert rows[-1]["val_accuracy"] > 0.5
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.parametrize("then", [Shuffle(groups=2), LocalResponseNorm()], ids=str)
def test_where_no_route_can_stand_alone_the_smallest_has_them_all(then: Operator) -> None:
    draft = Draft("two", Purpose(size=(16, 16)))
    start = draft.enter(Place(0, 0), Conv(), 8)
    sides = [draft.put(Place(1, 0, lane), 8, (start, Conv(kernel=2 * lane + 1))) for lane in (0, 1)]
    draft.answer(draft.concat(Place(2, 0), *sides, then=then))
    graph = draft.finished()
    sampler = Sampler.of(graph, 0.25, (16, 16))
    assert sampler.smallest.edge_names == graph.edge_names
    assert broken_laws(sampler.draw(random.Random(0))) == []


def test_drawing_ends_where_nothing_that_is_drawn_can_be_joined() -> None:
    graph = weave("fabric-tiny")
    sampler = Sampler.of(graph, 0.5, (32, 32))
    impossible = Widths(frozenset({Place(0, 0)}), (998, 999))
    stuck = replace(sampler, widths=(impossible,))
    assert stuck.draw(random.Random(0)) == sampler.smallest


def test_a_forward_pass_of_a_part_draws_nothing_and_depends_on_no_other() -> None:
    fabric = Fabric(weave("enet", channels=4, repeats=1, size=IMAGE)).train()
    sampler, images = Sampler.of(fabric.graph, 0.5, IMAGE), torch.rand(2, 3, *IMAGE)
    parts = [sampler.draw(random.Random(seed)) for seed in range(3)]
    answers = []
    for order in (parts, parts[::-1]):
        found = {}
        for part in order:
            torch.manual_seed(5)
            found[part] = answered(fabric, part, images, kernels=False)[-1]
        answers.append(found)
    assert all(torch.equal(answers[0][part], answers[1][part]) for part in parts)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    fabric.eval()(images, sampler.smallest)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(SettingError, match="narrowest=0: give a share above 0"):
        Recipe(narrowest=0)
    with pytest.raises(SettingError, match="subnetworks=-1: give at least 0"):
        Recipe(subnetworks=-1)
    with pytest.raises(SettingError, match="edges are drawn by one of them"):
        Recipe(subnetworks=1, gates="bernoulli")
