"""Plans and kernels compute what the readable executor does: outputs and every gradient."""

import ctypes
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.data.opening import open_data
from convfabric.errors import SettingError
from convfabric.execution import building, norms, sparse
from convfabric.execution.allocation import keep_memory
from convfabric.execution.folding import folded
from convfabric.execution.planned import Planned, stages
from convfabric.execution.plans import Plan, plan_for
from convfabric.execution.running import for_inference, for_training
from convfabric.fabric import EveryExit, Fabric
from convfabric.graph import Graph
from convfabric.layers import layer
from convfabric.operators import BandedConv
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import Purpose, Trellis, weave, weave_trellis
from graphs import random_trellis

kernels = pytest.mark.skipif(isinstance(building.library(), str), reason=f"no kernels here: {building.library()}")
"""For tests that need a C++ compiler."""

CHANNELS = ((4, 4), (16, 16), (37, 37), (5, 10), (16, 32), (10, 5), (38, 19))
SIZES = ((1, 1), (2, 3), (8, 8), (7, 9), (13, 18), (20, 1))
EXACT, SINGLE = 1e-10, 1e-5
"""Largest differences let pass, of the largest value: in float64, and for kernels that know float32 alone."""


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    largest = float(wanted.detach().abs().max())
    return float((found.detach().double() - wanted.detach().double()).abs().max()) / max(largest, 1e-3)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def one_edge(channels: tuple[int, int], step: int, size: tuple[int, int], images: int = 3) -> tuple[Tensor, ...]:
    """A response, kernels and a constant for one edge whose finer map has a size, and the size of its result."""
    torch.manual_seed(0)
    pairs = len(layer(BandedConv(), *channels).get_parameter("weight"))
    source, target = (size if step >= 0 else halved(size)), (size if step <= 0 else halved(size))
    return (
        torch.randn(images, channels[0], *source, dtype=torch.float64),
        torch.randn(pairs, 3, 3, dtype=torch.float64),
        torch.randn(channels[1], dtype=torch.float64),
        torch.tensor(target),
    )


