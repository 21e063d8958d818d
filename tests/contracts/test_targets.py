"""What every device and every runtime keeps to. New ones are covered by their rows in DEVICES and RUNTIMES."""

from itertools import product
from math import isfinite

import pytest

from contracts.test_families import papers_of, small
from convfabric.errors import SettingError
from convfabric.latency.devices import DEVICES, device_of
from convfabric.latency.runtimes import RUNTIMES
from convfabric.latency.target import Target
from convfabric.operators import Chain, Conv, Norm, Relu, Work

TARGETS = [Target(device=device, runtime=runtime) for device in DEVICES for runtime in RUNTIMES]
every_target = pytest.mark.parametrize("target", TARGETS, ids=str)
WORK = Work(Chain((Conv(), Norm(), Relu())), 4, 6, (8, 8), (8, 8))


@every_target
def test_operations_and_networks_take_some_time_under_the_conditions_asked_for(target: Target) -> None:
    graph = small("resnet", "classification")
    device = device_of(target)
    assert isfinite(device.time_operation(WORK, target))
    assert device.time_operation(WORK, target) > 0
    several = Target(device=target.device, runtime=target.runtime, threads=2, batch=3)
    found = device.times_networks(papers_of(graph), several, seconds=0.0)(graph)
    assert (found.threads, found.batch, found.size) == (2, 3, (32, 32))
    assert 0 < found.fastest_block_ms <= found.median_ms
    assert found.runs >= 25


def test_times_of_one_target_are_never_taken_for_another_s() -> None:
    numbers = product((1, 2), (1, 2), RUNTIMES)
    changed = [Target(threads=threads, batch=batch, runtime=name) for threads, batch, name in numbers]
    assert len({device_of(target).identity(target) for target in changed}) == len(changed)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"runtime": "abacus"}, "runtime=abacus: onnxruntime and torch are known"),
        ({"device": "moon"}, "device=moon: local is known"),
        ({"threads": 0}, "threads=0, batch=1: give at least 1"),
    ],
)
def test_a_target_that_is_not_known_is_refused(numbers: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        device_of(Target(**numbers))  # type: ignore[arg-type]
