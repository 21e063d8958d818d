"""Networks with several exits: thresholds, stopping for real, files for each exit."""

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from convfabric.choice import Budget, choose
from convfabric.cli.commands import app
from convfabric.cutting.surgery import extract
from convfabric.data.opening import DataOptions, open_data
from convfabric.errors import ExportError, GraphError, SettingError
from convfabric.evaluation.early_exit import answer_early, confidences, exit_macs, exits_of
from convfabric.evaluation.exit_thresholds import (
    ALWAYS,
    NEVER,
    Confidences,
    budgeted,
    exit_shares,
    stop_at,
    taken_exits,
    thresholds,
)
from convfabric.exporting.exit_files import export_stages, stages
from convfabric.fabric.archive import load_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Step
from convfabric.graph.costs import costs
from convfabric.pipeline.evaluate import evaluate, predictor
from convfabric.pipeline.fit import fit
from convfabric.runs.record import read_record
from convfabric.training.losses import loss, summed_loss
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave

SMALL = {"exits": 3, "base": 2, "step": 1, "channels": 4, "growth": 4, "hidden": 6, "factors": (1, 2)}


def small_fabric() -> Fabric:
    torch.manual_seed(0)
    return Fabric(weave("msdnet", **SMALL)).eval()  # type: ignore[arg-type]


