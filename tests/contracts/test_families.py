"""What every preset keeps to, as any new family of graphs has to. Small numbers, the same wiring."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from convfabric.archive import Passport, load_fabric, save_fabric
from convfabric.data.imageset import Preprocessing
from convfabric.exporting.deployable import program, write_onnx
from convfabric.extraction.surgery import extract
from convfabric.fabric import Fabric
from convfabric.graph import Graph, Task
from convfabric.notation import graph_from_json, graph_to_json
from convfabric.report.drawing import draw
from convfabric.routes import count_routes
from convfabric.weavers import PRESETS, weave

SIZES = ((16, 16), (19, 21))
FAMILIES = [(name, task) for name in PRESETS for task in ("classification", "segmentation")]
every_family = pytest.mark.parametrize(("name", "task"), FAMILIES)


def small(name: str, task: Task) -> Graph:
    numbers: dict[str, Any] = {"channels": 4, "scales": 3, "layers": 3}
    return weave(name, size=SIZES[0], image_channels=3, classes=3, task=task, **numbers)


def fabric_of(graph: Graph) -> Fabric:
    torch.manual_seed(0)
    return Fabric(graph)


@every_family
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_answers_have_their_shape_at_any_size(name: str, task: Task, size: tuple[int, int]) -> None:
    out = fabric_of(small(name, task)).eval()(torch.randn(2, 3, *size))
    assert out.shape == ((2, 3) if task == "classification" else (2, 3, *size))


@every_family
def test_every_parameter_receives_a_gradient(name: str, task: Task) -> None:
    fabric = fabric_of(small(name, task))
    fabric(torch.randn(4, 3, *SIZES[0])).square().sum().backward()
    without = [n for n, p in fabric.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a constant added before a norm has a gradient of zero but for rounding
    assert [n for n in without if not n.endswith("bias")] == []


@every_family
def test_json_archive_and_restriction_round_trip(name: str, task: Task, tmp_path: Path) -> None:
    graph = small(name, task)
    assert graph_from_json(graph_to_json(graph)) == graph
    fabric = fabric_of(graph).eval()
    save_fabric(tmp_path, fabric, papers_of(graph))
    smaller = graph.restrict(sorted(graph.edge_names)[1:])
    images = torch.randn(1, 3, *SIZES[0])
    with torch.no_grad():
        assert torch.equal(extract(load_fabric(tmp_path)[0], smaller)(images), fabric(images, smaller))


@every_family
def test_onnx_answers_like_the_network_at_every_batch(name: str, task: Task, tmp_path: Path) -> None:
    graph = small(name, task)
    fabric, papers = fabric_of(graph).eval(), papers_of(graph)
    write_onnx(program(fabric, papers), papers, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    shapes = [(batch, 3, *SIZES[0]) for batch in (1, 3)] + ([(1, 3, 24, 32)] if task == "segmentation" else [])
    for shape in shapes:
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.no_grad():
            wanted = fabric(papers.preprocessing.normalised(pixels))
        found = torch.from_numpy(session.run(None, {"images": pixels.float().numpy()})[0])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@every_family
def test_it_can_be_drawn_and_counted(name: str, task: Task) -> None:
    graph = small(name, task)
    assert draw(graph).count("<circle") == len(graph.nodes)
    assert count_routes(graph) > 1


def test_compiled_fabric_answers_like_itself() -> None:
    fabric = fabric_of(small("fabric-small", "classification")).eval()
    images = torch.randn(2, 3, *SIZES[0])
    compiled = torch.compile(fabric, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), fabric(images))


def papers_of(graph: Graph) -> Passport:
    preprocessing = Preprocessing(
        size=SIZES[0], channels=3, fitting="cover", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
    )
    return Passport(graph=graph, classes=("a", "b", "c"), preprocessing=preprocessing)
