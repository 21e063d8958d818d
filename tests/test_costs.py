from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Task
from convfabric.graph.costs import costs, peak_bytes
from convfabric.operators import Size
from convfabric.report.describe import layer_rows
from convfabric.weavers import FAMILIES, PRESETS, Trellis, weave, weave_trellis
from graphs import random_trellis


def check_costs_against_torch(graph: Graph, image: Size) -> None:
    with torch.device("meta"):
        fabric = Fabric(graph).eval()
        images = torch.empty(1, graph.entry.image_channels, *image)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        fabric(images)
    found = costs(graph, image)
    assert 2 * found.macs == counted.get_total_flops()
    assert found.parameters == sum(p.numel() for p in fabric.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_costs_of_every_preset_equal_torchs_counter(name: str) -> None:
    check_costs_against_torch(weave(name), PRESETS[name].size)


@pytest.mark.parametrize("task", get_args(Task))
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_layers_add_up_to_what_the_network_has(name: str, task: Task) -> None:
    if (name, task) == ("lenet", "segmentation"):
        pytest.skip("kernels without padding")
    numbers = {} if task == "detection" else FAMILIES[name].specimen
    graph = weave(name, size=(64, 64), task=task, **numbers)
    rows, whole = layer_rows(graph, (64, 64))[1:], costs(graph, (64, 64))
    assert sum(int(row[4]) for row in rows) == whole.parameters
    assert sum(float(row[5]) for row in rows) == pytest.approx(whole.macs / 1e6, abs=0.005 * len(rows))


@pytest.mark.parametrize("block", range(4))
def test_costs_of_40_random_trellises_equal_torchs_counter(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        check_costs_against_torch(*random_trellis(seed))


def test_activation_bytes_are_those_of_every_response_written() -> None:
    graph, image = weave_trellis(Trellis(layers=3, scales=2, channels=4, operators="block", head="all")), (7, 9)
    written: list[int] = []
    fabric = Fabric(graph).eval()
    for module in fabric.modules():
        if type(module).__name__ in ("_ConvLayer", "_NormLayer", "_NearestLayer", "Linear"):
            module.register_forward_hook(lambda module, inputs, out: written.append(out.numel()))
    fabric(torch.zeros(1, 3, *image))
    assert costs(graph, image).activation_bytes == 4 * sum(written)


def test_a_chain_holds_less_at_once_than_a_trellis() -> None:
    graph = weave_trellis(Trellis(layers=4, scales=2, channels=4))
    chain = graph.restrict(["L0S0_L1S0", "L1S0_L2S0", "L2S0_L3S0", "L3S0_L3S1"])
    responses = [peak_bytes(g, (32, 32)) - 4 * costs(g, (32, 32)).parameters for g in (graph, chain)]
    assert responses[1] < responses[0]
    # source, sum and the edge's result: three maps of 4 channels at full size
    assert responses[1] == 3 * 4 * 4 * 32 * 32
