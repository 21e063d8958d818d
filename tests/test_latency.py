"""The table of operations, the prediction from it, and the models that are only timed."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from convfabric.execution.folding import as_delivered, folded
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.latency import timing
from convfabric.latency.asked import key_of
from convfabric.latency.devices import RUNTIMES, device_of, measure
from convfabric.latency.drafts import drafted
from convfabric.latency.measurement import Latency, timed
from convfabric.latency.prediction import (
    Prediction,
    calibrate,
    every_operation,
    operations,
    predict_from,
    sample_graphs,
    simplified,
)
from convfabric.latency.survey import FRESH, Survey, steady
from convfabric.latency.table import Table
from convfabric.latency.target import Target
from convfabric.operators import Work, pointwise
from convfabric.weavers import weave

IMAGE = (32, 32)


def made_up_probe(work: Work, target: Target | None = None) -> float:
    """A device whose operations take a time of their own for each kind."""
    each = 1.0 + len(type(work.operator).__name__) / 10
    return 0.001 + each * work.operator.macs(*work[1:]) / 1e8


def made_up(graph: Graph, table: Table, simple: object) -> float:
    """A network on that device: its operations, a start, and what lies between them."""
    known = simplified(graph) if simple is None else simple
    total = sum(made_up_probe(work) for work in operations(graph, known, IMAGE))  # type: ignore[arg-type]
    return 0.05 + 0.8 * total + 0.1 * costs(graph, IMAGE).parameters / 1e6


def time_operations_by(how: Callable[[Work, Target], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations of the local device take what a function says."""
    local, every = device_of(Target()), lambda works, target: [how(work, target) for work in works]
    monkeypatch.setattr(local, "time_operations", every)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Table:
    time_operations_by(made_up_probe, monkeypatch)
    return Table(target=Target())


def calibrated(table: Table, graph: Graph) -> tuple[Prediction, Sampler]:
    sampler, simple = Sampler.of(graph, 0.25, IMAGE), simplified(graph)
    return calibrate(sampler, IMAGE, table, lambda part: made_up(part, table, simple)), sampler


@pytest.mark.parametrize("operators", ["block", "residual", "plain"])
def test_a_device_whose_operations_add_up_is_predicted_exactly(device: Table, operators: str) -> None:
    graph = weave("fabric-small", operators=operators)
    prediction, sampler = calibrated(device, graph)
    for seed in range(20):
        unseen = sampler.draw(random.Random(seed))
        assert prediction.milliseconds(unseen) == pytest.approx(made_up(unseen, device, prediction.simple), rel=0.01)
    assert prediction.median_error < 0.01
    assert prediction.rank > 0.99


def test_a_machine_that_was_slow_for_minutes_is_forgotten_once_it_is_not(device: Table) -> None:
    graph = weave("fabric-small", operators="residual")
    sampler, simple = Sampler.of(graph, 0.25, IMAGE), simplified(graph)
    slowed = calibrate(sampler, IMAGE, device, lambda part: 1.8 * made_up(part, device, simple))
    found: Any = Survey(sampler=sampler, measured=pytest.fail, prediction=slowed, again=pytest.fail)
    said = list[str]()
    found.renew(said.append)
    for times, whole in ((2.5, 1.8), (1.0, 1.0)):
        found.again = lambda part, times=times: SimpleNamespace(fastest_block_ms=times * made_up(part, device, simple))
        found.since -= 2 * FRESH
        found.renew(said.append)
        assert found.prediction.milliseconds(graph) == pytest.approx(whole * made_up(graph, device, simple), rel=0.01)
    assert [line.startswith("measured once more, as the machine runs now: ") for line in said] == [True, True]


