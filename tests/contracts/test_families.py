"""What every family keeps to, as any new one has to. Small numbers, the same wiring."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed
from torch.utils.flop_counter import FlopCounterMode

from convfabric.boxes.multibox import box_loss
from convfabric.choice import Summed, measures
from convfabric.cutting.surgery import extract, ranked
from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing
from convfabric.errors import GraphError
from convfabric.evaluation.scoring import score
from convfabric.execution.subnetworks import _skeleton
from convfabric.exporting.formats import write_onnx
from convfabric.exporting.program import program, variable_size
from convfabric.fabric.archive import Passport, load_fabric, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place, Task
from convfabric.graph.costs import costs, works
from convfabric.graph.json_format import graph_from_json, graph_to_json
from convfabric.graph.laws import broken_laws
from convfabric.graph.paths import count_routes
from convfabric.graph.rewrites import with_features
from convfabric.graph.sizes import map_sizes
from convfabric.graph.subnetworks import Sampler, narrowed, widths
from convfabric.report.drawing import draw
from convfabric.training.loop import Moment, train
from convfabric.training.recipe import Recipe
from convfabric.weavers import FAMILIES, weave
from nearness import EXACT, apart
from test_extraction import lively_fabric

SIZES = ((32, 32), (37, 45))
SMALL = {name: family.specimen for name, family in FAMILIES.items()}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "trellis banded": ("trellis", {"operators": "banded", "doubling": True}),
    "trellis of far channels": ("trellis", {"operators": "banded", "channels": 8, "distances": (3,)}),
    "trellis of blocks": ("trellis", {"operators": "block", "head": "all", "doubling": True}),
    "trellis of long reach": ("trellis", {"reach": 2}),
    "trellis shared": ("trellis", {"shared": True}),
    "trellis shared, doubling": ("trellis", {"shared": True, "doubling": True, "leap": 2}),
    "trellis wide": ("trellis", {"operators": "banded", "channels": 520, "layers": 2, "scales": 2}),
    "unet bilinear": ("unet", {"up": "bilinear"}),
    "segnet transposed": ("segnet", {"up": "transposed"}),
    "segnet to a fixed place": ("segnet", {"up": "unpooled", "hidden": 8}),
    "enet of widths": ("enet", {"shortcuts": "pointwise"}),
    "trellis of many groups": ("trellis", {"prior": "column-2"}),
    "resnet bottleneck": ("resnet", {"block": "bottleneck", "groups": 2}),
    "resnet preactivated": ("resnet", {"block": "preactivated"}),
    "resnet inverted": ("resnet", {"block": "inverted"}),
    "vgg global max": ("vgg", {"top": "global max", "hidden": 8}),
}
TASKS: tuple[Task, ...] = ("classification", "segmentation")
CASES = [
    *((name, task) for name in SMALL for task in TASKS if (name, task) != ("lenet", "segmentation")),
    *(
        (name, "segmentation" if VARIANTS[name][0] in ("unet", "segnet", "enet") else "classification")
        for name in VARIANTS
    ),
]
every_family = pytest.mark.parametrize(("name", "task"), CASES)
every_body = pytest.mark.parametrize(
    ("name", "task"),
    [
        *(
            (name, task)
            for name, task in CASES
            if (task == "segmentation") != (name in ("lenet", "msdnet", "nin", "vgg"))
        )
    ],
)
"""Every family once where the task matters to the heads alone, with heads of each kind for the other task."""


SIZED_FREELY = ("unet",)
WRITTEN = ("trellis", "unet", "msdnet", "googlenet", "densenet", "segnet", "enet", "lenet", "resnet-fabric")
every_file = pytest.mark.parametrize(
    ("name", "task"),
    [(name, task) for name, task in CASES if name in WRITTEN and (task == "segmentation") == (name in SIZED_FREELY)],
)
"""Families of every join and head; tests/contracts/test_operators.py writes every operator."""


CANNOT_BE_NARROWED = {"enet", "trellis banded", "trellis wide", "trellis of far channels", "trellis shared, doubling"}


@pytest.mark.parametrize("name", SMALL)
def test_every_family_looks_for_boxes_at_each_scale_or_says_that_it_cannot(name: str) -> None:
    if max(place.scale for place in with_features(small(name, "classification")).head.reads) < 2:
        with pytest.raises(GraphError, match="halves images fewer than 2 times"):
            small(name, "detection")
        return
    graph = small(name, "detection")
    assert min(place.scale for place in graph.head.reads) >= 2
    fabric = fabric_of(graph)
    answer = fabric(torch.randn(2, 3, *SIZES[0]))
    box_loss(answer, torch.tensor([[[1.0, 2, 3, 20, 30]], [[-1, 0, 0, 0, 0]]])).backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in fabric.parameters())
    assert sum(weight.numel() for weight in fabric.parameters()) == costs(graph, SIZES[0]).parameters
    part, images = Sampler.of(graph, 0.5, SIZES[0]).draw(random.Random(0)), torch.randn(1, 3, *SIZES[0])
    assert apart(extract(fabric.eval(), part)(images), fabric(images, part)) < EXACT


def small(name: str, task: Task) -> Graph:
    family, changes = VARIANTS.get(name, (name, {}))
    numbers = {**SMALL[family], **changes}
    return weave(family, size=SIZES[0], image_channels=3, classes=3, task=task, **numbers)


def _made(making: Callable[[], Graph]) -> Graph | None:
    try:
        return making()
    except GraphError:
        return None


def fabric_of(graph: Graph) -> Fabric:
    torch.manual_seed(0)
    return Fabric(graph)


@every_family
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_answers_have_their_shape_at_any_size(name: str, task: Task, size: tuple[int, int]) -> None:
    fabric = fabric_of(small(name, task)).eval()
    for logits in fabric.forward_exits(torch.randn(2, 3, *size)):
        assert logits.shape == ((2, 3) if task == "classification" else (2, 3, *size))


@every_family
def test_every_parameter_receives_a_gradient(name: str, task: Task) -> None:
    fabric = fabric_of(small(name, task))
    for module in fabric.modules():
        module.train("Dropout" not in type(module).__name__)
    answers = fabric.forward_exits(torch.randn(4, 3, *SIZES[0]))
    sum((logits * torch.randn_like(logits)).sum() for logits in answers).backward()  # type: ignore[union-attr]
    without = [n for n, p in fabric.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a constant added before a norm has a gradient of zero but for rounding
    assert [n for n in without if not n.endswith("bias")] == []


@every_family
def test_costs_equal_torch_s_counter(name: str, task: Task) -> None:
    graph = small(name, task)
    fabric = fabric_of(graph).eval()
    for size in SIZES:
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            fabric(torch.zeros(1, 3, *size))
        assert 2 * costs(graph, size).macs == counted.get_total_flops()
    assert costs(graph, SIZES[0]).parameters == sum(p.numel() for p in fabric.parameters())


@every_family
def test_each_layer_costs_what_torch_counts_for_its_modules(name: str, task: Task) -> None:
    graph = small(name, task)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        fabric_of(graph).eval()(torch.zeros(1, 3, *SIZES[0]))
    by_module = {key: sum(flops.values()) for key, flops in counted.get_flop_counts().items()}
    macs: dict[Place, int] = {}
    for place, work in works(graph, SIZES[0]):
        macs[place] = macs.get(place, 0) + work.operator.macs(*work[1:])
    for place, counted_here in macs.items():
        modules = [f"Fabric.nodes.{place}", *(f"Fabric.edges.{edge.weights}" for edge in graph.arriving(place))]
        modules += ["Fabric.entry"] * (place == graph.entry.place)
        shared = any(edge.shared for edge in graph.arriving(place))
        assert shared or 2 * counted_here == sum(by_module.get(module, 0) for module in modules), place


@every_family
def test_a_part_of_it_answers_as_the_whole_does_when_it_runs_that_part(name: str, task: Task) -> None:
    graph = small(name, task)
    fabric = fabric_of(graph).eval()
    images, tried = torch.randn(2, 3, *SIZES[0]), 0
    for edge in graph.edges:
        try:
            smaller = graph.restrict(graph.edge_names - {edge.name})
        except GraphError:
            continue
        tried += 1
        if tried > 4:
            break
        with torch.no_grad():
            found, wanted = extract(fabric, smaller).forward_exits(images), fabric.forward_exits(images, smaller)
        assert len(found) == len(wanted) == len(smaller.heads)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert tried or count_routes(graph) == 1 or any(node.join == "concatenation" for node in graph.nodes)


@every_body
def test_edges_and_channels_go_in_either_order(name: str, task: Task) -> None:
    graph, dice, made = small(name, task), random.Random(0), 0
    sampler = Sampler.of(graph, 0.25, SIZES[0])
    for _ in range(8):
        kept = graph.edge_names - {name for unit in sampler.units if dice.random() < 0.2 for name in unit}
        positions = [dice.randrange(len(group.counts)) for group in sampler.widths]
        wanted = zip(sampler.widths, positions, strict=True)
        counts = {place: count for group, at in wanted for place, count in group.at(at).items()}
        parts = [_made(lambda: narrowed(graph, counts).restrict(kept)), _made(lambda: sampler.part(kept, positions))]  # noqa: B023
        assert parts[0] == parts[1]
        if parts[1]:
            made += 1
            again = graph_from_json(graph_to_json(parts[1]))
            assert (parts[1].order, map_sizes(parts[1], SIZES[0])) == (again.order, map_sizes(again, SIZES[0]))
    assert made


@every_body
def test_edges_weigh_the_same_among_a_few(name: str, task: Task) -> None:
    graph, macs = small(name, task), measures(SIZES[0])["macs"]
    assert isinstance(macs, Summed)
    sampler = Sampler.of(graph, 0.25, SIZES[0])
    for at in range(len(sampler.widths)):
        positions = [0 if i == at else len(group.counts) - 1 for i, group in enumerate(sampler.widths)]
        part = _made(lambda: sampler.part(graph.edge_names, positions))  # noqa: B023
        few = _made(lambda: sampler.weighed(sorted(graph.edge_names)[::2], positions))  # noqa: B023
        if part and few and all(node.join != "concatenation" for node in graph.nodes):
            alone = {edge.name: macs.of_edge(few, edge) for edge in few.edges}
            assert alone == {edge.name: macs.of_edge(part, edge) for edge in part.edges if edge.name in alone}


@every_body
def test_a_ranked_fabric_answers_as_before(name: str, task: Task) -> None:
    fabric = lively_fabric(small(name, task), 1).double()
    images = torch.randn(2, 3, *SIZES[0], dtype=torch.float64)
    chance = {node.place: torch.rand(node.channels) for node in fabric.graph.nodes}
    for worth in (None, chance):
        with torch.no_grad():
            pairs = zip(ranked(fabric, worth).forward_exits(images), fabric.forward_exits(images), strict=True)
        assert max(apart(found, wanted) for found, wanted in pairs) < EXACT


@every_body
def test_a_narrowed_part_is_lawful_and_answers_as_the_whole_that_runs_it(name: str, task: Task) -> None:
    graph = small(name, task)
    fabric, images = lively_fabric(graph, 2), torch.randn(2, 3, *SIZES[0])
    counts = [group.at(0) for group in widths(graph, 0.5)]
    smaller = graph.narrow({place: count for group in counts for place, count in group.items()})
    assert broken_laws(smaller, SIZES[0]) == []
    with torch.no_grad():
        pairs = zip(extract(fabric, smaller).forward_exits(images), fabric.forward_exits(images, smaller), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert counts or name in CANNOT_BE_NARROWED


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((name, "segmentation") for name in ("trellis", "unet")),
        *((name, "classification") for name in ("msdnet", "trellis shared")),
    ],
)
def test_a_run_with_sub_networks_goes_on_to_the_bit_after_a_stop(name: str, task: Task, tmp_path: Path) -> None:
    def stop(moment: Moment) -> None:
        if moment.step == 3:
            raise RuntimeError("stopped")

    ends = []
    for stopped in (False, True):
        _skeleton.cache_clear()  # as a new process would begin
        fabric, recipe = fabric_of(small(name, task)), Recipe(epochs=2, batch=8, subnetworks=2, autocast="float32")
        words = {"folder": tmp_path / str(stopped), "device": "cpu"}
        if stopped:
            with pytest.raises(RuntimeError, match="stopped"):
                train(fabric, noise(task), recipe, watch=stop, **words)  # type: ignore[arg-type]
            _skeleton.cache_clear()
        train(fabric, noise(task), recipe, resume=stopped, **words)  # type: ignore[arg-type]
        ends.append(fabric.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@every_body
def test_a_step_of_training_and_an_evaluation_run(name: str, task: Task) -> None:
    data = noise(task)
    fabric = fabric_of(small(name, task))
    before = {key: tensor.clone() for key, tensor in fabric.state_dict().items()}
    rows = train(fabric, data, Recipe(epochs=1, batch=8), device="cpu")
    assert len(rows) == 1
    assert score(fabric, data, "val").images == 16
    still = [key for key, tensor in fabric.state_dict().items() if torch.equal(before[key], tensor)]
    assert name == "gridnet" or not [key for key in still if before[key].ndim > 1]


@every_body
def test_json_and_archive_round_trip(name: str, task: Task, tmp_path: Path) -> None:
    graph = small(name, task)
    assert graph_from_json(graph_to_json(graph)) == graph
    fabric = fabric_of(graph).eval()
    save_fabric(tmp_path, fabric, papers_of(graph))
    images = torch.randn(1, 3, *SIZES[0])
    with torch.no_grad():
        assert torch.equal(load_fabric(tmp_path)[0](images), fabric(images))


@every_file
def test_onnx_answers_like_the_network_at_every_batch_and_may_be_fixed(name: str, task: Task, tmp_path: Path) -> None:
    graph = small(name, task)
    fabric, papers = fabric_of(graph).eval(), papers_of(graph)
    write_onnx(program(fabric, papers), papers, tmp_path / "model.onnx")
    assert all(node.op_type != "BatchNormalization" for node in onnx.load(tmp_path / "model.onnx").graph.node)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    shapes = [(batch, 3, *SIZES[0]) for batch in (1, 3)] + ([(1, 3, 64, 96)] if variable_size(papers) else [])
    for shape in shapes:
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            wanted = fabric(papers.preprocessing.normalised(pixels))
        found = torch.from_numpy(session.run(None, {"images": pixels.float().numpy()})[0])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    model = onnx.load(tmp_path / "model.onnx")
    for axis, count in zip(("batch", "height", "width"), (1, *SIZES[0]), strict=True):
        make_dim_param_fixed(model.graph, axis, count)
    onnx.save(model, tmp_path / "fixed.onnx")
    quant_pre_process(tmp_path / "fixed.onnx", tmp_path / "prepared.onnx")


@every_family
def test_it_can_be_drawn_and_counted(name: str, task: Task) -> None:
    graph = small(name, task)
    assert draw(graph).count("<circle") == len(graph.nodes)
    assert count_routes(graph) >= 1


def test_compiled_fabric_answers_like_itself() -> None:
    fabric = fabric_of(small("msdnet", "classification")).eval()
    images = torch.randn(2, 3, *SIZES[0])
    compiled = torch.compile(fabric, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), fabric(images))


def noise(task: Task) -> ImageSet:
    """Sixteen images of noise, to train on and to score."""
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, *SIZES[0]), dtype=torch.uint8, generator=dice)
    labels = torch.arange(16) % 3
    masks = labels.to(torch.uint8)[:, None, None].expand(16, *SIZES[0])
    boxes = torch.cat([labels[:, None].float(), torch.tensor([[4.0, 6, 25, 28]]).expand(16, 4)], 1)[:, None]
    split = HeldSplit(images, {"classification": labels, "segmentation": masks, "detection": boxes}[task])
    papers = papers_of(weave("nin", channels=4))
    splits = {"train": split, "val": split}
    return ImageSet(name="noise", task=task, classes=("a", "b", "c"), preprocessing=papers.preprocessing, splits=splits)


def papers_of(graph: Graph) -> Passport:
    preprocessing = Preprocessing(
        size=SIZES[0], channels=3, fitting="cover", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
    )
    return Passport(graph=graph, classes=("a", "b", "c"), preprocessing=preprocessing)