def thresholds_by_hand(confidences_kn: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """The same rule, image by image, as the paper's authors walk it."""
    count = confidences_kn.shape[1]
    out, found = np.zeros(count, bool), []
    for row, share in zip(confidences_kn[:-1], shares[:-1], strict=True):
        limit, seen = 1e8, 0
        for image in np.argsort(-row, kind="stable"):
            if not out[image]:
                seen += 1
                if seen == int(np.floor(count * share)):
                    limit = row[image]
                    break
        found.append(limit)
        out |= row >= limit
    return [*found, -1e8]


@pytest.mark.parametrize("p", [0.05, 0.6, 1.0, 1.95])
def test_thresholds_are_those_of_the_rule_walked_by_hand(p: float) -> None:
    dice = np.random.default_rng(0)
    seen = dice.uniform(0.1, 1.0, (5, 203))
    shares = exit_shares(p, 5)
    wanted = [{1e8: NEVER, -1e8: ALWAYS}.get(limit, limit) for limit in thresholds_by_hand(seen, shares)]
    assert thresholds(seen, shares) == pytest.approx(wanted)
    taken = taken_exits(seen, thresholds(seen, shares))
    for exit_, share in enumerate(shares[:-1]):
        assert (taken == exit_).sum() == int(203 * share)


def test_an_exit_that_is_to_take_no_one_takes_no_one() -> None:
    limits = thresholds(np.full((3, 10), 0.9), (0.0, 0.5, 0.5))
    assert limits[0] == NEVER
    assert not (taken_exits(np.full((3, 10), 0.99), limits) == 0).any()


def test_what_stopping_costs_is_the_mean_of_where_images_left() -> None:
    seen = Confidences(
        largest_KN=np.array([[0.9, 0.2, 0.3], [0.9, 0.9, 0.9]]), right_KN=np.array([[1, 0, 0], [0, 1, 0]], bool)
    )
    stop = stop_at(seen, (0.8, ALWAYS), (10, 40))
    assert stop.macs == pytest.approx((10 + 40 + 40) / 3)
    assert stop.accuracy == pytest.approx(2 / 3)
    assert len(budgeted(seen, seen, (10, 40))) == 39


def test_each_image_gets_the_logits_of_the_exit_it_leaves_at() -> None:
    fabric = small_fabric()
    images = torch.randn(16, 3, 32, 32)
    with torch.no_grad():
        every = fabric.forward_exits(images)
    limits = [float(logits.softmax(1).amax(1).median()) for logits in every]
    found = answer_early(fabric, images, limits)
    sure = np.stack([logits.softmax(1).amax(1).numpy() for logits in every])
    wanted = taken_exits(sure, (*limits[:-1], ALWAYS))
    assert found.exits_B.tolist() == wanted.tolist()
    assert len(set(wanted.tolist())) == 3
    for image, exit_ in enumerate(wanted):
        torch.testing.assert_close(found.logits_BK[image], every[exit_][image], atol=1e-5, rtol=1e-4)


def test_work_behind_the_exit_taken_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = small_fabric()
    seen: list[tuple[str, int]] = []
    usual = Fabric.respond

    def counted(self: Fabric, step: Step, responses: Any, images: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append((str(step.place), len(images)))
        return usual(self, step, responses, images, *others)

    monkeypatch.setattr(Fabric, "respond", counted)
    images = torch.randn(4, 3, 32, 32)
    answer_early(fabric, images, (-1.0, 2.0, 2.0))
    first = {str(node.place) for node in fabric.graph.until(1).nodes}
    assert {place for place, _ in seen} == first
    seen.clear()
    sure = fabric.forward_exits(images)[0].detach().softmax(1).amax(1)
    seen.clear()
    answer_early(fabric, images, (float(sure.max()), 2.0, 2.0))
    assert {count for place, count in seen if place not in first} == {3}, "who left is taken out of the batch"


def test_the_network_cut_at_an_exit_is_what_stopping_there_runs() -> None:
    fabric, image = small_fabric(), (32, 32)
    macs = exit_macs(fabric.graph, image)
    assert macs == sorted(macs)
    assert macs[-1] == costs(fabric.graph, image).macs
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        cut = extract(fabric, fabric.graph.until(1))
        torch.testing.assert_close(cut(images), fabric.forward_exits(images)[0])
    with pytest.raises(GraphError, match="has 3 exits; 4 were asked for"):
        fabric.graph.until(4)


def test_training_adds_the_losses_of_all_exits() -> None:
    logits, targets = [torch.randn(4, 5) for _ in range(3)], torch.arange(4)
    recipe = Recipe()
    wanted = sum(loss(each, targets, recipe, 255) for each in logits)
    torch.testing.assert_close(summed_loss(logits, targets, recipe, 255), wanted)


def test_stages_part_the_walk_behind_each_exit() -> None:
    fabric = small_fabric()
    parts = stages(fabric.graph)
    assert [step.place for steps, _, _ in parts for step in steps] == list(fabric.graph.order)
    assert all(left == taken for (_, _, left), (_, taken, _) in pairwise(parts))
    assert parts[0][1] == parts[-1][2] == ()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    numbers = {**SMALL, "exits": 2}
    fit("digits", folder, network="msdnet", size="16x16", epochs=2, finetune=0, accelerator="cpu", **numbers)
    return folder


def test_a_run_with_exits_has_a_file_for_each_and_says_what_each_gives(run: Path) -> None:
    exits = read_record(run).exits
    assert exits is not None
    assert [exit_.name for exit_ in exits.each] == ["exit1", "exit2"]
    assert {file.name for file in run.glob("exit-*.onnx")} == {"exit-1.onnx", "exit-2.onnx"}
    assert "Exits" in (run / "report.html").read_text()
    found = evaluate(run)
    assert found.exits is not None
    assert found.exits.each[-1].score == pytest.approx(found.score.accuracy)


def test_predict_py_stops_by_confidence_and_answers_like_the_network(run: Path, tmp_path: Path) -> None:
    fabric, papers = load_fabric(run)
    data = open_data("digits", DataOptions(size=(16, 16)))
    images, _ = next(data.splits["test"].batches([list(range(24))]))
    names = []
    for number, image in enumerate(images):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image[0].numpy()).save(names[-1])
    found = subprocess.run(
        [sys.executable, str(run / "predict.py"), *names], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    said = [json.loads(line) for line in found.stdout.splitlines()]
    exits = read_record(run).exits
    assert exits is not None
    assert exits.recommended is not None
    limits = exits.recommended.limits
    wanted = answer_early(fabric, papers.preprocessing.normalised(images), limits)
    assert [line["exit"] - 1 for line in said] == wanted.exits_B.tolist()
    guesses = [papers.classes[guess] for guess in wanted.logits_BK.argmax(1).tolist()]
    assert [line["class"] for line in said] == guesses


def test_exit_files_that_answer_otherwise_are_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabric, papers = load_fabric(run)
    data = open_data("digits", DataOptions(size=(16, 16)))
    monkeypatch.setattr("convfabric.exporting.formats.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match=r"exit-1\.onnx answers unlike the network"):
        export_stages(fabric, papers, data, tmp_path, (0.5, 0.0))
    assert list(tmp_path.iterdir()) == []


def test_predict_answers_as_predict_py_does(run: Path, tmp_path: Path) -> None:
    data, files = open_data("digits", DataOptions(size=(16, 16))), []
    images, _ = next(data.splits["test"].batches([list(range(12))]))
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    words = [sys.executable, str(run / "predict.py"), *map(str, files)]
    found = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    for line, ours in zip(map(json.loads, found), map(predictor(run), files), strict=True):
        assert (line["class"], line["exit"]) == (ours["class"], ours["exit"])
        assert line["probability"] == pytest.approx(ours["probability"], abs=1e-4)


def test_predict_py_says_when_an_exit_is_missing(run: Path, tmp_path: Path) -> None:
    for name in ("predict.py", "exit-1.onnx"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    Image.new("L", (16, 16)).save(tmp_path / "x.png")
    words = [sys.executable, str(tmp_path / "predict.py"), "x.png"]
    found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode != 0
    assert "exit-1.onnx to exit-2.onnx belong together" in found.stderr


def test_an_extract_that_is_refused_leaves_the_exported_files(run: Path) -> None:
    before = sorted(file.name for file in run.iterdir())
    result = CliRunner().invoke(app, ["extract", str(run), "--macs", "1%"])
    assert result.exit_code == 3
    assert sorted(file.name for file in run.iterdir()) == before


@pytest.mark.parametrize(
    ("limits", "said"), [((0.5,), "a threshold for each of the 3 exits"), (0.5, "a threshold for each")]
)
def test_thresholds_that_do_not_fit_are_refused(limits: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        answer_early(small_fabric(), torch.zeros(1, 3, 32, 32), limits)
    with pytest.raises(SettingError, match="in evaluation mode"):
        answer_early(small_fabric().train(), torch.zeros(1, 3, 32, 32), (0.5, 0.5, 0.5))


def test_a_cut_keeps_exits_while_the_budget_can_be_met_with_all_of_them() -> None:
    graph = weave("msdnet", **SMALL)  # type: ignore[arg-type]
    worth = {edge.name: random.Random(edge.name).random() for edge in graph.edges}
    for share, exits in (("70%", 3), ("50%", 3)):
        assert len(choose(graph, worth, Budget(macs=share), (32, 32)).heads) == exits


def test_confidences_are_those_of_the_exits(run: Path) -> None:
    fabric, _ = load_fabric(run)
    data = open_data("digits", DataOptions(size=(16, 16)))
    seen = confidences(fabric, data, "test")
    assert seen.largest_KN.shape == seen.right_KN.shape == (2, len(data.splits["test"]))
    exits = exits_of(fabric, data, "test")
    assert exits.each[0].score == pytest.approx(float(seen.right_KN[0].mean()))
