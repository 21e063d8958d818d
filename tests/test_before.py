"""What earlier versions wrote is read, and what they computed is computed: files in ``before/`` are of version 0.10."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from convfabric import Fabric, Recipe, open_data, train, weave
from convfabric.data.imageset import drawn
from convfabric.errors import ArchiveError
from convfabric.graph.json_format import graph_from_json
from convfabric.runs.record import RECORD, RunRecord, read_record

BEFORE = Path(__file__).parent / "before"
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "fabric-tiny": {},
    "paper-mnist-sparse": {"layers": 3, "scales": 3, "channels": 8},
    "resnet-20": {"channels": 8},
    "densenet": {"blocks": (2, 2), "growth": 4},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_takes_the_steps_it_took(name: str) -> None:
    data, few = open_data("digits"), {"train": 256, "val": 32}
    data = replace(data, splits={split: drawn(data.splits[split], many) for split, many in few.items()})
    torch.manual_seed(0)
    fabric = Fabric(weave(name, size=(8, 8), image_channels=1, classes=10, **NETWORKS[name]))
    losses: list[float] = []
    recipe = Recipe(epochs=1, batch=64, autocast="float32", execution="readable", balance=0.0)
    train(fabric, data, recipe, device="cpu", watch=lambda moment: losses.append(moment.loss))
    before = json.loads((BEFORE / "losses.json").read_text())[name]
    assert losses == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("top", ["full", "global max"])
def test_a_graph_of_format_2_is_the_one_that_is_woven_now(top: str) -> None:
    text = (BEFORE / f"vgg-{top.replace(' ', '-')}.json").read_text("utf-8")
    assert graph_from_json(text) == weave("vgg", top=top, channels=2, hidden=8, classes=3)


def test_a_record_without_a_format_number_is_read_whole() -> None:
    old, record = json.loads((BEFORE / RECORD).read_text("utf-8")), read_record(BEFORE)
    assert record.data
    assert record.fabric
    assert record.cut
    assert record.network
    assert record.tuning
    assert record.exported
    assert (record.plan, record.data.scored_split) == (old["fabric"]["plan"], old["data"]["verdict"])
    assert (record.cut.requested, record.cut.ceilings, record.cut.worth) == (old["asked"], old["budget"], old["worth"])
    assert record.network.score.accuracy == old["network"]["score"]["accuracy"]
    assert record.tuning.after_recalibration.accuracy == old["network"]["refreshed"]["accuracy"]
    assert record.exported.latency.interquartile_range_ms == old["exported"]["latency"]["spread_ms"]


Way = tuple[str | int, ...]
"""Names and positions that lead to a value of a document."""
DROPPED: set[Way] = {("network", "predicted_ms"), ("network", "prediction_error"), ("exported", "said")}
"""Said twice before, and not read."""


def _ways(document: Any, way: Way = ()) -> Iterator[Way]:
    """To every value that is neither a list nor a mapping."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        if isinstance(value, dict | list):
            yield from _ways(value, (*way, key))
        else:
            yield *way, key


def _reads(folder: Path, document: Any, way: Way) -> bool:
    """Whether a record is read that has something of another kind at the end of a way."""
    spoilt = inner = json.loads(json.dumps(document))
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = {"of": "another kind"}
    (folder / RECORD).write_text(json.dumps(spoilt), "utf-8")
    try:
        read_record(folder)
    except ArchiveError:
        return False
    return True


def test_a_record_of_before_with_one_value_of_another_kind_is_refused(tmp_path: Path) -> None:
    document = json.loads((BEFORE / RECORD).read_text("utf-8"))
    assert {way for way in _ways(document) if _reads(tmp_path, document, way)} == DROPPED


def _document(folder: Path) -> Any:
    """The same record as this version writes it."""
    document = json.loads(json.dumps(read_record(BEFORE).as_json(folder)))
    return {
        name: part
        for name, part in document.items()
        if name not in ("budget_met", "balanced_accuracy", "doubts", "paths")
    }


def test_a_record_of_now_with_one_value_of_another_kind_is_refused(tmp_path: Path) -> None:
    document = _document(tmp_path)
    assert not [way for way in _ways(document) if _reads(tmp_path, document, way)]


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ('"format": 1', '"format": true', "found format True, this version reads records of format 1"),
        ('"accuracy": ', '"accuracy": 7', "is no share from 0 to 1"),
        ('"miou": null', '"miou": NaN', "NaN is no number"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(tmp_path: Path, before: str, now: str, said: str) -> None:
    text = json.dumps(_document(tmp_path))
    assert before in text
    (tmp_path / RECORD).write_text(text.replace(before, now, 1), "utf-8")
    with pytest.raises(ArchiveError, match=said):
        read_record(tmp_path)


def test_no_record_is_an_empty_one(tmp_path: Path) -> None:
    assert read_record(tmp_path) == RunRecord()
