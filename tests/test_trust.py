"""Runs that are damaged, shared or stopped, results that mean nothing, and image files as odd as people have them."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing
from convfabric.data.opening import open_data
from convfabric.errors import ArchiveError, ConvfabricError, DataError
from convfabric.evaluation.baseline import doubts, said_beside
from convfabric.evaluation.scoring import score
from convfabric.exporting.exporter import export
from convfabric.exporting.predictor_script import write_predictor
from convfabric.fabric.archive import Passport, load_fabric, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph.json_format import text_of
from convfabric.pipeline.evaluate import predictor
from convfabric.pipeline.fit import fit
from convfabric.runs.folder import begin
from convfabric.runs.job import job_from, read_config
from convfabric.runs.lock import held, holds_something
from convfabric.runs.record import data_record, update_record
from convfabric.weavers import weave
from trials import odd_images

SIZE = (12, 16)


def papers_of(channels: int, bounds: tuple[float, float] = (0.0, 65535.0)) -> Passport:
    graph = weave("nin", channels=4, size=SIZE, image_channels=channels, classes=2)
    pixels = Preprocessing(
        size=SIZE, channels=channels, fitting="cover", mean=(0.4,) * channels, std=(0.3,) * channels, bounds=bounds
    )
    return Passport(graph=graph, classes=("cat", "赤"), preprocessing=pixels)


def saved(folder: Path, channels: int = 3, bounds: tuple[float, float] = (0.0, 65535.0)) -> Path:
    papers = papers_of(channels, bounds)
    torch.manual_seed(0)
    fabric = Fabric(papers.graph).eval()
    save_fabric(folder, fabric, papers)
    pixels = torch.randint(0, 256, (4, channels, *SIZE), dtype=torch.uint8)
    split = HeldSplit(pixels, torch.tensor([0, 1, 0, 1]))
    data = ImageSet(
        name="a",
        task="classification",
        classes=papers.classes,
        preprocessing=papers.preprocessing,
        splits={"val": split},
    )
    export(fabric, papers, data, folder)
    write_predictor(folder)
    return folder


# --- one answer, or one refusal --------------------------------------------------------------------------------------


def outcome(answer: Callable[[Path], dict[str, Any]], file: Path) -> tuple[dict[str, Any], str]:
    try:
        return answer(file), ""
    except DataError as fault:
        return {}, str(fault)


@pytest.mark.parametrize("channels", [1, 3])
def test_predict_and_predict_py_say_the_same(channels: int, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", channels, bounds=(0.0, 4095.0))
    files = odd_images(tmp_path / "odd")
    assert len(files) >= 60
    ran = subprocess.run(
        [sys.executable, run / "predict.py", *files], capture_output=True, text=True, check=False, timeout=120
    )
    theirs = {found["image"]: found for found in map(json.loads, ran.stdout.splitlines())}
    refused = dict(line.split(": ", 1) for line in ran.stderr.splitlines())
    answer, met = predictor(run), 0
    for file in files:
        mine, fault = outcome(answer, file)
        if fault:
            assert refused[str(file)] == fault.removeprefix(f"{file}: ").encode("ascii", "backslashreplace").decode()
            met += 1
            continue
        assert theirs[str(file)]["class"] == mine["class"]
        assert theirs[str(file)]["probability"] == pytest.approx(mine["probability"], abs=1e-5)
    assert met >= 8


@pytest.mark.parametrize("content", [None, b"", b"no network"])
def test_predict_py_names_a_network_that_is_gone_or_damaged(content: bytes | None, tmp_path: Path) -> None:
    run = saved(tmp_path / "run")
    (run / "model.onnx").unlink() if content is None else (run / "model.onnx").write_bytes(content)
    words = [sys.executable, run / "predict.py", tmp_path / "a.png"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "model.onnx: not the network that was written here (" in ran.stderr


def test_predict_py_answers_on_a_console_that_lacks_letters(tmp_path: Path) -> None:
    run = saved(tmp_path)
    Image.new("RGB", (16, 12), "red").save(tmp_path / "a.png")
    words = [sys.executable, run / "predict.py", tmp_path / "a.png"]
    ran = subprocess.run(
        words, capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    )
    assert json.loads(ran.stdout)["class"] in ("cat", "赤")


# --- archives --------------------------------------------------------------------------------------------------------

HARMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "not a number": lambda t: torch.full_like(t, float("nan")),
    "infinite": lambda t: torch.full_like(t, float("inf")),
    "another type": lambda t: t.double(),
    "whole numbers": lambda t: t.to(torch.int32),
    "a little": lambda t: t + 1e-3,
    "below zero": lambda t: -t.abs() - 1,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("part", ["weight", "running_var", "bias"])
def test_every_change_of_a_tensor_is_noticed(harm: str, part: str, tmp_path: Path) -> None:
    papers = papers_of(3)
    save_fabric(tmp_path, Fabric(papers.graph), papers)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith(part))
    save_file(tensors | {name: HARMS[harm](tensors[name])}, tmp_path / "model.safetensors")
    with pytest.raises(ArchiveError, match=r"Nothing was loaded"):
        load_fabric(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"channels": 4', '"channels": 20000'),
        ('"size": [', '"size": [1000000, 1000000], "x": ['),
        ('"std": [\n', '"std": [0, '),
        ('"name": "head"', '"name": "forward"'),
        ('"name": "head"', '"name": "a.b"'),
        ('"layer": 0', '"layer": ' + "9" * 5000),
        ("{\n", "[" * 100_000),
    ],
    ids=["channels", "size", "std", "forward", "dots", "digits", "depth"],
)
def test_a_graph_that_asks_for_too_much_is_refused_at_once(before: str, after: str, tmp_path: Path) -> None:
    papers = papers_of(3)
    save_fabric(tmp_path, Fabric(papers.graph), papers)
    text = (tmp_path / "graph.json").read_text()
    assert before in text
    (tmp_path / "graph.json").write_text(text.replace(before, after, 1))
    with pytest.raises(ConvfabricError):
        load_fabric(tmp_path)


def test_files_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ArchiveError, match=r"graph\.json: not in UTF-8"):
        text_of(tmp_path / "graph.json")


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "1: 2", "a: {b: c}", "? [x]\n: y", "data: digits\nsize: ²x²", "data: d\nfinetune: .inf"]
)
def test_odd_settings_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConvfabricError):
        job_from(read_config(tmp_path / "config.yaml"))


# --- folders of runs -------------------------------------------------------------------------------------------------


def test_a_run_folder_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ArchiveError, match="another convfabric is at work in it"), held(tmp_path):
            pass
    with held(tmp_path):
        pass


def test_what_killed_processes_left_is_swept_and_is_no_run(tmp_path: Path) -> None:
    left = [tmp_path / ".config.yaml.123.draft", tmp_path / "cut" / ".model.7.draft.onnx"]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
    (tmp_path / "cut").rename(tmp_path.parent / "away")
    assert not holds_something(tmp_path)
    (tmp_path.parent / "away").rename(tmp_path / "cut")
    with held(tmp_path):
        assert not any(file.exists() for file in left)
    (tmp_path / "cut").rmdir()
    begin(tmp_path, job_from({"data": "digits"}))
    assert (tmp_path / "config.yaml").is_file()


def test_other_images_are_refused_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path / "run", job_from({"data": "digits"}))
    update_record(tmp_path / "run", data=replace(data_record(open_data("digits")), digest="another"))
    monkeypatch.setattr("convfabric.pipeline.cutters.surveyed", None)
    with pytest.raises(DataError, match=r"digits: not what the fabric in .* was trained on: other images"):
        fit("digits", tmp_path / "run", resume=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArchiveError, match="cannot be written in"), held(tmp_path / "file" / "run"):
        pass


# --- results that mean nothing ---------------------------------------------------------------------------------------


class Always(torch.nn.Module):
    """Answers one class whatever it sees."""

    def __init__(self, classes: int, answer: int, maps: bool) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(answer), classes).float())
        self.maps = maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.logits.expand(len(images), -1)
        return logits[..., None, None].expand(-1, -1, *images.shape[2:]) if self.maps else logits


@pytest.mark.parametrize("maps", [False, True])
def test_a_network_that_learned_nothing_is_doubted(maps: bool) -> None:
    images, labels = torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.tensor([0] * 14 + [1] * 6)
    targets = labels[:, None, None].expand(-1, 4, 4).to(torch.uint8) if maps else labels
    pixels = Preprocessing(size=(4, 4), channels=1, fitting="cover", mean=(0.5,), std=(0.5,))
    data = ImageSet(
        name="a",
        task="segmentation" if maps else "classification",
        classes=("plain", "crack"),
        preprocessing=pixels,
        splits={"val": HeldSplit(images, targets)},
    )
    found = score(Always(2, 0, maps), data, "val")
    assert (found.accuracy, found.largest, found.recall) == (0.7, 0.7, (1.0, 0.0))
    error = "" if maps else "standard error 9.62 %, "
    assert said_beside(found) == f"{error}balanced 50.00 %, the most frequent class alone 70.00 %"
    first, second = doubts(found, data.classes)
    assert "70.00% right is not surely above 70.00%" in first
    assert second == "class crack is never answered"