def test_what_timing_an_operation_alone_adds_is_taken_off_again(device: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, dearer_ms = weave("fabric-small", operators="residual"), 0.006
    simple = simplified(graph)

    def alone(work: Work, target: Target) -> float:
        return dearer_ms + made_up_probe(work)

    time_operations_by(alone, monkeypatch)
    prediction, sampler = calibrated(device, graph)
    assert prediction.spared_ms == pytest.approx(dearer_ms, abs=0.0015)
    for seed in range(20):
        unseen = sampler.draw(random.Random(seed))
        assert prediction.milliseconds(unseen) == pytest.approx(made_up(unseen, device, simple), rel=0.02)


@pytest.mark.parametrize("network", ["auto", "fabric-small", "b-cnf", "resnet-20", "paper-mnist-sparse"])
def test_every_operation_of_every_sub_network_is_in_the_table(device: Table, network: str) -> None:
    channels = 1 if network == "paper-mnist-sparse" else 3
    graph = weave(network, size=IMAGE, image_channels=channels)
    sampler, simple = Sampler.of(graph, 0.25, IMAGE), simplified(graph)
    known = set(every_operation(sampler, simple, IMAGE))
    for seed in range(20):
        missing = set(operations(sampler.draw(random.Random(seed)), simple, IMAGE)) - known
        assert not missing, key_of(missing.pop())


@pytest.mark.parametrize("network", ["densenet", "unet"])
def test_channels_that_follow_from_concatenations_are_estimated_from_the_nearest(device: Table, network: str) -> None:
    graph = weave(network, size=IMAGE, **({"blocks": (2, 2)} if network == "densenet" else {}))
    prediction, sampler = calibrated(device, graph)
    for seed in range(10):
        unseen = sampler.draw(random.Random(seed))
        assert prediction.milliseconds(unseen) == pytest.approx(made_up(unseen, device, prediction.simple), rel=0.25)


def test_sampled_graphs_span_the_range_and_errors_are_of_graphs_left_out(device: Table) -> None:
    graph = weave("fabric-small", operators="residual")
    sampler, simple = Sampler.of(graph, 0.25, IMAGE), simplified(graph)
    chosen = sample_graphs(sampler, lambda part: costs(part, IMAGE).macs, 12)
    shares = [costs(part, IMAGE).macs / costs(graph, IMAGE).macs for part in chosen]
    assert max(shares) == 1.0
    assert min(shares) < 0.05
    device.measure(every_operation(sampler, simple, IMAGE))
    dice = random.Random(0)
    noisy = {part: made_up(part, device, simple) * dice.uniform(0.8, 1.25) for part in chosen}
    prediction = predict_from(noisy, device, simple, IMAGE)
    assert len(prediction.errors) == len(noisy)
    assert 0.02 < prediction.median_error < 0.5
    assert f"off by {prediction.median_error:.0%}" in str(prediction)


def test_operations_are_timed_once_and_kept_for_the_next_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Work] = []

    def counting(work: Work, target: Target) -> float:
        asked.append(work)
        return float(len(asked))

    time_operations_by(counting, monkeypatch)
    works = [Work(pointwise(), 8, count, (4, 4), (4, 4)) for count in (8, 16, 8)]
    table = Table.opened(Target(threads=2), tmp_path)
    assert table.measure(works) == 2
    again = Table.opened(Target(threads=2), tmp_path)
    assert again.measure(works) == 0
    assert [again.milliseconds(work) for work in works] == [1.0, 2.0, 1.0]
    assert Table.opened(Target(threads=1), tmp_path).known == {}
    assert again.file is not None
    again.file.write_text('{"milliseconds": {"a": NaN, "b": -1, "c": 0.25}}')
    assert Table.opened(Target(threads=2), tmp_path).known == {"c": 0.25}
    again.file.write_text("{not json")
    assert Table.opened(Target(threads=2), tmp_path).known == {}
    with pytest.raises(KeyError):
        table.milliseconds(Work(pointwise(), 8, 8, (5, 4), (5, 4)))
    nowhere = Table.opened(Target(threads=2), again.file / "no folder")
    assert nowhere.measure(works) == 2
    assert table.is_kept
    assert not nowhere.is_kept


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_the_real_probes_time_whatever_the_catalogue_has_in_a_fabric(runtime: str) -> None:
    graph = weave("fabric-tiny", size=(8, 8))
    works = dict.fromkeys(operations(graph, simplified(graph), (8, 8)))
    target = Target(runtime=runtime, batch=2)
    times = device_of(target).time_operations(list(works), target)
    assert all(0 < milliseconds < 1000 for milliseconds in times)


@pytest.mark.parametrize("network", ["fabric-tiny", "unet", "msdnet-small", "paper-mnist-sparse"])
def test_a_draft_answers_like_the_network(network: str) -> None:
    channels = 1 if network == "paper-mnist-sparse" else 3
    task = "segmentation" if network == "unet" else "classification"
    fewer = {"layers": 4, "scales": 3} if network == "paper-mnist-sparse" else {}
    fabric = Fabric(weave(network, size=IMAGE, image_channels=channels, task=task, **fewer)).eval()
    images = torch.rand(2, channels, *IMAGE)
    session = onnxruntime.InferenceSession(drafted(folded(fabric), images), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = fabric(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], wanted, rtol=1e-3, atol=1e-4)
    found = measure(drafted(folded(fabric), images), (channels, *IMAGE), Target(batch=2), seconds=0.001)
    assert found.batch == 2
    assert found.runs >= timing.LEAST_RUNS
    assert "batch 2, 1 thread, ONNX Runtime" in str(found)


@pytest.mark.parametrize("seed", range(8))
def test_operations_are_those_that_are_left_once_norms_are_folded(seed: int) -> None:
    graph = weave("fabric-small", operators="residual")
    dice = random.Random(seed)
    part = graph.restrict(e.name for e in graph.edges if not e.operator.keeps_channels or dice.random() < 0.5)
    simple = as_delivered(Fabric(part).eval()).graph
    norms = sum("Depthwise(kernel=1" in str(node.then) for node in simple.nodes)
    works = operations(part, simplified(graph), IMAGE)
    found = [work for work in works if "Depthwise(kernel=1" in str(work.operator)]
    assert len(found) == norms


def test_what_the_tracing_exporter_cannot_write_is_drafted_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    uneven = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d((2, 3)))
    assert len(drafted(uneven, torch.zeros(1, 3, 8, 8))) > 100
    assert "graph" not in capfd.readouterr().out


def test_what_other_work_disturbed_is_measured_again() -> None:
    graph = weave("vgg", channels=4)
    one = timed(lambda: None, Target(), (32, 32), "", 0.0)
    medians = iter([10.0, 2.0, 5.0])

    def taken(_: Graph) -> Latency:
        return replace(one, median_ms=next(medians))

    assert steady(graph, taken, {graph: 1.9}).median_ms == 2.0
    assert steady(graph, taken, {}).median_ms == 5.0