def readable(x: Tensor, weight: Tensor, step: int, channels: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """What the layer of a BandedConv gives, in float64, its kernels replaced."""
    module = layer(BandedConv(scales=step, bias=False), *channels).double()  # type: ignore[arg-type]
    return torch.func.functional_call(module, {"weight": weight}, (x, target))  # type: ignore[no-any-return]


def by_kernel(x: Tensor, weight: Tensor, bias: Tensor, step: int, target: tuple[int, int]) -> Tensor:
    wiring = [*target, len(bias), sparse.KEPT, 1, 0, 0, step]
    found: list[Tensor] = torch.ops.convfabric.banded_sums([x], [weight], [bias], wiring, "stored")
    return found[0]


@kernels
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("images", [1, 3])
def test_the_sparse_kernel_gives_the_sums_and_every_gradient_of_the_readable_layer(
    channels: tuple[int, int], step: int, size: tuple[int, int], images: int
) -> None:
    x, weight, bias, where = one_edge(channels, step, size, images)
    target = (int(where[0]), int(where[1]))
    exact = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    single = [tensor.float().requires_grad_() for tensor in (x, weight, bias)]
    wanted = readable(exact[0], exact[1], step, channels, target) + exact[2][:, None, None]
    found = by_kernel(single[0], single[1], single[2], step, target)
    gradient = torch.randn_like(wanted)
    assert apart(found, wanted) < SINGLE
    pairs = zip(
        torch.autograd.grad(found, single, gradient.float()), torch.autograd.grad(wanted, exact, gradient), strict=True
    )
    assert all(apart(one, other) < SINGLE for one, other in pairs)


@kernels
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_kernels_that_are_not_flipped_would_be_noticed(step: int) -> None:
    channels, size = (6, 6), (8, 8)
    x, weight, bias, where = one_edge(channels, step, size)
    target = (int(where[0]), int(where[1]))
    wanted = readable(x, weight, step, channels, target) + bias[:, None, None]
    flipped = by_kernel(x.float(), weight.flip(1, 2).float(), bias.float(), step, target)
    assert apart(flipped, wanted) > 0.1


@kernels
@pytest.mark.parametrize("doubling", [False, True])
def test_the_adjoint_of_a_layer_is_its_transpose(doubling: bool) -> None:
    channels = (8, 16, 32) if doubling else (8, 8, 8)
    sizes = ((11, 14), (6, 7), (3, 4))
    torch.manual_seed(0)
    maps = [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    wiring, back, weights, number = [], [], [], 0
    ends = [(s, t) for t in range(3) for s in (t - 1, t, t + 1) if 0 <= s < 3]
    for target in range(3):
        sources = [s for s, t in ends if t == target]
        wiring += [*sizes[target], channels[target], sparse.KEPT, len(sources)]
        for source in sources:
            weights.append(layer(BandedConv(), channels[source], channels[target]).get_parameter("weight").detach())
            wiring += [source, number, target - source]
            number += 1
    for source in range(3):
        targets = [t for s, t in ends if s == source]
        back += [*sizes[source], channels[source], sparse.KEPT, len(targets)]
        for target in targets:
            back += [target, ends.index((source, target)), source - target]
    forward = torch.ops.convfabric.banded_sums(maps, weights, [], wiring, "stored")
    others = [torch.randn_like(m) for m in maps]
    backward = torch.ops.convfabric.banded_sums(others, weights, [], back, "adjoint")
    one = sum(float((f.double() * o.double()).sum()) for f, o in zip(forward, others, strict=True))
    other = sum(float((m.double() * b.double()).sum()) for m, b in zip(maps, backward, strict=True))
    assert one == pytest.approx(other, rel=1e-5)


@kernels
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_the_operators_keep_torch_s_rules() -> None:
    x = torch.randn(2, 8, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = layer(BandedConv(), 8, 8).get_parameter("weight")
    bias, scale = torch.randn(8, requires_grad=True), torch.rand(8, requires_grad=True)
    wiring = [5, 4, 8, sparse.KEPT, 1, 0, 0, 0]
    torch.library.opcheck(torch.ops.convfabric.banded_sums.default, ([x], [weight], [bias], wiring, "stored"))
    torch.library.opcheck(torch.ops.convfabric.norm_relu.default, (x, scale, bias, 1e-5))


@kernels
def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    x, weight, bias, _ = (tensor.float() for tensor in one_edge((20, 20), 0, (16, 16), images=1))
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(by_kernel(x, weight, bias, 0, (16, 16)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@kernels
@pytest.mark.parametrize("channels", [5, 16, 40])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_the_norm_kernel_is_batch_norm_and_relu(channels: int, offset: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, channels, 9, 7, dtype=torch.float64) + offset
    single, exact = (x.to(dtype).requires_grad_() for dtype in (torch.float32, torch.float64))
    own, torchs = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels).double()
    for norm in (own, torchs):
        nn.init.uniform_(norm.weight, -1, 2, generator=torch.Generator().manual_seed(1))
        nn.init.uniform_(norm.bias, -1, 1, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(-1, 2, channels))
            norm.bias.copy_(torch.linspace(1, -1, channels))
    found, wanted = norms.norm_relu(own, single), F.relu(torchs(exact))
    gradient = torch.randn_like(wanted)
    found.backward(gradient.float())
    wanted.backward(gradient)
    loose = SINGLE if offset == 0 else 1e-3
    assert apart(found, wanted) < loose
    for one, other in zip((single, *own.parameters()), (exact, *torchs.parameters()), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert apart(one.grad, other.grad) < loose
    for one, other in zip(own.buffers(), torchs.buffers(), strict=True):
        assert apart(one.double(), other.double()) < SINGLE


def trained_looking(fabric: Fabric) -> Fabric:
    """Norms away from what they start as, so that a mistake in folding them shows."""
    dice = torch.Generator().manual_seed(3)
    for module in fabric.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=dice)
    return fabric


GRAPHS = {
    "plain": Trellis(layers=4, scales=3, channels=6),
    "plain, doubling": Trellis(layers=3, scales=3, channels=5, doubling=True),
    "residual": Trellis(layers=3, scales=3, channels=6, operators="block", head="all", doubling=True),
    "banded": Trellis(layers=4, scales=3, channels=10, operators="banded"),
    "banded, doubling": Trellis(layers=4, scales=3, channels=9, operators="banded", doubling=True),
    "banded, in full vectors": Trellis(layers=3, scales=2, channels=32, operators="banded"),
    "banded, of long reach": Trellis(layers=4, scales=2, channels=6, operators="banded", reach=2),
    "banded, weights shared": Trellis(layers=3, scales=3, channels=6, operators="banded", shared=True),
    "one layer": Trellis(layers=1, scales=3, channels=6, operators="banded"),
}
TASKS = ("classification", "segmentation")


def graph_of(name: str, task: str) -> Graph:
    return weave_trellis(GRAPHS[name], Purpose(task=task, classes=4))  # type: ignore[arg-type]


def cases() -> list[tuple[str, str]]:
    return [(name, task) for name in GRAPHS for task in TASKS if (name, task) != ("one layer", "segmentation")]


@pytest.fixture
def small_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms take the kernel however few the values."""
    monkeypatch.setattr(norms, "FEWEST_VALUES", 0)


def gradients(model: nn.Module, fabric: Fabric, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Logits of every exit, and the gradients of every weight and of the images."""
    logits = model(images)
    loss = sum((one * torch.linspace(-1, 1, one.numel(), dtype=one.dtype).view_as(one)).sum() for one in logits)
    fabric.zero_grad()
    loss.backward()
    found = {name: weight.grad for name, weight in fabric.named_parameters() if weight.grad is not None}
    assert len(found) == len(list(fabric.parameters()))
    assert images.grad is not None
    return list(logits), {**found, "images": images.grad}


@kernels
@pytest.mark.usefixtures("small_maps_too")
@pytest.mark.parametrize("size", [(16, 16), (13, 18)])
@pytest.mark.parametrize(("name", "task"), cases())
@pytest.mark.parametrize("training", [True, False])
def test_every_plan_gives_the_answers_and_gradients_of_the_readable_executor(
    name: str, task: str, size: tuple[int, int], training: bool
) -> None:
    torch.manual_seed(0)
    exact = trained_looking(Fabric(graph_of(name, task)).double()).train(training)
    images = torch.rand(3, 3, *size, dtype=torch.float64, requires_grad=True)
    wanted, learnt = gradients(EveryExit(exact), exact, images)
    single = Fabric(exact.graph).train(training)
    single.load_state_dict(exact.state_dict())
    state = {key: value.clone() for key, value in exact.state_dict().items()}
    for plan in (Plan(), Plan(kernels=True)):
        again = images.detach().clone().requires_grad_()
        exact.load_state_dict(state)
        found, own = gradients(for_training(exact, plan), exact, again)
        assert max(map(apart, found, wanted)) < EXACT
        assert max(apart(own[key], learnt[key]) for key in learnt) < EXACT
    floats = images.detach().float().requires_grad_()
    found, own = gradients(for_training(single, Plan(kernels=True)), single, floats)
    assert max(map(apart, found, wanted)) < SINGLE
    scale = max(float(gradient.abs().max()) for gradient in learnt.values())
    assert max(float((own[key].double() - learnt[key]).abs().max()) for key in learnt) < SINGLE * scale


@pytest.mark.parametrize(("name", "task"), cases())
def test_norms_are_folded_without_a_change_of_answers(name: str, task: str) -> None:
    fabric = trained_looking(Fabric(graph_of(name, task)).double()).eval()
    simple = folded(fabric)
    images, others = (torch.rand(2, 3, 13, 18, dtype=torch.float64, requires_grad=True) for _ in range(2))
    with torch.no_grad():
        others.copy_(images)
    wanted, found = fabric(images), simple(others)
    assert apart(found, wanted) < EXACT
    wanted.sum().backward()
    found.sum().backward()
    assert images.grad is not None
    assert others.grad is not None
    assert apart(others.grad, images.grad) < EXACT
    left = sum(isinstance(module, nn.BatchNorm2d) for module in simple.modules())
    kept = GRAPHS[name].operators == "block" or GRAPHS[name].shared
    assert (left == 0) != kept


@pytest.mark.parametrize("seed", range(30))
def test_inference_of_random_graphs_is_that_of_the_readable_executor(seed: int) -> None:
    graph, size = random_trellis(seed, most_channels=9)
    torch.manual_seed(seed)
    fabric = trained_looking(Fabric(graph).double()).eval()
    single = Fabric(graph).eval()
    single.load_state_dict(fabric.state_dict())
    images = torch.rand(1 + seed % 3, graph.entry.image_channels, *size, dtype=torch.float64)
    with torch.inference_mode():
        wanted = fabric.forward_exits(images)
        for found in (for_inference(single)(images.float()), for_inference(single, Plan())(images.float())):
            assert max(map(apart, found, wanted)) < SINGLE
        half = for_inference(single, Plan(bfloat16=True, kernels=not isinstance(building.library(), str)))
        found = half(images.float())
    assert {one.dtype for one in found} == {torch.float32}
    assert max(map(apart, found, wanted)) < 0.1


@kernels
def test_layers_in_a_row_are_one_call_where_nothing_is_learnt() -> None:
    graph = weave("paper-mnist-sparse", layers=4, scales=3, channels=8)
    simple = folded(Fabric(graph).eval())
    for together in stages(graph):
        places = {step.place for step in together.steps}
        assert not any(source in places for step in together.steps for _, _, source in step.arriving)
    assert sum(len(together.steps) for together in stages(graph)) == len(graph.nodes)
    assert len(list(stages(graph))) < len(graph.nodes)
    assert [len(one.steps) for one in stages(simple.graph, frozen=True)] == [1, len(graph.nodes) - 1]


@kernels
def test_not_a_number_comes_out_where_it_went_in() -> None:
    fabric = Fabric(weave("paper-mnist-sparse", layers=2, scales=2, channels=8)).eval()
    images = torch.full((1, 1, 8, 8), float("nan"))
    with torch.inference_mode():
        assert for_inference(fabric)(images)[0].isnan().all()


@kernels
def test_the_planned_fabric_passes_through_compile_and_export() -> None:
    fabric = Fabric(weave("paper-mnist-sparse", layers=3, scales=2, channels=8))
    images = torch.rand(4, 1, 8, 8)
    model = Planned(fabric.eval())
    wanted = model(images)[0]
    exported = torch.export.export(model, (images,), dynamic_shapes={"images_BCHW": {0: torch.export.Dim("batch")}})
    assert apart(exported.module()(images)[0], wanted) < SINGLE
    assert any("banded_sums" in str(node.target) for node in exported.graph.nodes)
    fabric.train()
    compiled = torch.compile(Planned(fabric), backend="aot_eager", fullgraph=True)
    compiled(images)[0].sum().backward()
    assert all(weight.grad is not None for weight in fabric.parameters())


@kernels
def test_names_of_weights_do_not_depend_on_the_plan() -> None:
    fabric = Fabric(weave("paper-mnist-sparse", layers=2, scales=2, channels=8))
    names = {name.removeprefix("fabric.") for name in for_training(fabric, Plan(kernels=True)).state_dict()}
    assert names == set(fabric.state_dict())


@kernels
@pytest.mark.usefixtures("small_maps_too")
def test_training_by_kernels_ends_where_readable_training_does() -> None:
    data = open_data("digits")
    ends = []
    for execution in ("auto", "readable"):
        torch.manual_seed(0)
        fabric = Fabric(weave("paper-mnist-sparse", size=(8, 8), layers=2, scales=2, channels=8))
        rows = train(fabric, data, Recipe(epochs=1, precision="float32", execution=execution), device="cpu")  # type: ignore[arg-type]
        ends.append((rows[-1]["train_loss"], fabric))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-3)


@pytest.fixture
def no_library() -> Iterator[None]:
    """What was built is forgotten before and after."""
    building.library.cache_clear()
    yield
    building.library.cache_clear()


@pytest.mark.usefixtures("no_library")
def test_without_a_compiler_torch_runs_the_layers_and_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "COMPILERS", ("no-such-compiler",))
    graph = weave("paper-mnist-sparse", layers=2, scales=2, channels=8)
    plan = plan_for(graph, training=True)
    assert not plan.kernels
    assert "no C++ compiler was found (no-such-compiler)" in str(plan)
    assert str(plan) == str(plan_for(graph, training=True, build=False))
    assert "compiler" not in str(plan_for(weave(), training=True))
    fabric = Fabric(graph)
    assert for_training(fabric, plan)(torch.rand(2, 1, 8, 8))[0].shape == (2, 10)


@pytest.mark.usefixtures("no_library")
def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "c++"
    fake.write_text("#!/bin/sh\necho 'banded.cpp:1: error: no room left' >&2\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(building, "kept_in", lambda: tmp_path / "kept")
    found = building.library()
    assert isinstance(found, str)
    assert "no room left" in found
    assert not list((tmp_path / "kept").iterdir())


@kernels
def test_kernels_are_built_once_and_found_again(tmp_path: Path) -> None:
    first = building.built(tmp_path)
    built = first.stat().st_mtime_ns
    assert building.built(tmp_path) == first
    assert first.stat().st_mtime_ns == built
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert hasattr(ctypes.CDLL(str(first)), "convfabric_sums")


def test_precision_follows_the_machine_and_the_width_of_most_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from convfabric.execution import plans

    monkeypatch.setattr(plans, "_multiplies_bfloat16", lambda device: True)
    assert plan_for(weave("paper-mnist-dense"), training=True, build=False).bfloat16
    assert plan_for(weave("nin"), training=True, build=False).bfloat16
    assert not plan_for(weave("trellis", channels=8), training=True, build=False).bfloat16
    assert not plan_for(weave("paper-mnist-dense"), training=False, build=False).bfloat16
    assert not plan_for(weave("paper-mnist-dense"), training=True, precision="float32", build=False).bfloat16
    monkeypatch.setattr(plans, "_multiplies_bfloat16", lambda device: False)
    assert not plan_for(weave("paper-mnist-dense"), training=True, build=False).bfloat16
    assert plan_for(weave("trellis", channels=8), training=True, precision="bfloat16", build=False).bfloat16


def test_the_readable_plan_has_no_kernels_and_compiled_says_so() -> None:
    assert str(plan_for(weave(), training=False, execution="readable")) == "float32, channels-last"
    assert plan_for(weave(), training=True, execution="compiled", build=False).compiled
    assert "torch.compile" in str(plan_for(weave(), training=True, execution="compiled", build=False))
    assert not plan_for(weave("paper-mnist-sparse"), "cuda", training=True, precision="float32").kernels


def test_memory_is_kept_where_the_allocator_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_memory()


@kernels
def test_a_fabric_whose_weights_are_bfloat16_is_planned_all_the_same() -> None:
    fabric = Fabric(weave("paper-mnist-sparse", layers=3, scales=2, channels=8)).to(torch.bfloat16)
    images = torch.rand(4, 1, 8, 8, dtype=torch.bfloat16)
    model = Planned(fabric.eval())
    assert apart(model(images)[0].float(), fabric(images).float()) < 0.1
    fabric.train()
    model(images)[0].sum().backward()
    assert {weight.grad.dtype for weight in fabric.parameters() if weight.grad is not None} == {torch.bfloat16}


@kernels
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_inference_can_be_traced_and_differentiated_by_the_images() -> None:
    fabric = Fabric(weave("paper-mnist-sparse", layers=3, scales=2, channels=8)).eval()
    model, images = for_inference(fabric), torch.rand(2, 1, 8, 8)
    wanted = model(images)[0]
    traced = torch.jit.trace(model, images, check_trace=False)
    assert apart(traced(images)[0], wanted) < SINGLE
    own, other = (images.clone().requires_grad_() for _ in range(2))
    model(own)[0].sum().backward()
    fabric(other).sum().backward()
    assert own.grad is not None
    assert other.grad is not None
    assert apart(own.grad, other.grad) < SINGLE


@kernels
def test_second_derivatives_are_refused_in_words() -> None:
    x = torch.randn(2, 8, 5, 4, requires_grad=True)
    weight = layer(BandedConv(), 8, 8).get_parameter("weight")
    found = by_kernel(x, weight, torch.zeros(8), 0, (5, 4))
    with pytest.raises(NotImplementedError, match="execution=readable"):
        torch.autograd.grad(found.square().sum(), x, create_graph=True)


@kernels
@pytest.mark.usefixtures("no_library")
def test_a_damaged_file_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "kept_in", lambda: tmp_path)
    building.built(tmp_path).write_bytes(b"not a library")
    assert isinstance(building.library(), ctypes.CDLL)


@pytest.mark.parametrize(("name", "value"), [("execution", "quickly"), ("precision", "float8")])
def test_a_plan_that_is_not_known_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{name}={value}: give auto"):
        plan_for(weave(), training=True, **{name: value})  # type: ignore[arg-type]
