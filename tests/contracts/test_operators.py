"""What every operator of the catalogue keeps to. A new one is covered by its row there."""

import math
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convfabric.cutting.surgery import extract, ranked
from convfabric.data.imageset import Preprocessing
from convfabric.errors import GraphError
from convfabric.execution.folding import as_delivered, folded
from convfabric.exporting.formats import write_onnx
from convfabric.exporting.program import program
from convfabric.fabric.archive import Passport, load_fabric, save_fabric
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs
from convfabric.graph.json_format import graph_from_json, graph_to_json, read, written
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.asked import key_of
from convfabric.latency.drafts import drafted
from convfabric.latency.prediction import every_operation, operations, simplified
from convfabric.latency.table import Table, _kind
from convfabric.latency.target import Target
from convfabric.operators import (
    Conv,
    FullyConnected,
    LocallyConnected,
    Opaque,
    Operator,
    Pool,
    Size,
    Slice,
    Work,
    halved,
    primitives,
)
from convfabric.operators.catalogue import CATALOGUE
from convfabric.weavers import Draft, Purpose

SIZES: tuple[Size, ...] = ((8, 8), (7, 5))


def ends(operator: Operator, fine: Size) -> tuple[int, int, Size, Size]:
    """Channels in and out, and sizes in and out, between the fine size and the scales the operator moves."""
    if isinstance(operator, LocallyConnected | FullyConnected):
        fine = operator.size
    if isinstance(operator, Opaque):
        fine = operator.sizes[0]
    before = fine
    for _ in range(-operator.scales_moved):
        before = halved(before)
    channels_out = 3 if isinstance(operator, Slice) else 6 if operator.keeps_channels else 12
    return 6, channels_out, before, operator.size_after(before, fine)


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
    answer = module(x, after)
    assert answer.requires_grad is not operator.piecewise_constant
    if operator.piecewise_constant:
        return
    (answer * torch.randn(2, channels_out, *after)).sum().backward()
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


def on_an_edge(operator: Operator) -> tuple[Graph, Size]:
    """Two nodes that the operator joins, and the size of the images."""
    channels_in, channels_out, before, _ = ends(operator, (8, 8))
    image = (8, 8) if operator.stride < 1 else before
    first = Place(0, max(0, -operator.scales_moved))
    draft = Draft("pair", Purpose(size=image))
    draft.enter(first, Conv(stride=2**first.scale), channels_in)
    last = draft.put(Place(1, min(16, first.scale + operator.scales_moved)), channels_out, (first, operator))
    draft.answer(draft.put(Place(2, last.scale), 5, (last, Conv(kernel=1))))
    return draft.finished(), image


def lively(graph: Graph) -> Fabric:
    """A fabric in evaluation mode whose weights and statistics are all random."""
    fabric = Fabric(graph)
    for name, tensor in fabric.state_dict().items():
        if tensor.dtype.is_floating_point:
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
    return fabric.eval()


@every_operator
def test_its_weights_have_the_axes_it_says(operator: Operator) -> None:
    for part in primitives(Work(operator, *ends(operator, (8, 8)))):
        state = layer(part.operator, part.channels_in, part.channels_out).state_dict()
        assert set(state) == set(part.operator.axes)
        for name, axes in part.operator.axes.items():
            sides = {"out": part.channels_out, "in": part.channels_in}
            assert len(axes) == state[name].ndim
            assert all(side == sides[axis] for side, axis in zip(state[name].shape, axes, strict=True) if axis in sides)


