"""Networks in int8: what is delivered is what was measured, and what costs too much is not delivered."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from convfabric.choice import Budget
from convfabric.data.opening import open_data
from convfabric.evaluation.scoring import Score, score
from convfabric.exporting import int8
from convfabric.exporting.exporter import export
from convfabric.exporting.formats import FORMATS
from convfabric.fabric.archive import passport
from convfabric.fabric.module import Fabric
from convfabric.pipeline.cutters import Surveys
from convfabric.pipeline.inputs import woven
from convfabric.progress import Listener
from convfabric.runs.job import job_from
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from test_pipeline import TINY, done, finished
from traced_files import files_are_traced

DIGITS = open_data("digits")
QUICK = [*TINY, "--epochs", 2, "--latency-ms", 50, "--set", "trials=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of a network that knows its digits."""
    torch.manual_seed(0)
    fabric = Fabric(weave("resnet-20", channels=8, size=(8, 8), image_channels=1))
    train(fabric, DIGITS, Recipe(epochs=8), device="cpu")
    place = tmp_path_factory.mktemp("int8")
    export(fabric, passport(fabric, DIGITS), DIGITS, place, formats=FORMATS[:1])
    torch.save(fabric, place / "fabric.pt")
    return place


def score_of_float32(folder: Path) -> Score:
    return score(torch.load(folder / "fabric.pt", weights_only=False), DIGITS, "val")


def test_a_file_as_a_network_answers_as_the_network(folder: Path) -> None:
    by_file = score(int8.ByFile(folder / "model.onnx", DIGITS.preprocessing), DIGITS, "val")
    assert by_file.loss == pytest.approx(score_of_float32(folder).loss, rel=1e-4)
    assert by_file.accuracy == score_of_float32(folder).accuracy > 0.9


def test_the_whole_network_is_in_int8_where_that_costs_little(folder: Path) -> None:
    found = int8.write_int8(folder, DIGITS, score_of_float32(folder), most=1.5)
    assert found is not None
    assert found.val_score_float32.accuracy - found.val_score.accuracy <= 0.015
    small, large = (onnx.load(folder / name) for name in (int8.INT8_FILE, "model.onnx"))
    assert found.bytes < 0.6 * (folder / "model.onnx").stat().st_size
    assert list(small.metadata_props) == list(large.metadata_props)
    assert sum(node.op_type == "QuantizeLinear" for node in small.graph.node) > found.layers - found.float32_layers
    assert json.loads(small.metadata_props[0].value)["classes"] == list(DIGITS.classes)


def test_the_most_sensitive_layers_stay_in_float32_where_all_cost_too_much(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []

    def half(model: bytes, batches: Any, kept: list[str]) -> bytes:
        """Leaves the model as it is once a fourth of its layers stay, and ruins it before."""
        layers = int8.weighted_nodes(model)
        if len(kept) < len(layers) - 1:
            tried.append(kept)
        ruined = onnx.load_from_string(model)
        for tensor in ruined.graph.initializer if len(kept) < 0.25 * len(layers) else ():
            if tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.raw_data = np.zeros_like(onnx.numpy_helper.to_array(tensor)).tobytes()
        return bytes(ruined.SerializeToString())

    monkeypatch.setattr(int8, "quantised", half)
    (folder / int8.INT8_FILE).unlink(missing_ok=True)
    found = int8.write_int8(folder, DIGITS, score_of_float32(folder), most=0.5)
    assert found is not None
    counts = [len(kept) for kept in tried]
    assert counts == sorted(counts)
    assert counts[:2] == [0, 2]
    assert found.float32_layers == counts[-1] >= 0.25 * found.layers
    assert f"{found.layers - counts[-1]} of {found.layers} layers with weights in int8" in str(found)
    monkeypatch.setattr(int8, "quantised", lambda model, batches, kept: half(model, batches, []))
    (folder / int8.INT8_FILE).unlink()
    assert int8.write_int8(folder, DIGITS, score_of_float32(folder), most=0.5) is None
    assert not (folder / int8.INT8_FILE).exists()
    assert not list(folder.glob(".model*"))


@pytest.fixture
def traced() -> Iterator[None]:
    with files_are_traced():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_run_delivers_the_int8_file_that_it_measured(tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = done(["fit", "digits", *QUICK, "--precision", "int8", "--set", "int8_loss=100", "--out", run])
    record = finished(run)
    assert record.cut.precision == record.exported.precision == "int8"
    assert record.budget_met
    assert ", int8" in record.exported.latency.runtime
    assert record.delivered == record.exported.int8.score != record.network.score
    assert "in int8" in said
    assert "model.int8.onnx, which is delivered and measured" in (run / "report.html").read_text()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "zero.png")
    words = [sys.executable, run / "predict.py", tmp_path / "zero.png"]
    (run / "model.onnx").rename(run / "kept.onnx")
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.startswith('{"image"')
    (run / "kept.onnx").rename(run / "model.onnx")
    rows = json.loads(done(["curve", run, "--latency-ms", 4, "--json"]))["networks"]
    assert [row["numbers"] for row in rows] == ["int8"]
    done(["extract", run, "--latency-ms", 5, "--precision", "float32"])
    assert not (run / "model.int8.onnx").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_where_int8_costs_too_much_a_network_in_float32_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convfabric.pipeline.steps.write_int8", lambda *anything: None)
    run = tmp_path / "run"
    done(["fit", "digits", *QUICK, "--precision", "auto", "--out", run])
    record = finished(run)
    assert record.exported.precision == "float32"
    assert record.exported.int8 is None
    assert record.budget_met


def test_a_network_that_is_refused_in_int8_leaves_the_others_their_choice(tmp_path: Path) -> None:
    job = job_from({"data": "digits", "network": "fabric-tiny", "layers": 2, "scales": 1, "precision": "auto"})
    surveys = Surveys(woven(job, DIGITS), job, DIGITS, Listener(say=lambda text: None), [Budget()])
    budget = Budget(macs=1.0)
    assert [form.precision for form in surveys.in_question(budget, float32=True)] == ["float32"]
    assert [form.precision for form in surveys.in_question(budget)] == ["float32", "int8"]
