"""Fabrics of 3×3 edges that are other networks: every operator and family answers alike, or is refused by name."""

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from convfabric.cli.commands import app
from convfabric.errors import EmbeddingError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.importing.network import import_network
from convfabric.operators import (
    Chain,
    Clamp,
    Conv,
    Depthwise,
    GlobalPool,
    Nearest,
    Norm,
    Operator,
    Pool,
    PRelu,
    Relu,
    Shuffle,
    Sigmoid,
    Switches,
    UpConv,
    residual,
)
from convfabric.universality import wiring
from convfabric.universality.constructions import alone, constructed, response
from convfabric.universality.embedding import embedded
from convfabric.universality.sparse import dense_in_sparse
from convfabric.weavers import FAMILIES, Purpose, Trellis, weave, weave_trellis

REFUSED = {
    "msdnet": "3 exits",
    "lenet": "28×28",
    "alexnet": "LocalResponseNorm",
    "nin": "Pool.*alike at every pixel",
    "googlenet": "exits",
    "se-resnet": "Sigmoid",
    "context": "Sigmoid",
}
EMBEDDED = {"segnet": {"up": "unpooled"}}
"""Numbers of families that are embedded with others than those published."""
"""Families that no construction is known for, and why."""


def alike(graph: Graph, image: tuple[int, int]) -> Graph:
    """The graph of a network's embedding, once both are seen to answer alike; norms' statistics are random."""
    torch.manual_seed(0)
    fabric = Fabric(graph).eval()
    for module in fabric.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    found = embedded(fabric, image)
    images = 8 * torch.randn(3, graph.entry.image_channels, *image)
    with torch.inference_mode():
        wanted, answers = fabric(images), found.fabric(images)
    assert float((wanted - answers).abs().max()) <= 1e-5 * float(wanted.abs().max())
    return found.graph


def drawn(dice: random.Random) -> tuple[Operator, int, int]:
    """A random operator that one kernel describes, with channels before and after."""
    groups = dice.choice([1, 1, 2])
    conv = Conv(
        kernel=dice.choice([1, 2, 3, 4, 5, 7, (1, 5), (3, 1)]),
        stride=dice.choice([1, 1, 2, 4]),
        dilation=dice.choice([1, 1, 2, 3]),
        groups=groups,
        bias=dice.random() < 0.5,
    )
    before = groups * dice.randint(1, 2)
    others: list[tuple[Operator, int, int]] = [
        (Depthwise(kernel=dice.choice([3, 5]), dilation=dice.choice([1, 2])), 2, 2),
        (UpConv(kernel=dice.choice([1, 2, 3, 4, 5])), before, 3),
        (Chain((Conv(kernel=1, bias=False), Nearest())), before, 3),
        (Chain((Conv(), Norm(), Relu(), Conv(stride=2))), before, 4),
        (Pool(kernel=dice.choice([2, 3, 4]), stride=dice.choice([1, 2])), 2, 2),
        (residual(), 2, 2),
    ]
    return dice.choice([(conv, before, groups * dice.randint(1, 3)), dice.choice(others)])


@pytest.mark.parametrize("seed", range(60))
def test_a_random_operator_is_a_fabric_of_3_by_3_edges_to_rounding(seed: int) -> None:
    dice = random.Random(seed)
    operator, before, after = drawn(dice)
    after = before if operator.keeps_channels else max(2, after)
    if isinstance(operator, Conv) and operator.groups > 1:
        after = 2 * operator.groups
    if before == 1:
        before, after = (2, 2) if operator.keeps_channels else (2, after)
    size = (4 * dice.randint(2, 5), 4 * dice.randint(2, 5)) if operator.stride < 1 else (dice.randint(9, 21), 12)
    graph = alike(alone(operator, before, after, size), size)
    assert {type(edge.operator) for edge in graph.edges} <= {Conv, UpConv}
    assert all(edge.operator in (Conv(), Conv(stride=2), UpConv()) for edge in graph.edges)


