"""Structural priors: what they rewrite, what they leave, and how their kernels are drawn."""

import pytest
import torch

from convfabric.cutting.surgery import extract
from convfabric.errors import GraphError, SettingError
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs, works
from convfabric.graph.rewrites import PRIORS, column, in_sequence, root, separable, tree, with_prior
from convfabric.operators import Chain, Concat, Conv, Relu, low_rank
from convfabric.weavers import FAMILIES, weave


def groups_by_scale(graph: Graph) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for place, work in works(graph, (64, 64)):
        if isinstance(work.operator, Conv) and work.operator.kernel != 1 and place != graph.entry.place:
            found.setdefault(place.scale, set()).add(work.operator.groups)
    return found


@pytest.mark.parametrize(
    ("prior", "groups"),
    [
        (lambda g: root(g, 8), {2: {8}, 3: {4}, 4: {2}, 5: {1}}),
        (lambda g: tree(g, 2), {2: {2}, 3: {4}, 4: {8}, 5: {16}}),
        (lambda g: column(g, 4), {2: {4}, 3: {4}, 4: {4}, 5: {4}}),
    ],
)
def test_groups_follow_the_stages(prior, groups: dict[int, set[int]]) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    assert groups_by_scale(prior(weave("resnet-50"))) == groups


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("prior", ["root-2", "low-rank", "sequential", "separable"])
def test_a_prior_changes_kernels_and_nothing_else(name: str, prior: str) -> None:
    graph = weave(name, size=(64, 64), task="classification" if name == "lenet" else "segmentation")
    rewritten = with_prior(graph, prior)
    assert rewritten.nodes == graph.nodes
    assert rewritten.edge_names == graph.edge_names
    assert rewritten.heads == graph.heads
    if (name, prior) == ("alexnet", "root-2"):  # published in two groups
        assert rewritten == graph
    elif prior != "sequential":  # a row kernel first makes all channels, which can cost more
        assert costs(rewritten, (64, 64)).macs < costs(graph, (64, 64)).macs


def test_groups_that_do_not_divide_are_refused_with_the_edge() -> None:
    with pytest.raises(GraphError, match=r"L2S0_L3S1: groups=7 does not divide 96 and 192 channels"):
        column(weave("nin"), 7)


def test_a_network_of_1x1_kernels_has_nothing_to_group() -> None:
    graph = weave("nin")
    flat = graph.restrict(graph.edge_names)
    edges = tuple(edge for edge in flat.edges if edge.operator.stride == 1)
    with pytest.raises(GraphError, match="no kernels larger than 1×1"):
        root(Graph(name="flat", nodes=flat.nodes, edges=edges, entry=flat.entry, heads=flat.heads), 2)


@pytest.mark.parametrize("said", ["roots-8", "root", "low-rank-3", ""])
def test_an_unknown_prior_is_refused_with_the_known_ones(said: str) -> None:
    with pytest.raises(SettingError, match="known are root-GROUPS, tree-GROUPS"):
        with_prior(weave("nin"), said)


def test_a_prior_that_does_not_fit_is_said_with_its_reason() -> None:
    with pytest.raises(SettingError, match=r"prior=root-5 does not fit: nin breaks .*\n.*groups=5 does not divide"):
        with_prior(weave("nin"), "root-5")


def test_rewritten_networks_are_cut_like_any_other() -> None:
    torch.manual_seed(0)
    graph = root(weave("resnet", channels=8, blocks=(2, 2)), 2)
    fabric, smaller = Fabric(graph).eval(), graph.restrict(graph.edge_names - {"L1S0_L2S0_1"})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(extract(fabric, smaller)(images), fabric(images, smaller))


def test_sequential_and_separable_keep_strides_and_sizes() -> None:
    graph = weave("resnet", channels=4, blocks=(1, 1))
    for rewritten in (in_sequence(graph), separable(graph)):
        assert Fabric(rewritten).eval()(torch.zeros(1, 3, 37, 21)).shape == (1, 10)


def gradient_growth(operator: Chain, layers: int = 24, channels: int = 64) -> float:
    """By how much the variance of a gradient grows on its way back through a stack without norms."""
    torch.manual_seed(0)
    x = torch.randn(4, channels, 24, 24, requires_grad=True)
    out, parts = x, [layer(operator, channels, channels) for _ in range(layers)]
    for part in parts:
        out = part(out, (24, 24))
    noise = torch.zeros_like(out)
    noise[..., 8:16, 8:16] = torch.randn(4, channels, 8, 8)
    (out * noise).sum().backward()
    assert x.grad is not None
    return float(x.grad.square().sum() / noise.square().sum()) ** (1 / layers)


def test_composite_kernels_keep_the_variance_of_gradients() -> None:
    composite = Chain((low_rank(), Relu()))
    assert 0.9 < gradient_growth(composite) < 1.1
    assert 0.9 < gradient_growth(Chain((low_rank(shares=(2, 3, 3)), Relu()))) < 1.1


def test_kernels_drawn_branch_by_branch_would_not() -> None:
    module = layer(Concat((Conv(kernel=(3, 1)), Conv(kernel=(1, 3))), shares=(1, 1)), 64, 64)
    together = (2 / (3 * 32 + 3 * 32)) ** 0.5
    for branch in module.branches:  # type: ignore[union-attr]
        assert float(branch.weight.detach().std()) == pytest.approx(together, rel=0.05)  # type: ignore[union-attr]
    alone = layer(Conv(kernel=(3, 1)), 64, 32).weight
    assert float(alone.detach().std()) == pytest.approx((2 / 96) ** 0.5, rel=0.05)  # type: ignore[union-attr,operator]


def test_which_priors_take_a_number_does_not_hang_on_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convfabric.graph.rewrites.PRIORS", dict(reversed(PRIORS.items())))
    assert with_prior(weave("nin"), "column-4") == column(weave("nin"), 4)
    with pytest.raises(SettingError, match="known are separable, sequential, low-rank, column-GROUPS"):
        with_prior(weave("nin"), "low-rank-4")


def test_every_prior_has_a_name() -> None:
    assert list(PRIORS) == ["root", "tree", "column", "low-rank", "sequential", "separable"]
