"""Plans and kernels compute what the readable executor does: outputs and every gradient."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from convfabric.data.opening import open_data
from convfabric.errors import SettingError
from convfabric.execution import compiler, norms
from convfabric.execution.allocation import keep_memory
from convfabric.execution.folding import folded
from convfabric.execution.planned import Planned, stages
from convfabric.execution.plans import Plan, plan_for
from convfabric.execution.runners import for_inference, for_training
from convfabric.fabric.module import EveryExit, Fabric
from convfabric.graph import Graph, Place
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import Purpose, Trellis, weave, weave_trellis
from graphs import random_trellis
from nearness import EXACT, SINGLE, apart, kernels


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
    "leaky": Trellis(layers=3, scales=3, channels=6, operators="block", head="all", activation="leaky"),
    "banded, leaky": Trellis(layers=3, scales=2, channels=6, operators="banded", activation="leaky"),
    "banded, slopes learnt": Trellis(layers=3, scales=2, channels=6, operators="banded", activation="prelu"),
    "way down": Trellis(layers=2, scales=3, delay=2, channels=6, operators="shortcut", head="all", doubling=True),
    "way down, pooled": Trellis(
        layers=2, scales=3, delay=2, channels=6, operators="shortcut", head="all", doubling=True, down="pooled"
    ),
    "plain, pooled": Trellis(layers=3, scales=3, channels=6, down="pooled"),
    "band": Trellis(layers=3, scales=3, delay=1, channels=6, operators="residual", head="all"),
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
    kept = GRAPHS[name].operators in ("block", "residual") or GRAPHS[name].shared
    assert (left == 0) != kept


def test_norms_behind_a_maximum_stay_where_they_turn_a_sign() -> None:
    fabric = trained_looking(Fabric(graph_of("way down, pooled", "classification")).double()).eval()
    turned = fabric.graph.node(Place(2, 1))
    norm = next(module for module in fabric.nodes[str(turned.place)].modules() if isinstance(module, nn.BatchNorm2d))
    norm.weight.data[1] *= -1
    simple, images = folded(fabric), torch.rand(2, 3, 13, 18, dtype=torch.float64)
    assert apart(simple(images), fabric(images)) < EXACT
    assert [name for name, module in simple.named_modules() if isinstance(module, nn.BatchNorm2d)] == [
        f"nodes.{turned.place}.steps.0"
    ]


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
        half = for_inference(single, Plan(bfloat16=True, kernels=not isinstance(compiler.library(), str)))
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
        rows = train(fabric, data, Recipe(epochs=1, autocast="float32", execution=execution), device="cpu")  # type: ignore[arg-type]
        ends.append((rows[-1]["train_loss"], fabric))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-3)


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


def test_what_is_imported_is_left_out_of_garbage_collection_once() -> None:
    code = "import gc, torch; from convfabric.execution.allocation import keep_imports as keep; "
    code += "keep(); first = gc.get_freeze_count(); keep(); print(first > 100_000, gc.get_freeze_count() == first)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True True\n"


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


@pytest.mark.parametrize(("name", "value"), [("execution", "quickly"), ("precision", "float8")])
def test_a_plan_that_is_not_known_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{name}={value}: give auto"):
        plan_for(weave(), training=True, **{name: value})  # type: ignore[arg-type]
