"""What every kind of exported file keeps to. A new one is covered by its row in FORMATS."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from contracts.test_families import fabric_of, noise, papers_of, small
from convfabric.errors import ExportError
from convfabric.exporting.exporter import export
from convfabric.exporting.formats import FORMATS, Format, accept_close, formats_with
from convfabric.exporting.program import program, variable_size
from convfabric.fabric.deployable import delivered
from convfabric.graph import Task
from convfabric.importing.sources import as_it_is, original
from convfabric.weavers import Source

every_format = pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)


@every_format
@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_the_file_answers_like_the_network_which_stays_as_it_was(kind: Format, task: Task, tmp_path: Path) -> None:
    fabric, data = fabric_of(small("unet" if task == "detection" else "resnet", task)).train(), noise(task)
    papers = papers_of(fabric.graph)
    assert export(fabric, papers, data, tmp_path, formats=[kind]) < 1e-3
    assert [file.name for file in tmp_path.iterdir()] == [kind.file]
    assert fabric.training
    pixels, _ = next(data.splits["val"].batches([[0, 1, 2]]))
    with torch.inference_mode():
        logits = fabric.eval()(data.preprocessing.normalised(pixels))
        wanted = delivered(logits, task, data.preprocessing.size).numpy()
    kind.accept(kind.file, wanted, kind.run(tmp_path / kind.file)(pixels.float().numpy()))


@every_format
@pytest.mark.parametrize(("name", "task"), [("resnet", "classification"), ("trellis", "segmentation")])
def test_the_file_is_a_source_that_says_how_its_images_are_prepared(
    kind: Format, name: str, task: Task, tmp_path: Path
) -> None:
    fabric, data = fabric_of(small(name, task)).eval(), noise(task)
    export(fabric, papers_of(fabric.graph), data, tmp_path, formats=[kind])
    source = Source(network=f"file:{tmp_path / kind.file}", numbers={})
    first = original(source.network)
    pixels, _ = next(data.splits["val"].batches([[0, 1, 2]]))
    prepared = replace(data.preprocessing, mean=first.mean, std=first.std)
    with torch.inference_mode():
        wanted = fabric(data.preprocessing.normalised(pixels))
        found = as_it_is(source)(prepared.normalised(pixels))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@every_format
def test_a_file_that_answers_otherwise_is_refused_by_name_and_none_is_kept(kind: Format, tmp_path: Path) -> None:
    fabric = fabric_of(small("nin", "classification"))
    skewed = replace(kind, run=lambda file: lambda pixels: kind.run(file)(pixels) + 0.01)
    (tmp_path / kind.file).write_text("the one before")
    with pytest.raises(ExportError, match=rf"on images of val, {kind.file} answers unlike the network: logits are up"):
        export(fabric, papers_of(fabric.graph), noise("classification"), tmp_path, formats=[skewed])
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(kind.file, "the one before")]


def test_images_of_a_file_are_multiples_of_what_its_switches_read() -> None:
    whole = small("segnet", "segmentation")
    coarsest = max(node.place.scale for node in whole.nodes)
    deepest = {edge.name for edge in whole.edges if edge.source.scale == coarsest}
    part = whole.restrict(whole.edge_names - deepest)
    assert max(node.place.scale for node in part.nodes) == coarsest - 1
    papers = papers_of(part)
    papers = replace(papers, preprocessing=replace(papers.preprocessing, size=(96, 64)))
    assert variable_size(papers) == 2**coarsest
    answer = program(fabric_of(part).eval(), papers).module()
    assert answer(torch.zeros(1, 3, 64, 128)).shape[-2:] == (64, 128)


@pytest.mark.parametrize(("opset", "ir_version"), [(18, 8), (21, 10), (24, 12)])
def test_onnx_files_are_of_the_oldest_format_that_has_their_operators(
    opset: int, ir_version: int, tmp_path: Path
) -> None:
    fabric = fabric_of(small("resnet", "classification"))
    export(fabric, papers_of(fabric.graph), noise("classification"), tmp_path, formats=formats_with(opset)[:1])
    made = onnx.load(tmp_path / "model.onnx")
    assert ([one.version for one in made.opset_import], made.ir_version) == ([opset], ir_version)
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert made.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    onnx.checker.check_model(made, full_check=True)


def test_a_first_choice_that_differs_by_more_than_rounding_is_refused() -> None:
    wanted = np.float32([[900.0, 0.0], [0.0010, 0.0]])
    turned = np.float32([[900.0, 0.0], [-0.0010, 0.0]])
    with pytest.raises(ExportError, match=r"1 first choices differ, by up to 1\.00e-03"):
        accept_close("model.onnx", wanted, turned)
    assert accept_close("model.onnx", wanted, np.float32([[900.0, 0.0], [0.0009, 0.0]])) < 1e-3
