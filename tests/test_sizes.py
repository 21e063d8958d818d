"""What a budget chooses where nothing is said: the fabric, its images and its epochs."""

import itertools
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from convfabric import import_network
from convfabric.choice import Budget
from convfabric.data.opening import open_data
from convfabric.errors import SettingError
from convfabric.fabric.archive import load_fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.operators import Size
from convfabric.pipeline import minutes, sizes
from convfabric.pipeline.cutters import Surveys
from convfabric.pipeline.fit import fit
from convfabric.pipeline.inputs import opened, woven
from convfabric.progress import Listener
from convfabric.runs.job import job_from, read_config
from convfabric.training.objectives import sizes_of
from convfabric.training.recipe import Recipe
from convfabric.weavers import AUTO, Purpose, Source, ladder, weave
from folders import class_folders, mask_folders, picture
from test_pipeline import TINY, done, finished, run

SIDES = (8, 32, 64, 224)


def macs(numbers: Any, side: int) -> float:
    return costs(Source(network="trellis", numbers=vars(numbers)).woven(Purpose(size=(side, side))), (side, side)).macs


@pytest.mark.parametrize("side", SIDES)
def test_each_rung_costs_more_than_the_one_before_and_at_most_two_and_a_half_times_it(side: int) -> None:
    rungs = [macs(rung, side) for rung in ladder((side, side))[1:]]
    assert all(1.2 < after / before < 2.5 for before, after in itertools.pairwise(rungs))


def timed_by_macs(job: Any, graph: Graph, size: Size) -> float:
    """Milliseconds of a machine that is as fast at everything."""
    return costs(graph, size).macs / 50e6


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for at, name in enumerate(("one", "two")):
        for number in range(12):
            picture(tmp_path / "photographs" / name / f"{number}.jpg", size=(240, 224), seed=100 * at + number)
    return tmp_path / "photographs"


