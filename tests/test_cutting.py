"""What is cut from a trained fabric a second time: stopped, gone on with, kept or replaced."""

import random
import re
import shutil
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convfabric.choice import Budget
from convfabric.cutting.fitness import Judge
from convfabric.cutting.strategies import by_trying
from convfabric.data.imageset import drawn
from convfabric.data.opening import open_data
from convfabric.errors import BudgetError
from convfabric.fabric.archive import load_fabric
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.measurement import Latency
from convfabric.pipeline import cutters as pipeline
from convfabric.pipeline import steps, tuning
from convfabric.pipeline.budget_curve import curve
from convfabric.pipeline.fit import fit
from convfabric.progress import Listener
from convfabric.runs.folder import begin, job_of
from convfabric.runs.record import read_record, update_record
from convfabric.runs.run import Run
from convfabric.weavers import weave
from test_pipeline import TINY, done, refusal

SMALL: dict[str, Any] = {"network": "fabric-tiny", "layers": 2, "epochs": 1, "search": "exact"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert fit("digits", folder, macs="80%", listener=Listener(say=lambda text: None), **SMALL) == Run(folder)
    return folder


def test_a_finished_run_has_its_network_files_and_figures(first: Path) -> None:
    run = Run(first)
    assert run.onnx_path.is_file()
    assert run.report_path.is_file()
    assert run.budget_met
    assert run.milliseconds > 0
    assert run.record.network
    assert run.score == run.record.network.score.headline
    assert len(run.classes) == run.network.graph.head.classes == 10
    assert not run.network.training


@pytest.fixture
def run(first: Path, tmp_path: Path) -> Path:
    return shutil.copytree(first, tmp_path / "run")


def test_a_cut_that_is_stopped_before_fine_tuning_shows_no_earlier_network_and_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*anything: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "train", stopped)
    assert "interrupted" in refusal(["extract", run, "--macs", "40%"], code=130)
    monkeypatch.undo()
    assert all("has no network yet" in refusal([command, run]) for command in ("export", "report"))
    done(["extract", run, "--macs", "40%", "--resume"])
    record: Any = read_record(run)
    assert record.network.macs <= 0.4 * record.fabric.macs


def test_what_is_interrupted_before_it_began_is_not_said_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*anything: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("convfabric.pipeline.cutters.surveyed", stopped)
    said = refusal(["fit", "digits", "--macs", "40%", "--out", tmp_path / "r"], code=130)
    assert "interrupted; nothing was begun, so type the whole command again" in said
    assert "to come: measuring, training, trying 64 sub-networks, fine-tuning" in said
    assert not (tmp_path / "r").exists()