@every_operator
def test_it_is_cut_by_its_units_and_answers_as_the_whole_that_runs_the_part(operator: Operator) -> None:
    graph, image = on_an_edge(operator)
    fabric, images = lively(graph), torch.randn(2, 3, *image)
    for tie in graph.ties[:2]:
        if tie.units == 1:
            continue
        smaller = graph.narrow({at: graph.node(at).channels // tie.units * (tie.units - 1) for at in tie.places})
        assert graph_from_json(graph_to_json(smaller)) == smaller
        small = extract(fabric, smaller)
        with torch.no_grad():
            assert torch.equal(small(images), fabric(images, smaller))
        parameters = sum(p.numel() for p in small.parameters())
        assert parameters == costs(smaller, image).parameters < costs(graph, image).parameters
    with torch.no_grad():
        torch.testing.assert_close(ranked(fabric)(images), fabric(images), rtol=1e-4, atol=1e-4)


@every_operator
def test_less_than_a_unit_is_refused(operator: Operator) -> None:
    graph, _ = on_an_edge(operator)
    units = operator.granularity(*ends(operator, (8, 8))[:2])
    for place, unit in zip((graph.entry.place, graph.edges[0].target), units, strict=True):
        tie = next(tie for tie in graph.ties if place in tie.places)
        if unit > 1:
            with pytest.raises(GraphError):
                graph.narrow({at: graph.node(at).channels - 1 for at in tie.places})


@every_operator
def test_norms_are_folded_into_it_where_it_says_so(operator: Operator) -> None:
    graph, image = on_an_edge(operator)
    fabric, images = lively(graph).double(), torch.randn(2, 3, *image, dtype=torch.float64)
    simple = folded(fabric)
    with torch.no_grad():
        torch.testing.assert_close(simple(images), fabric(images), rtol=1e-9, atol=1e-9)
    left = any(isinstance(part, nn.BatchNorm2d) for part in simple.nodes[str(graph.edges[0].target)].modules())
    assert left != operator.linear


@every_operator
@every_size
def test_what_it_says_of_values_is_true(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    module, x = layer(operator, channels_in, channels_out).eval(), torch.randn(2, channels_in, *before)
    with torch.no_grad():
        assert not operator.keeps_zero or not module(torch.zeros_like(x), after).any()
        assert not operator.free or torch.equal(module(x, after), x)
        assert not operator.rectifies or not module(-x.abs(), after).any()
        if operator.negative_slope is not None:
            assert torch.equal(module(x, after), torch.where(x > 0, x, operator.negative_slope * x))
        if operator.transparent:
            factor, constant = torch.rand(channels_in, 1, 1) + 0.5, torch.randn(channels_in, 1, 1)
            torch.testing.assert_close(module(x * factor + constant, after), module(x, after) * factor + constant)


@every_operator
def test_every_operation_of_its_sub_networks_is_timed(operator: Operator) -> None:
    graph, image = on_an_edge(operator)
    sampler, simple = Sampler.of(graph, 0.5, image), simplified(graph)
    assert set(operations(sampler.smallest, simple, image)) <= set(every_operation(sampler, simple, image))


@every_operator
def test_an_edge_with_it_is_archived_like_any_other(operator: Operator, tmp_path: Path) -> None:
    graph, image = on_an_edge(operator)
    fabric = Fabric(graph).eval()
    preprocessing = Preprocessing(size=image, channels=3, fitting="cover", mean=(0.5,) * 3, std=(0.25,) * 3)
    save_fabric(tmp_path, fabric, Passport(graph=graph, classes=tuple("abcdefghij"), preprocessing=preprocessing))
    again, papers = load_fabric(tmp_path)
    assert papers.graph == graph
    images = torch.randn(2, 3, *image)
    with torch.no_grad():
        assert torch.equal(again(images), fabric(images))


@every_operator
def test_its_time_is_told_from_that_with_other_channels(operator: Operator) -> None:
    for work in primitives(Work(operator, *ends(operator, (8, 8)))):
        twice = work._replace(channels_in=2 * work.channels_in, channels_out=2 * work.channels_out)
        try:
            twice.operator.parameters(twice.channels_in, twice.channels_out)
        except ValueError:
            continue
        table = Table(target=Target(), known={key_of(work): 1.0}, near={_kind(work): [work]})
        assert 1 <= table.milliseconds(twice) < 5


def goes_by_thirds(operator: Operator) -> bool:
    return operator.size_after((32, 32), (32, 32))[0] not in (8, 16, 32, 64)


@every_operator
def test_halo_is_what_a_pixel_reads(operator: Operator) -> None:
    if math.inf in operator.halo or isinstance(operator, LocallyConnected) or goes_by_thirds(operator):
        pytest.skip("runs on maps of one size, or makes one that is no power of two")
    if operator.piecewise_constant:
        pytest.skip("passes no gradient to see what it reads by")
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


def run_by_onnxruntime(model: bytes, file: Path) -> Counter[str]:
    """How often a runtime runs each operator of a model, once it has made of it what is quickest."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(file), 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(file).graph.node)


@pytest.mark.filterwarnings("ignore")
def test_what_is_timed_runs_as_what_is_delivered(tmp_path: Path) -> None:
    for name in ("depthwise padded", "pad by reflection", "max pool padded", "average pool with padding", "hard swish"):
        graph, image = on_an_edge(CATALOGUE[name])
        images = torch.rand(1, 3, *image)
        preprocessing = Preprocessing(size=image, channels=3, fitting="cover", mean=(0.5,) * 3, std=(0.25,) * 3)
        papers = Passport(graph=graph, classes=tuple("abcdefghij"), preprocessing=preprocessing)
        fabric = lively(graph)
        drafted_model = drafted(Deployable(as_delivered(fabric), papers), images)
        write_onnx(program(fabric, papers), papers, tmp_path / "delivered.onnx")
        delivered = (tmp_path / "delivered.onnx").read_bytes()
        timed, wanted = (run_by_onnxruntime(one, tmp_path / "quickest.onnx") for one in (drafted_model, delivered))
        of_a_head = {"Add", "Gemm", "MatMul"}
        assert {kind: timed[kind] for kind in set(timed) - of_a_head} == {
            kind: wanted[kind] for kind in set(wanted) - of_a_head
        }, name


@every_operator
def test_a_field_of_another_kind_is_refused_by_name(operator: Operator) -> None:
    for part in fields(operator):  # type: ignore[arg-type]
        for wrong in (object(), "mean", [3, 3], math.nan):
            with pytest.raises(ValueError, match=part.name):
                replace(operator, **{part.name: wrong})  # type: ignore[type-var]


def test_a_field_of_another_kind_is_said_with_its_kind() -> None:
    with pytest.raises(ValueError, match="Pool: kind='mean' is none of max, average, sum"):
        Pool(kind="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Conv: kernel=\[3, 3\] is not int or tuple\[int, int\]"):
        Conv(kernel=[3, 3])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"padding=\(-1, 0, 0, 0\): four numbers from 0"):
        Pool(kernel=3, padding=(-1, 0, 0, 0))
