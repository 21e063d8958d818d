"""What every measure of an edge's worth keeps to. A new one is covered by its row in WORTHS."""

from math import isfinite

import pytest
import torch

from contracts.test_families import fabric_of, noise, small
from convfabric.cutting.worth import WORTHS
from convfabric.graph import Task

every_worth = pytest.mark.parametrize("name", WORTHS)


@every_worth
@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("training", [True, False])
def test_each_edge_gets_a_number_and_the_fabric_stays_as_it_was(name: str, task: Task, training: bool) -> None:
    fabric = fabric_of(small("resnet", task)).train(training)
    before = {key: value.clone() for key, value in fabric.state_dict().items()}
    found = WORTHS[name](fabric, noise(task))
    assert set(found) == fabric.graph.edge_names
    assert all(isfinite(worth) and worth >= 0 for worth in found.values())
    assert fabric.training == training
    assert all(torch.equal(before[key], value) for key, value in fabric.state_dict().items())
    assert WORTHS[name](fabric, noise(task)) == found
