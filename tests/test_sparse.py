"""The sparse fabric: which kernels exist, and that it is the dense one with the others at zero."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from convfabric.fabric.layers.banded import _BandedLayer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.operators import BandedConv, band
from convfabric.weavers import Purpose, Trellis, weave_trellis

SHAPES = {
    "mnist 16×32": (Trellis(layers=16, scales=6, channels=32), (32, 32), 1, 10, 211_500, 226_294),
    "mnist 8×64": (Trellis(layers=8, scales=6, channels=64), (32, 32), 1, 10, 208_620, 223_862),
    "part labels 8×16": (Trellis(layers=8, scales=9, channels=16), (256, 256), 3, 3, 79_074, 84_933),
    "cifar-10 16×64": (Trellis(layers=16, scales=6, channels=64), (32, 32), 3, 10, 427_500, 458_230),
}


def sparse(numbers: Trellis, image_channels: int = 3, classes: int = 10) -> Graph:
    return weave_trellis(replace(numbers, operators="banded"), Purpose(image_channels=image_channels, classes=classes))


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_paper_s_graphs(name: str) -> None:
    numbers, image, image_channels, classes, kernels, parameters = SHAPES[name]
    graph = sparse(numbers, image_channels, classes)
    assert costs(graph, image).parameters == parameters
    channels = numbers.channels
    stored = sum(replace(edge.operator, bias=False).parameters(channels, channels) for edge in graph.edges)  # type: ignore[call-arg]
    assert stored == kernels


def test_masks_are_clipped_at_the_borders_and_never_wrap() -> None:
    assert band(6, 6) == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5]]
    assert band(3, 3) == [[0, 1, 2]] * 3
    assert band(8, 4) == [[0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7]]
    assert band(4, 8) == [[0], [0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3], [3]]
    with pytest.raises(ValueError, match="not 4 and 6"):
        band(4, 6)


@pytest.mark.parametrize("doubling", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_it_is_the_dense_fabric_with_off_band_weights_at_zero(doubling: bool, training: bool, task: str) -> None:
    numbers = {"layers": 3, "scales": 3, "channels": 5, "doubling": doubling}
    torch.manual_seed(0)
    graphs = [
        weave_trellis(Trellis(**numbers, operators=kind), Purpose(task=task))  # type: ignore[arg-type]
        for kind in ("banded", "plain")
    ]
    thin, dense = (Fabric(graph).double().train(training) for graph in graphs)
    state = thin.state_dict()
    for name, module in thin.edges.items():
        state[f"edges.{name}.weight"] = module.dense_weight()  # type: ignore[operator]
    dense.load_state_dict(state)
    images = torch.randn(4, 3, 9, 8, dtype=torch.float64)
    answers = [fabric(images) for fabric in (thin, dense)]
    torch.testing.assert_close(*answers, rtol=0, atol=1e-12)
    for logits in answers:
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)).sum().backward()
    for name, module in thin.edges.items():
        rows, columns = module.pairs  # type: ignore[misc]
        twin = dense.edges[name].get_parameter("weight").grad
        assert twin is not None
        torch.testing.assert_close(module.get_parameter("weight").grad, twin[rows, columns], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(thin.entry.weight.grad, dense.entry.weight.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("operator", [BandedConv(), BandedConv(scales=1), BandedConv(scales=-1)])
@pytest.mark.parametrize("channels", [(3, 3), (7, 7), (8, 4), (4, 8), (300, 300)])
def test_both_ways_of_running_answer_alike(operator: BandedConv, channels: tuple[int, int]) -> None:
    module = _BandedLayer(operator, *channels).double()
    nn.init.normal_(module.get_parameter("bias"))
    x, size = torch.randn(2, channels[0], 5, 6, dtype=torch.float64), (9, 11)
    torch.testing.assert_close(module.train()(x, size), module.eval()(x, size), rtol=0, atol=1e-12)


def test_weights_that_do_not_exist_are_not_stored() -> None:
    graph = sparse(Trellis(layers=3, scales=2, channels=64))
    stored = sum(tensor.numel() for name, tensor in Fabric(graph).state_dict().items() if name.startswith("edges."))
    assert stored == sum(edge.operator.parameters(64, 64) for edge in graph.edges)
