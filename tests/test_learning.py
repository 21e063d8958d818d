"""Trainings that learn nothing are given up and begun anew; rare classes are learnt."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from convfabric.data.imageset import HeldSplit, ImageSet
from convfabric.data.opening import open_data
from convfabric.errors import StuckError
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.pipeline.steps import train_step
from convfabric.progress import Listener, Moment
from convfabric.runs.job import Job, job_from
from convfabric.runs.record import read_record
from convfabric.training.loop import train
from convfabric.training.losses import loss, prior_of
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave


def hopeless(**more: Any) -> Job:
    """A job whose first two rates teach nothing."""
    small = {"network": "fabric-tiny", "layers": 2, "scales": 2}
    return job_from({"data": "digits", "epochs": 6, "batch": 128, "lr": 1e-9, **small, **more})


@pytest.fixture(scope="module")
def begun_anew(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fabric, list[str]]:
    """The folder of such a job, its fabric, and what was said."""
    folder, said = tmp_path_factory.mktemp("anew"), list[str]()
    return folder, train_step(folder, hopeless(), open_data("digits"), Listener(say=said.append)), said


def test_a_training_that_learns_nothing_is_begun_anew_until_one_does_and_is_recorded(
    begun_anew: tuple[Path, Fabric, list[str]],
) -> None:
    (folder, fabric, said), data = begun_anew, open_data("digits")
    assert score(fabric, data, "val").accuracy > 0.5
    record = read_record(folder)
    assert len(record.given_up) == 2
    assert re.search(r"no better than chance after 5 epochs, at best .* anew with adamw at a rate of 0.002", said[-1])
    assert said[-1] == record.given_up[-1]
    with pytest.raises(StuckError, match="no better than chance after 5 epochs"):
        train(Fabric(fabric.graph), data, Recipe(epochs=8, lr=1e-9), device="cpu")
    rows = train(Fabric(fabric.graph), data, Recipe(epochs=6, lr=1e-9, give_up=0.0), device="cpu")
    assert all(row["chance"] for row in rows)


def test_a_training_that_was_begun_anew_goes_on_to_the_same_weights(
    tmp_path: Path, begun_anew: tuple[Path, Fabric, list[str]]
) -> None:
    data, epochs = open_data("digits"), list[int]()

    def killed(moment: Moment) -> None:
        epochs.append(moment.epoch)
        if len(read_record(tmp_path / "a").given_up) == 2 and moment.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_step(tmp_path / "a", hopeless(), data, Listener(say=print, watch=killed))
    found = train_step(tmp_path / "a", hopeless(), data, Listener(say=print), resume=True)
    folder, wanted, _ = begun_anew
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in wanted.state_dict().items())
    assert read_record(tmp_path / "a").given_up == read_record(folder).given_up


def with_one_frequent_class(few: int) -> ImageSet:
    """Digits with all the zeros and a few of each other in train."""
    data = open_data("digits")
    split: Any = data.splits["train"]
    kept = [torch.nonzero(split.targets == one)[: None if one == 0 else few, 0] for one in range(10)]
    chosen = torch.cat(kept)
    train_split = HeldSplit(split.images_BCHW[chosen], split.targets[chosen])
    return replace(data, splits={**data.splits, "train": train_split}, counts=tuple(map(len, kept)))


def test_classes_that_are_rare_are_learnt_where_each_counts_alike() -> None:
    data = with_one_frequent_class(6)

    def balanced(balance: float) -> float:
        torch.manual_seed(0)
        fabric = Fabric(weave("fabric-tiny", layers=2, size=(8, 8), image_channels=1))
        train(fabric, data, Recipe(epochs=16, lr=0.1, batch=16, balance=balance, give_up=0.0), device="cpu")
        return score(fabric, data, "test").balanced_accuracy or 0.0

    assert balanced(1.0) > balanced(0.0) + 0.03


def test_classes_that_are_as_frequent_are_learnt_as_before() -> None:
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    even = loss(logits, targets, Recipe(), -100, prior_K=prior_of((4, 4, 4), 1.0))
    torch.testing.assert_close(even, loss(logits, targets, Recipe(), -100))
    assert open_data("digits").counts == tuple(torch.bincount(open_data("digits").splits["train"].targets).tolist())  # type: ignore[attr-defined]
