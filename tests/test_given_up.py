"""Trainings that learn nothing are given up and begun anew."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from convfabric.data.opening import open_data
from convfabric.errors import StuckError
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.pipeline.steps import train_step
from convfabric.progress import Listener, Moment
from convfabric.runs.job import Job, job_from
from convfabric.runs.record import read_record
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe


def hopeless(**more: Any) -> Job:
    """A job whose first two rates teach nothing."""
    said = {"data": "digits", "network": "fabric-tiny", "layers": 2, "epochs": 6, "batch": 128, "lr": 1e-9, **more}
    return job_from(said)


def test_a_training_that_learns_nothing_is_begun_anew_until_one_does_and_is_recorded(tmp_path: Path) -> None:
    job, data, said = hopeless(), open_data("digits"), list[str]()
    fabric = train_step(tmp_path, job, data, Listener(say=said.append))
    assert score(fabric, data, "val").accuracy > 0.5
    record = read_record(tmp_path)
    assert len(record.given_up) == 2
    assert re.search(r"no better than chance after 5 epochs, at best .* anew with adamw at a rate of 0.002", said[-1])
    assert said[-1] == record.given_up[-1]
    with pytest.raises(StuckError, match="no better than chance after 5 epochs"):
        train(Fabric(fabric.graph), data, Recipe(epochs=8, lr=1e-9), device="cpu")
    rows = train(Fabric(fabric.graph), data, Recipe(epochs=6, lr=1e-9, give_up=0.0), device="cpu")
    assert all(row["chance"] for row in rows)


def test_a_training_that_was_begun_anew_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    data, epochs = open_data("digits"), list[int]()

    def killed(moment: Moment) -> None:
        epochs.append(moment.epoch)
        if len(read_record(tmp_path / "a").given_up) == 2 and moment.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_step(tmp_path / "a", hopeless(), data, Listener(say=print, watch=killed))
    found = train_step(tmp_path / "a", hopeless(), data, Listener(say=print), resume=True)
    wanted = train_step(tmp_path / "b", hopeless(), data, Listener(say=print))
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in wanted.state_dict().items())
    assert read_record(tmp_path / "a").given_up == read_record(tmp_path / "b").given_up