@pytest.mark.parametrize("allowed", [0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0])
def test_the_whole_takes_one_to_three_times_the_budget_whatever_that_is(
    allowed: float, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_time", timed_by_macs)
    said = list[str]()
    job = sizes.sized(job_from({"data": str(photographs), "latency_ms": allowed}), said.append)
    data = opened(job)
    times = timed_by_macs(job, woven(job, data), data.preprocessing.size) / allowed
    assert 1 < times <= sizes.MOST
    side = data.preprocessing.size[0]
    assert f"for images of {side}×{side} pixels takes {times * allowed:.3g} ms, {times:.2g} times the budget" in said[0]
    assert (side == 224) == (allowed > 0.6)
    assert "the next larger" in said[0]


def test_what_is_said_stays_and_the_rest_is_chosen(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_time", timed_by_macs)

    def chosen(**said: object) -> Any:
        return sizes.sized(job_from({"data": str(photographs), "latency_ms": 0.3, **said}), lambda text: None)

    assert chosen(size="224x224").options.size == (224, 224)
    assert chosen(layers=4).numbers["layers"] == 4
    assert chosen(prior="low-rank").numbers["prior"] == "low-rank"
    assert chosen(latency_ms=5, macs=1e6).numbers == chosen(latency_ms=None, macs=1e6).numbers
    for untouched in ({"latency_ms": "30%"}, {"latency_ms": None}, {"network": "fabric-small"}, {"network": "unet"}):
        job = job_from({"data": str(photographs), "latency_ms": 0.3, **untouched})
        assert sizes.sized(job, pytest.fail) == job


def test_images_of_masks_and_those_that_are_open_stay_as_they_are(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_time", timed_by_macs)
    masks = sizes.sized(job_from({"data": str(mask_folders(tmp_path / "m")), "latency_ms": 1e-3}), lambda text: None)
    assert masks.options.size is None
    small = job_from({"data": str(photographs), "latency_ms": 0.05})
    assert sizes.sized(small, lambda text: None).options.size == (96, 96)
    assert sizes.sized(small, lambda text: None, opened(small)).options.size is None


def test_minutes_take_epochs_and_a_smaller_fabric_before_more_than_half_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = job_from({"data": "digits", "macs": 4e6, "minutes": 24})
    data, said = open_data("digits"), list[str]()
    monkeypatch.setattr(minutes, "_minutes", lambda job, data: costs(woven(job, data), (8, 8)).macs / 1e5)
    job = sizes.sized(asked, said.append)
    usual = job.recipe.fitted(len(data.splits["train"]), data.task).epochs
    paced = minutes.paced(job, data, said.append, asked)
    assert paced.numbers["channels"] < job.numbers["channels"]
    assert 3 * costs(woven(paced, data), (8, 8)).macs >= costs(woven(job, data), (8, 8)).macs
    assert 0.5 * usual <= paced.recipe.epochs < usual
    assert "a smaller fabric is trained" in said[-1]
    named = job_from({"data": "digits", "network": "fabric-small", "minutes": 3})
    paced = minutes.paced(named, data, said.append, named)
    assert paced.numbers == named.numbers
    assert 1 <= paced.recipe.epochs < 0.5 * usual
    plenty = job_from({"data": "digits", "minutes": 1000})
    assert minutes.paced(plenty, data, pytest.fail, plenty).recipe.epochs == usual


def test_a_run_keeps_what_was_chosen_and_goes_on_with_it(tmp_path: Path) -> None:
    words = ["fit", "digits", "--macs", "0.3e6", "--epochs", 1, "--out", tmp_path / "run", "--set", "trials=4"]
    words = [*words, "--minutes", 20]
    done(words)
    config, before = read_config(tmp_path / "run" / "config.yaml"), finished(tmp_path / "run")
    assert (config["network"], config["doubling"], config["subnetworks"]) == ("trellis", True, 0)
    assert before.network.macs <= 0.3e6 < before.fabric.macs
    done([*words, "--resume"])
    fit("digits", tmp_path / "run", resume=True, macs=0.3e6, epochs=1, trials=4, minutes=20)
    assert run([*words, "--resume", "--network", "fabric-tiny"]).exit_code
    done(["extract", tmp_path / "run", "--macs", "0.2e6"])


def test_training_alone_takes_no_more_epochs_than_its_minutes_bear(tmp_path: Path) -> None:
    words = ["train", "digits", "--network", "fabric-tiny", "--set", "minutes=0.0001", "--out", tmp_path / "run"]
    done(words)
    done([*words, "--resume"])
    assert read_config(tmp_path / "run" / "config.yaml")["epochs"] == 1


def test_several_seeds_share_what_was_chosen_and_say_how_far_they_are_apart(tmp_path: Path) -> None:
    words = ["fit", "digits", "--macs", "0.3e6", "--epochs", 1, "--out", tmp_path, "--set", "trials=4", "--seeds", 2]
    said = done(words)
    runs = [tmp_path / "seed-0", tmp_path / "seed-1"]
    configs = [read_config(folder / "config.yaml") for folder in runs]
    assert [config.pop("seed") for config in configs] == [0, 1]
    assert configs[0] == configs[1]
    shares = [100 * finished(folder).network.score.headline for folder in runs]
    mean, spread = sum(shares) / 2, abs(shares[0] - shares[1]) / 2**0.5
    assert f"2 seeds: {mean:.2f} % in the mean, standard deviation {spread:.2f}; best on validation images: " in said
    assert done([*words, "--resume", "--json"]).count('"budget_met": true') == 2
    assert "is one run" in run(["fit", "digits", "--out", runs[0], "--seeds", 2]).output


def test_without_a_budget_it_is_the_usual_fabric(tmp_path: Path) -> None:
    images = str(class_folders(tmp_path))
    job = job_from({"data": images})
    assert job.source.network == AUTO
    [usual] = (rung for rung in ladder((12, 16)) if rung.channels == 16)
    assert woven(job, opened(job)).edges == weave("trellis", size=(12, 16), classes=2, **vars(usual)).edges


def sized_job(folder: Path, **settings: Any) -> Any:
    shared = {"data": str(folder), "network": "fabric-tiny", "subnetworks": 2, "epochs": 1, "sizes": [0.5, 0.75]}
    return job_from({**shared, "size": "32x32", **settings})


def test_a_network_is_cut_for_the_size_of_images_at_which_it_answers_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "data", images=12)
    best = (16, 16)
    monkeypatch.setattr("convfabric.pipeline.tuning.surely_less", lambda other, best_so_far: bool(other[0] == 0))
    tell = lambda network, data, split: torch.full((3,), float(data.preprocessing.size != best))  # noqa: E731
    monkeypatch.setattr("convfabric.pipeline.tuning.image_losses", tell)
    words = ["fit", tmp_path / "data", *TINY, "--size", 32, "--epochs", 1, "--macs", "15%"]
    words += ["--set", "sizes=[0.5, 0.75]", "--set", "subnetworks=2", "--set", "trials=4", "--out", tmp_path / "run"]
    done(words)
    record, (network, papers) = finished(tmp_path / "run"), load_fabric(tmp_path / "run")
    assert papers.preprocessing.size == record.network.size == best
    assert record.data.size == (32, 32)
    assert record.network.macs == costs(network.graph, best).macs <= 0.15 * record.fabric.macs
    assert "Images are 3×16×16" in (tmp_path / "run" / "report.html").read_text()
    wanted = onnx.load(tmp_path / "run" / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in wanted[2:]] == [16, 16]
    for again in (["export"], ["evaluate"]):
        done([*again, tmp_path / "run"])
    done([*words, "--resume"])
    again = finished(tmp_path / "run").network
    assert (again.score, again.size) == (record.network.score, best)


def test_sizes_are_in_question_between_too_little_left_and_all_within_the_budget(tmp_path: Path) -> None:
    class_folders(tmp_path, images=12)
    job = sized_job(tmp_path)
    data = opened(job)
    found = Surveys(woven(job, data), job, data, Listener(say=lambda text: None), [Budget()])
    whole = costs(found.graph, (32, 32)).macs
    asked = {share: found.in_question(Budget(macs=share * whole)) for share in (1.0, 0.8, 0.4, 0.16, 0.05)}
    sizes_for = {share: [form.size for form in forms] for share, forms in asked.items()}
    assert sizes_for == {
        1.0: [(32, 32)],
        0.8: [(32, 32), (24, 24)],
        0.4: [(32, 32), (24, 24), (16, 16)],
        0.16: [(24, 24), (16, 16)],
        0.05: [(16, 16)],
    }


def test_sizes_that_nothing_reads_are_refused() -> None:
    image, flat = (32, 32), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    with pytest.raises(SettingError, match="sub-networks read them"):
        Recipe(sizes=(0.5,))
    with pytest.raises(SettingError, match="above 0 and below 1"):
        Recipe(sizes=(0.5, 1.5), subnetworks=1)
    recipe = Recipe(sizes=(0.5,), subnetworks=1)
    with pytest.raises(SettingError, match="masks are as large as their images"):
        sizes_of(weave("unet", task="segmentation"), recipe, image)
    with pytest.raises(SettingError, match="images of 16×16: "):
        sizes_of(import_network(flat, size=image).graph, recipe, image)
