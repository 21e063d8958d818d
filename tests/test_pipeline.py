"""The whole job on small data, through the command line, and what it leaves in the run folder."""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from convfabric.cli.commands import app
from convfabric.data.opening import open_data
from convfabric.errors import ArchiveError, ExportError
from convfabric.exporting import program as programs
from convfabric.exporting.exporter import export
from convfabric.fabric.archive import load_fabric
from convfabric.pipeline.tried import read_tried
from convfabric.runs.record import read_record
from folders import class_folders, mask_folders
from traced_files import files_are_traced

RUN_FILES = (
    *("config.yaml", "environment.json", "metrics.csv", "record.json", "report.html", "graph.json"),
    *(
        "fabric/graph.json",
        "fabric/model.safetensors",
        "cut/graph.json",
        "model.safetensors",
        "model.onnx",
        "model.pt2",
        "predict.py",
    ),
)


TINY = ("--network", "fabric-tiny", "--set", "layers=2", "--set", "scales=2")


def run(words: Sequence[object]) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(words: Sequence[object]) -> str:
    result = run(words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    words = ["fit", "digits", *TINY, "--macs", "30%", "--epochs", 4, "--out", folder]
    done([*words, "--set", "trials=16"])
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    data = mask_folders(folder / "data")
    words = ["fit", data, *TINY, "--params", "60%", "--epochs", 2, "--out", folder / "run"]
    with files_are_traced():
        done([*words, "--set", "trials=8"])
    return folder / "run"


def finished(folder: Path) -> Any:
    """The record of a run, of whose parts a test knows that they are there."""
    return read_record(folder)


def test_fit_leaves_every_file_and_meets_its_budget(digits: Path) -> None:
    assert [name for name in RUN_FILES if not (digits / name).is_file()] == []
    record = finished(digits)
    assert record.network.macs <= 0.3 * record.fabric.macs
    assert record.exported.latency.median_ms > 0
    assert record.cut.predicted_ms > 0
    whole = load_fabric(digits / "fabric")[0].graph
    assert set(record.cut.worth) == whole.edge_names
    assert set(record.cut.edge_ms) == load_fabric(digits)[0].graph.edge_names
    assert len(read_tried([digits], whole)) >= 16
    (digits / "tried.json").write_text("[[1, 2, 3]]")
    with pytest.raises(ArchiveError, match=r"tried.json: damaged"):
        read_tried([digits], whole)


def test_fit_works_for_masks_as_well(masks: Path) -> None:
    assert finished(masks).network.score.miou is not None


def test_the_page_opens_offline_and_shows_everything(digits: Path, masks: Path) -> None:
    for page in ((digits / "report.html").read_text(), (masks / "report.html").read_text()):
        assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
        assert page.count("<svg") >= 2
        for word in (
            "after pruning",
            "after batch-norm recalibration",
            "fine-tuned",
            "✓ met",
            "MACs per image",
            "Predicted",
            "measured",
        ):
            assert word in page
    page = (digits / "report.html").read_text()
    errors = int(re.search(r"(\d+) errors on test", page).group(1))  # type: ignore[union-attr]
    assert page.count("<figure data-truth=") == errors
    assert sum(map(int, re.findall(r'aria-label="\d taken for \d: (\d+) image', page))) == errors
    assert "Time by operation" in page
    assert "IoU, network" in (masks / "report.html").read_text()


def test_a_config_loads_back_and_gives_the_same_run(digits: Path, tmp_path: Path) -> None:
    [said] = re.findall(r"<pre>convfabric fit (.*?)</pre>", (digits / "report.html").read_text("utf-8"))
    words = shlex.split(html.unescape(said))
    done(["train", *words[: words.index("--out")], "--out", tmp_path / "again"])
    before = (digits / "fabric" / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "fabric" / "model.safetensors").read_bytes() == before


def test_a_finished_run_can_be_resumed_and_stays_as_it_was(digits: Path) -> None:
    before = (digits / "model.safetensors").read_bytes()
    done(["fit", "digits", "--out", digits, "--resume"])
    assert (digits / "model.safetensors").read_bytes() == before


def test_the_steps_by_themselves_go_on_from_a_run(digits: Path) -> None:
    result = run(["extract", digits, "--params", "50%", "--set", "finetune=0.25", "--set", "trials=20", "--json"])
    assert json.loads(result.stdout)["parameters"] <= 0.5 * finished(digits).fabric.parameters
    assert "trying 20 sub-networks on 134 validation images" in result.stderr
    told = re.findall(r"(\d+) of 20 sub-networks tried, about [\d.]+ (?:seconds?|minutes) left", result.stderr)
    assert told == ["5", "10"]
    assert not (digits / "model.onnx").exists(), "a file of another network would have been left"
    assert "not exported yet" in refusal(["report", digits])
    assert "next: convfabric report" in done(["export", digits])
    assert "report.html" in done(["report", digits])
    score = json.loads(done(["evaluate", digits, "--json"]))
    assert score["accuracy"] == finished(digits).network.score.accuracy


STANDALONE = """
import sys

class Blocked:
    allowed = {"numpy", "PIL", "onnxruntime", "flatbuffers", "google", "coloredlogs", "sympy", "mpmath", "packaging"}

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("torch", "torchvision", "convfabric", "onnx", "sklearn", "safetensors", "accelerate"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Blocked())
import runpy
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""


def standalone(script: Path, images: Sequence[Path]) -> list[dict[str, str]]:
    words = [sys.executable, "-c", STANDALONE, str(script), *map(str, images)]
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_predict_py_needs_none_of_ours_and_answers_like_the_network(digits: Path, tmp_path: Path) -> None:
    data = open_data("digits")
    images, labels = next(data.splits["test"].batches([list(range(len(data.splits["test"])))]))
    files = []
    for i, image in enumerate(images):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    answers = standalone(digits / "predict.py", files)
    network, papers = load_fabric(digits)
    with torch.no_grad():
        odds = network(papers.preprocessing.normalised(images)).softmax(1)
    assert [a["class"] for a in answers] == [papers.classes[i] for i in odds.argmax(1)]
    np.testing.assert_allclose([a["probability"] for a in answers], odds.max(1).values.numpy(), atol=1e-4)
    # The last of six decimals depends on the processor's kernels.
    for line, answer in zip(done(["predict", digits, *files[:3]]).splitlines(), answers, strict=False):
        assert json.loads(line) == answer | {"probability": pytest.approx(answer["probability"], abs=2e-6)}
    assert len(labels) == len(answers)
    helped = subprocess.run(
        [sys.executable, digits / "predict.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "python predict.py IMAGE" in helped.stdout
    (tmp_path / "torn.png").write_bytes(files[0].read_bytes()[:60])
    result = run(["predict", digits, tmp_path / "torn.png", files[0]])
    assert result.exit_code == 1
    assert "torn.png" in result.stderr
    assert json.loads(result.stdout)["class"] == answers[0]["class"]


WITHOUT_PILLOW = """
import runpy, sys

sys.modules["PIL"], sys.argv = None, sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_predict_py_takes_arrays_and_folders_and_refuses_the_wrong_range(digits: Path, tmp_path: Path) -> None:
    [[image]], _ = next(open_data("digits").splits["test"].batches([[0]]))
    pixels = image.numpy()
    (tmp_path / "several").mkdir()
    Image.fromarray(pixels).save(tmp_path / "several" / "a.png")
    np.save(tmp_path / "several" / "b.npy", pixels)
    np.save(tmp_path / "several" / "c.npy", pixels[..., None].astype(np.float64))
    (tmp_path / "several" / "d.raw").write_bytes(pixels.tobytes())
    (tmp_path / "several" / "notes.txt").write_text("not an image")
    words = [sys.executable, digits / "predict.py", tmp_path / "several", "--top", 3, "--time", "--threads", 1]
    said = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True).stdout
    found = [json.loads(line) for line in said.splitlines()]
    assert len(found) == 4
    assert len({one["probability"] for one in found}) == 1
    assert all(one["ms"] > 0 and len(one["top"]) == 3 for one in found)
    assert found[0]["top"][0] == [found[0]["class"], found[0]["probability"]]
    wrong = {
        "shares.npy": (pixels / 255, "pixels from 0 to 255 are wanted, normalisation is inside"),
        "below.npy": (pixels - 300.0, "beyond 0 to 255"),
        "colours.npy": (np.zeros((8, 8, 3), np.uint8), r"(height, width, 1) is wanted"),
        "words.npy": (np.array(["a"]), "is wanted"),
    }
    for name, (array, _) in wrong.items():
        np.save(tmp_path / name, array)
    (tmp_path / "short.raw").write_bytes(b"12")
    bare = [sys.executable, "-c", WITHOUT_PILLOW, digits / "predict.py", tmp_path / "several" / "b.npy"]
    bare += [*(tmp_path / name for name in wrong), tmp_path / "short.raw", tmp_path / "several" / "a.png"]
    result = subprocess.run(list(map(str, bare)), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert json.loads(result.stdout)["class"] == found[0]["class"]
    lines = result.stderr.splitlines()
    texts = [*(text for _, text in wrong.values()), "2 bytes; 8×8×1", "image files need Pillow"]
    assert len(lines) == len(texts)
    assert all(
        text.encode("ascii", "backslashreplace").decode() in line for text, line in zip(texts, lines, strict=True)
    )


def test_predict_py_writes_masks_into_the_present_folder_and_overwrites_none(
    masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "größe ☂.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(file)
    first, second = (standalone(masks / "predict.py", [file])[0]["mask"] for _ in range(2))
    assert first != second
    a, b = np.asarray(Image.open(first)), np.asarray(Image.open(second))
    assert a.shape == (40, 50)
    assert (a == b).all()
    ours = json.loads(done(["predict", masks, file]))["mask"]
    assert (np.asarray(Image.open(ours)) == a).all()


def test_an_exported_file_that_answers_otherwise_is_not_kept(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, papers = load_fabric(digits)

    class Skewed(programs.Deployable):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + 0.01

    monkeypatch.setattr(programs, "Deployable", Skewed)
    (tmp_path / "model.onnx").write_text("the one before")
    with pytest.raises(ExportError, match=r"model\.onnx answers unlike the network: logits are up to 1\.0\de-02 apart"):
        export(network, papers, open_data("digits"), tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("model.onnx", "the one before")]


# --- refusals --------------------------------------------------------------------------------------------------------


def refusal(words: Sequence[object], code: int = 1) -> str:
    result = run(words)
    assert result.exit_code == code, result.output
    return result.stderr


def test_a_run_that_is_there_is_not_overwritten(digits: Path) -> None:
    before = (digits / "model.onnx").read_bytes()
    assert "use --resume to continue it or --force" in refusal(["fit", "digits", "--out", digits])
    assert (digits / "model.onnx").read_bytes() == before


def test_a_run_is_not_resumed_with_other_settings(digits: Path, tmp_path: Path) -> None:
    said = refusal(["fit", "digits", "--out", digits, "--resume", "--macs", "50%"])
    assert "begun with macs=30%, now macs=50%" in said
    assert f"convfabric extract {digits} cuts it to another budget" in " ".join(said.split())
    shutil.copytree(digits, run := tmp_path / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "channels: 8\n")
    assert "not trained with" in refusal(["fit", "digits", "--out", run, "--resume"])


def test_a_budget_below_the_cheapest_route_ends_with_its_own_code(digits: Path) -> None:
    said = refusal(["extract", digits, "--macs", "1000"], code=3)
    assert re.search(
        r"no sub-network fits 1000 MACs per image: the smallest, \d+ edges? from L0S0 to L1S\d, takes", said
    )


def test_a_budget_of_milliseconds_below_the_quickest_route_names_what_that_was_measured_to_take(digits: Path) -> None:
    said = refusal(["extract", digits, "--latency-ms", "0.000001"], code=3)
    assert re.search(r"the smallest, \d+ edges? from L0S0 to L1S\d, takes 0\.\d+ ms, measured", said)


def test_evaluate_matches_classes_by_name(digits: Path, tmp_path: Path) -> None:
    assert "class blue is unknown; the network knows 0, 1" in refusal(["evaluate", digits, class_folders(tmp_path)])
    data = open_data("digits")
    images, labels = next(data.splits["test"].batches([list(range(40))]))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = tmp_path / "mine" / str(int(label)) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(file)
    assert "the network was trained on some or all of them" in done(["evaluate", digits, "--split", "train"])
    score = json.loads(done(["evaluate", digits, tmp_path / "mine", "--json"]))
    assert not score["trained_on"]
    assert (score["images"], score["split"]) == (40, "all")


def test_predict_names_a_file_that_is_not_there(digits: Path, tmp_path: Path) -> None:
    assert "gone.png: no such file" in refusal(["predict", digits, tmp_path / "gone.png"])


def test_a_run_given_for_images_is_named(digits: Path, tmp_path: Path) -> None:
    assert "the folder of a run, not of images; `convfabric curve`" in refusal(["fit", digits, "--out", tmp_path / "r"])
    assert not (tmp_path / "r").exists()


def test_describe_takes_a_run_a_family_and_numbers(digits: Path) -> None:
    assert json.loads(done(["describe", str(digits), "--json"]))["parameters"] == finished(digits).network.parameters
    assert json.loads(done(["describe", "trellis", "--set", "layers=9", "--json"]))["edges"] == 138
    segmenting = ["--size", "64", "--set", "task=segmentation", "--set", "classes=3", "--set", "image_channels=1"]
    facts = json.loads(done(["describe", "unet", *segmenting, "--json"]))
    assert (facts["task"], facts["classes"], facts["image"]) == ("segmentation", 3, [1, 64, 64])
    assert "a run is described as it is" in refusal(["describe", str(digits), "--set", "layers=9"])
