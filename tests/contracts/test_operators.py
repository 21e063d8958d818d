"""What every operator of the catalogue keeps to. A new one is covered by its row there."""

import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convfabric.cutting.surgery import extract
from convfabric.data.imageset import Preprocessing
from convfabric.fabric.archive import Passport, load_fabric, save_fabric
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.json_format import read, written
from convfabric.operators import (
    CATALOGUE,
    Chain,
    Conv,
    FullyConnected,
    LocallyConnected,
    Nearest,
    Operator,
    Pool,
    Size,
    halved,
)
from convfabric.weavers import Draft, Purpose

SIZES: tuple[Size, ...] = ((8, 8), (7, 5))


def ends(operator: Operator, fine: Size) -> tuple[int, int, Size, Size]:
    """Channels in and out, and sizes in and out, between the fine size and the scales the operator moves."""
    if isinstance(operator, LocallyConnected | FullyConnected):
        fine = operator.size
    coarse = fine
    for _ in range(abs(operator.step)):
        coarse = halved(coarse)
    before, after = (fine, coarse) if operator.step >= 0 else (coarse, fine)
    return 6, (6 if operator.keeps_channels else 12), before, after


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(1)


every_operator = pytest.mark.parametrize("operator", CATALOGUE.values(), ids=CATALOGUE.keys())
every_size = pytest.mark.parametrize("fine", SIZES, ids=str)


@every_operator
@every_size
def test_output_has_the_channels_and_size_of_the_target(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    out = layer(operator, channels_in, channels_out)(torch.randn(2, channels_in, *before), after)
    assert out.shape == (2, channels_out, *after)


@every_operator
@every_size
def test_macs_and_parameters_equal_torchs(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    module = layer(operator, channels_in, channels_out).eval()
    with FlopCounterMode(display=False) as counted:
        module(torch.randn(1, channels_in, *before), after)
    assert 2 * operator.macs(channels_in, channels_out, before, after) == counted.get_total_flops()
    assert operator.parameters(channels_in, channels_out) == sum(p.numel() for p in module.parameters())


@every_operator
@every_size
def test_every_parameter_and_the_input_receive_a_gradient(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    module = layer(operator, channels_in, channels_out)
    x = torch.randn(2, channels_in, *before, requires_grad=True)
    (module(x, after) * torch.randn(2, channels_out, *after)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@every_operator
def test_the_input_is_left_as_it_was(operator: Operator) -> None:
    channels_in, channels_out, before, after = ends(operator, (8, 8))
    x = torch.randn(2, channels_in, *before)
    kept = x.clone()
    layer(operator, channels_in, channels_out)(x, after)
    assert torch.equal(x, kept)


@every_operator
def test_json_round_trip(operator: Operator) -> None:
    assert read(Operator, written(operator), "operator") == operator


def on_an_edge(operator: Operator) -> Graph:
    """Two nodes that the operator joins, beside a second way from one to the other."""
    channels_in, channels_out, before, _ = ends(operator, (8, 8))
    first = Place(0, max(0, -operator.step))
    last = Place(1, first.scale + operator.step)
    pooled = Chain((*(Pool() for _ in range(operator.step)), *(Nearest() for _ in range(-operator.step)), Conv()))
    draft = Draft("pair", Purpose(size=(8, 8) if before == (8, 8) or operator.step < 0 else before))
    draft.enter(first, Conv(stride=2**first.scale), channels_in)
    draft.put(last, channels_out, (first, operator), (first, pooled))
    draft.answer(last)
    return draft.finished()


@every_operator
def test_an_edge_with_it_is_archived_and_cut_like_any_other(operator: Operator, tmp_path: Path) -> None:
    graph = on_an_edge(operator)
    fabric = Fabric(graph).eval()
    preprocessing = Preprocessing(size=(8, 8), channels=3, fitting="cover", mean=(0.5,) * 3, std=(0.25,) * 3)
    save_fabric(tmp_path, fabric, Passport(graph=graph, classes=tuple("abcdefghij"), preprocessing=preprocessing))
    again, papers = load_fabric(tmp_path)
    assert papers.graph == graph
    height, width = operator.size if isinstance(operator, LocallyConnected | FullyConnected) else (8, 8)
    images, name = torch.randn(2, 3, height, width), f"{graph.edges[0].source}_{graph.edges[0].target}"
    alone = graph.restrict({name})
    with torch.no_grad():
        assert torch.equal(again(images), fabric(images))
        assert torch.equal(extract(fabric, alone)(images), fabric(images, alone))


@every_operator
def test_halo_is_what_a_pixel_reads(operator: Operator) -> None:
    if math.inf in operator.halo or isinstance(operator, LocallyConnected):
        pytest.skip("runs on maps of one size")
    channels_in, channels_out, before, after = ends(operator, (32, 32))
    module = layer(operator, channels_in, channels_out).eval()
    for parameter in module.parameters():
        parameter.data.abs_().add_(0.1)
    x = torch.rand(64, channels_in, *before, requires_grad=True)
    out = module(x, after)
    finest = max(before[0], after[0])
    found = [0, 0, 0, 0]
    for side in range(after[0] // 2 - 4, after[0] // 2 + 4):
        grad = torch.autograd.grad(out[:, :, side, side].sum(), x, retain_graph=True)[0]
        for i, other in ((0, (0, 1, 3)), (2, (0, 1, 2))):
            touched = grad.abs().sum(other).nonzero().flatten() * (finest // before[0])
            here = side * (finest // after[0])
            if len(touched):
                found[i] = max(found[i], here - int(touched.min()))
                found[i + 1] = max(found[i + 1], int(touched.max()) - here)
    assert tuple(found) == operator.halo


class Everything(nn.Module):
    """Every operator on the same images, so that one export covers them all."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {name: ends(operator, (7, 5)) for name, operator in CATALOGUE.items()}
        self.parts = nn.ModuleList(layer(CATALOGUE[name], *found[:2]) for name, found in self.ends.items())

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        inputs = [coarse if found[2] != (7, 5) else fine for found in self.ends.values()]
        sizes = [found[3] for found in self.ends.values()]
        return tuple(part(x, size) + 1 for part, x, size in zip(self.parts, inputs, sizes, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_every_operator_answers_alike_in_onnx_and_at_any_batch(tmp_path: Path) -> None:
    module = Everything().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    images = torch.randn(2, 6, 7, 5), torch.randn(2, 6, 4, 3)
    exported = torch.export.export(module, images, dynamic_shapes=({0: batch}, {0: batch}))
    torch.onnx.export(exported, (), str(tmp_path / "all.onnx"), dynamo=True, input_names=["fine", "coarse"])
    session = onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), providers=["CPUExecutionProvider"])
    others = torch.randn(3, 6, 7, 5), torch.randn(3, 6, 4, 3)
    found = session.run(None, {"fine": others[0].numpy(), "coarse": others[1].numpy()})
    with torch.no_grad():
        wanted = module(*others)
    for name, one, other in zip(CATALOGUE, found, wanted, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(one), other, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