@pytest.mark.parametrize(
    "operator",
    [
        PRelu(),
        Clamp(least=0.0, most=2.0),
        Clamp(least=-6.0, most=9.0),
        Clamp(least=0.5, most=1.0),
        Shuffle(groups=2),
        GlobalPool(),
        GlobalPool(kind="max"),
        Pool(kernel=1),
    ],
    ids=str,
)
def test_what_bends_deals_out_or_reads_a_whole_map_is_embedded_as_well(operator: Operator) -> None:
    alike(alone(operator, 4, 4, (11, 7)), (11, 7))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_embedded_or_refused_by_name(name: str) -> None:
    size = (32, 32)
    graph = weave(name, size=size, classes=3, **{**FAMILIES[name].specimen, **EMBEDDED.get(name, {})})
    if name in REFUSED:
        with pytest.raises(EmbeddingError, match=REFUSED[name]):
            embedded(Fabric(graph).eval(), size)
        return
    part = alike(graph, size)
    layers, scales = (1 + max(place[i] for place in part.order) for i in (0, 1))
    whole = weave_trellis(Trellis(layers=layers, scales=scales, channels=1, head="all"), Purpose(size=size))
    assert part.edge_names <= whole.edge_names


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (Switches(), "L0S0_L1S0: Switches.. is no sum of rectified kernels"),
        (Sigmoid(), "L0S0_L1S0: Sigmoid.. is no sum of rectified kernels"),
        (Conv(kernel=3, padding=(0, 0, 0, 0)), "a map of 14×14 pixels is made, where a trellis has 16×16"),
        (Pool(kernel=3), "windows reach beyond a map whose values may be below zero"),
    ],
)
def test_what_cannot_be_embedded_is_refused(operator: Operator, said: str) -> None:
    with pytest.raises(EmbeddingError, match=said):
        embedded(Fabric(alone(operator, 2, 2, (16, 16), signed=True)).eval(), (16, 16))


def test_a_fabric_that_would_be_too_large_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "MOST_KERNELS", 1_000_000)
    with pytest.raises(EmbeddingError, match="more than 1 M weights: embed a narrower network"):
        embedded(Fabric(weave("vgg", channels=32)).eval(), (32, 32))


def test_every_construction_equals_what_torch_makes_of_the_images() -> None:
    found = list(constructed(seed=3))
    assert len({one.name for one in found}) == len(found) >= 16
    assert max(one.largest_difference for one in found) <= 1e-5


@pytest.mark.parametrize("seed", range(12))
def test_a_dense_layer_is_a_sparse_fabric(seed: int) -> None:
    dice, most = random.Random(seed), 10.0 ** (seed % 3)
    torch.manual_seed(seed)
    inputs, outputs = dice.randint(1, 4), dice.randint(1, 4)
    weight, constant = torch.randn(outputs, inputs, 3, 3), torch.randn(outputs)
    fabric = dense_in_sparse(weight, constant, (9, 7), most)
    images = most * torch.rand(2, inputs, 9, 7)
    wanted: Tensor = F.conv2d(images, weight, constant, padding=1).relu()
    answers = response(fabric, images)[:, :outputs]
    assert float((answers - wanted).abs().max()) <= 1e-5 * max(1.0, most * inputs)


def test_a_network_of_others_that_doubles_by_the_nearest_is_embedded() -> None:
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding=1)]
    theirs = nn.Sequential(*layers).eval()
    found, images = embedded(import_network(theirs, (16, 16)), (16, 16)), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(found.fabric(images), theirs(images), atol=1e-5, rtol=1e-4)
    with pytest.raises(EmbeddingError, match=r"image=32: height and width in pixels"):
        embedded(import_network(theirs, (16, 16)), 32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "constants", "most", "said"),
    [
        ((2, 3, 1, 1), 2, 1.0, r"kernels \(2, 3, 1, 1\)"),
        ((2, 3, 5, 5), 2, 1.0, "kernels .outputs, inputs, 3, 3."),
        ((2, 3, 3, 3), 3, 1.0, "a constant for each output"),
        ((2, 3, 3, 3), 2, -1.0, "most=-1.0"),
        ((2, 3, 3, 3), 2, float("inf"), "most=inf"),
        ((0, 3, 3, 3), 0, 1.0, "there is at least one"),
    ],
)
def test_what_is_no_dense_layer_is_refused(shape: tuple[int, ...], constants: int, most: float, said: str) -> None:
    with pytest.raises(EmbeddingError, match=said):
        dense_in_sparse(torch.randn(shape), torch.randn(constants), (8, 8), most)


def test_the_command_says_what_each_costs_and_draws_the_networks(tmp_path: Path) -> None:
    def answered(*words: object) -> str:
        result = CliRunner().invoke(app, ["universality", *map(str, words)])
        return result.stdout if result.exit_code == 0 else " ".join(result.stderr.replace("│", " ").split())

    page = tmp_path / "page.html"
    words = ["resnet", "--set", "channels=4", "--page", page, "--json"]
    [row] = json.loads(answered(*words))["networks"]
    assert (row["name"], row["scales"]) == ("resnet", 3)
    assert row["largest_difference"] <= 1e-5
    assert "<svg" in page.read_text("utf-8")
    assert "is there already" in answered(*words)
    assert "Sigmoid" in answered("se-resnet")
    assert "for a NETWORK" in answered("--size", "32x32")
    assert "no such folder" in answered("runs/nowhere")