def test_going_on_with_another_budget_is_refused_and_leaves_the_network(run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    said = refusal(["extract", run, "--macs", "40%", "--resume"])
    assert "was cut to 80% of the fabric's MACs per image, now 40% of" in said
    assert (run / "model.safetensors").read_bytes() == before


def taking(milliseconds: float) -> Latency:
    conditions = {"runs": 1, "warm_up_runs": 1, "threads": 1, "batch": 1, "size": (8, 8), "runtime": "an invented one"}
    return Latency(median_ms=milliseconds, fastest_block_ms=milliseconds, interquartile_range_ms=0.0, **conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize(("took_ms", "told"), [(0.9, False), (1.05, False), (2.0, True)])
def test_it_is_told_where_a_network_of_fewer_macs_is_slower_than_the_whole(
    took_ms: float, told: bool, run: Path
) -> None:
    said, job, fabric = list[str](), job_of(run), load_fabric(run / "fabric")[0]
    data, listener = open_data("digits"), Listener(say=said.append)
    found = pipeline.surveyed(fabric.graph, job, data, listener)
    invented = replace(found, measured=lambda graph: taking(1.0 if graph == fabric.graph else took_ms))
    pipeline.cutter_of(run, fabric, job, data, listener, invented).cut(found.resolved(Budget(macs="60%")))
    assert any("takes 2 ms, the whole fabric 1 ms: --latency-ms" in line for line in said) == told


def test_a_neighbour_s_work_is_not_taken_for_the_network_s(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, job, fabric = list[str](), job_of(run), load_fabric(run / "fabric")[0]
    data, listener = open_data("digits"), Listener(say=said.append)
    found = pipeline.surveyed(fabric.graph, job, data, listener)
    for again, smaller in ((0.9, False), (2.0, True)):
        disturbed = replace(found, measured=lambda graph: taking(2.0), again=lambda graph, ms=again: taking(ms))
        cutter = pipeline.cutter_of(run, fabric, job, data, listener, disturbed)
        monkeypatch.setattr(cutter, "search", lambda budget: fabric.graph)
        said.clear()
        with suppress(BudgetError):
            assert cutter.cut(Budget(latency_ms=1.0)).network.graph == fabric.graph
        assert any("taking a smaller network" in line for line in said) == smaller


def test_it_is_told_where_a_network_leaves_most_of_its_budget(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, job, fabric = list[str](), job_of(run), load_fabric(run / "fabric")[0]
    data, listener = open_data("digits"), Listener(say=said.append)
    cutter = pipeline.cutter_of(run, fabric, job, data, listener)
    smallest = cutter.material.survey.sampler.smallest
    for graph in (smallest, fabric.graph):
        monkeypatch.setattr(cutter, "search", lambda budget, graph=graph: graph)
        cutter.cut(cutter.material.survey.resolved(Budget(macs="100%")))
    left = [line for line in said if "MACs per image allowed: it answers best of what was found, on" in line]
    assert len(left) == 1


def test_finalists_are_within_the_budget_and_unlike_one_another(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, fabric = list[str](), load_fabric(run / "fabric")[0]
    data, listener = open_data("digits"), Listener(say=said.append)
    job = replace(job_of(run), procedure=replace(job_of(run).procedure, search="evolution", trials=12, finalists=3))
    cutter = pipeline.cutter_of(run, fabric, job, data, listener)
    budget = cutter.material.survey.resolved(Budget(macs="60%"))
    cuts = cutter.finalists(budget, 1.0, 3)
    assert len({one.network.graph.edge_names for one in cuts}) == 3
    assert all(cutter.material.survey.fits(one.network.graph, budget) for one in cuts)
    tuner = tuning.Tuner(run=run, job=job, data=data, whole=fabric, listener=listener)
    order = sorted(cuts, key=lambda one: costs(one.network.graph, (8, 8)).macs, reverse=True)
    largest, middle, smallest = order
    apart = torch.tensor([0.0, 0.1, 0.2])
    for losses, chosen in (([0.9, 0.95, 0.4], smallest), ([0.9, 0.5, 0.5], middle), ([0.9, 0.89, 0.9], largest)):
        found = iter(losses)
        noisy = iter([apart] + 2 * [apart.flip(0) if chosen is largest else apart])
        monkeypatch.setattr(tuning, "image_losses", lambda *a, f=found, n=noisy: next(f) + next(n))
        assert tuner.best_of(cuts) is chosen
    assert said[-4] == "fine-tuning 3 networks briefly, to go on with the best of them"


def test_a_network_above_its_milliseconds_is_not_on_the_curve(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "measure", lambda *anything: taking(9.0))
    monkeypatch.setattr(steps, "PAUSE", 0.0)
    monkeypatch.setattr("convfabric.pipeline.fit.MOST_SMALLER", 1)
    quiet = Listener(say=lambda text: None)
    for _ in range(2):
        with pytest.raises(BudgetError, match=r"at most 5 ms|9\.000 ms measured, 5\.000 ms allowed"):
            curve(run, "latency_ms", [5.0], listener=quiet, finetune=0, rounds=1)
    rows = curve(run, "macs", ["60%"], listener=quiet, finetune=0)
    [budget] = [row["budget"] for row in rows]
    assert re.fullmatch(r"\S+ M MACs per image \(60% of the fabric's\)", budget)
    assert rows[0]["threads"] == "1"


def test_a_network_that_was_refused_is_not_the_one_that_a_run_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, times = tmp_path / "run", [1.2]

    def measured(*anything: object) -> Latency:
        cut = read_record(folder).cut
        assert cut
        return taking(times[0] * cut.ceilings["latency_ms"])

    monkeypatch.setattr(steps, "measure", measured)
    monkeypatch.setattr(steps, "PAUSE", 0.0)
    monkeypatch.setattr("convfabric.pipeline.fit.MOST_SMALLER", 0)
    monkeypatch.setattr("convfabric.pipeline.fit._timed_whole", lambda *anything: None)
    words = ["fit", "digits", *TINY, "--epochs", 1, "--latency-ms", "90%", "--set", "trials=4", "--out", folder]
    assert "ms allowed" in refusal(words, code=3)
    times[0], cut_by = 0.9, list[tuple[float, bool]]()

    def noted(*given: Any, **named: Any) -> Any:
        cut_by.append((named["share"], named["resume"]))
        return steps.extract_step(*given, **named)

    monkeypatch.setattr("convfabric.pipeline.fit.extract_step", noted)
    done([*words, "--resume"])
    [(share, resumed)] = cut_by
    assert share < 0.9
    assert not resumed
    assert read_record(folder).budget_met


def test_a_share_of_milliseconds_is_of_those_that_the_whole_takes_while_the_file_is_measured(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine runs at a third of the pace that it had when sub-networks were measured, in two turns of three."""
    job, (network, _) = job_of(run), load_fabric(run)
    job = replace(job, budget=Budget(latency_ms="50%"))
    cut = read_record(run).cut
    assert cut
    update_record(run, cut=replace(cut, ceilings={"latency_ms": 1.0}))
    for file_ms, whole_ms in ((2.4, 5.0), (2.6, 5.0)):
        paces = iter([1.5, 1.0, 1.2])
        monkeypatch.setattr(steps, "measure", lambda *a, m=file_ms, p=paces: taking(m * next(p)))
        wholes = iter([1.2 * whole_ms, 1.5 * whole_ms, whole_ms])
        with (
            nullcontext() if file_ms < whole_ms / 2 else pytest.raises(BudgetError, match=r"2\.500 ms allowed, 50% of")
        ):
            steps.export_step(run, job, open_data("digits"), network, lambda w=wholes: next(w))
        assert read_record(run).cut.ceilings == {"latency_ms": 2.5}  # type: ignore[union-attr]


def test_what_can_be_counted_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    said = refusal(["fit", "digits", "--resume", "--out", tmp_path / "mistyped", "--macs", "0.01k"], code=3)
    assert "mistyped: nothing to go on with, so a new run begins" in said
    assert "no sub-network fits 10 MACs per image" in said
    assert "measuring up to" not in said


def test_a_network_that_was_not_fine_tuned_is_not_called_so(run: Path) -> None:
    tuning = read_record(run).tuning
    assert tuning
    assert tuning.fine_tuned
    done(["extract", run, "--macs", "60%", "--set", "finetune=0"])
    tuning = read_record(run).tuning
    assert tuning
    assert not tuning.fine_tuned
    done(["export", run])
    done(["report", run])
    assert "not fine-tuned" in (run / "report.html").read_text("utf-8")


def test_a_new_fabric_has_no_curve_of_the_one_before(run: Path) -> None:
    (run / "curve.html").write_text("of before")
    begin(run, job_of(run), force=True)
    assert not (run / "curve.html").exists()


def test_one_validation_image_is_enough() -> None:
    digits = open_data("digits")
    data = replace(digits, splits={"train": drawn(digits.splits["train"], 40), "val": drawn(digits.splits["val"], 1)})
    assert len(Judge.unseen(data).splits["val"]) == 1


@pytest.mark.parametrize(("took_ms", "kept"), [(0.9, True), (1.1, False)])
def test_what_an_earlier_search_found_better_is_kept_unless_it_was_measured_too_slow(
    took_ms: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = weave("fabric-tiny", size=(8, 8), image_channels=1)
    sampler = Sampler.of(graph, 0.5, (8, 8))
    best = sampler.draw(random.Random(0))

    class Set(Judge):
        def judged(self, graph: Any) -> float:
            return 0.0

    few = SimpleNamespace(splits={"val": []}, preprocessing=SimpleNamespace(size=(32, 32)))
    judge = Set(None, few, None, {best: 1.0})  # type: ignore[arg-type]
    monkeypatch.setattr("convfabric.cutting.strategies.Judge", SimpleNamespace(of=lambda *anything: judge))
    found = SimpleNamespace(sampler=sampler, fits=lambda part, budget: part != graph, limits=lambda budget: [])
    monkeypatch.setattr("convfabric.cutting.strategies._starts", lambda *anything: [])
    material: Any = SimpleNamespace(fabric=SimpleNamespace(graph=graph), data=None, survey=found, recipe=None, worth={})
    material.say, material.took_ms, material.tried = (lambda text: None), {best: took_ms}, {}
    assert (by_trying(3)(material)(Budget(latency_ms=1.0)) == best) == kept


def test_the_fabric_teaches_in_fine_tuning_where_that_is_asked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught, train = list[bool](), tuning.train

    def watched(*words: Any, **numbers: Any) -> Any:
        taught.append(numbers["teacher"] is not None)
        return train(*words, **numbers)

    monkeypatch.setattr(tuning, "train", watched)
    for share in (0, 0.5):
        done(["extract", run, "--macs", "60%", "--set", f"finetune_distil={share}"])
    assert taught == [False, True]
    assert "finetune_distil=2.0: give a share from 0 to 1" in refusal(["extract", run, "--set", "finetune_distil=2"])
