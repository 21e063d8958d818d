"""What every device and every runtime keeps to."""

import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from boards import pretended_board
from contracts.test_families import papers_of, small
from convfabric.errors import SettingError, UntimedError
from convfabric.latency import timing
from convfabric.latency.devices import BOARDS, RUNTIMES, device_of
from convfabric.latency.target import ELSEWHERE, FORMATS, HERE, Precision, Target
from convfabric.operators import Chain, Conv, Norm, Relu, Work

KINDS = (HERE, *ELSEWHERE)
WORK = Work(Chain((Conv(), Norm(), Relu())), 4, 6, (8, 8), (8, 8))


@pytest.fixture
def device_name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ssh":
        return f"ssh:{pretended_board(tmp_path / 'bin', monkeypatch)}"
    return f"kit:{tmp_path / 'kit'}" if request.param == "kit" else str(request.param)


@pytest.mark.parametrize(
    ("device_name", "runtime", "precision"),
    [*((kind, "onnxruntime", precision) for kind in KINDS for precision in FORMATS), ("local", "torch", "float32")],
    indirect=["device_name"],
)
def test_operations_and_networks_take_some_time_under_the_conditions_asked_for(
    device_name: str, runtime: str, precision: Precision
) -> None:
    graph = small("resnet", "classification")
    target = Target(device=device_name, runtime=runtime, precision=precision)
    several = replace(target, threads=2, batch=3)
    device, papers = device_of(target), papers_of(graph)
    if device.waits:
        for one in (target, several):
            with pytest.raises(UntimedError, match="2 models to be timed"):
                device.expect([WORK], [graph], papers, one, 0.0)
        subprocess.run([sys.executable, device_name.removeprefix("kit:") + "/timing.py"], check=True)
    [took] = device.time_operations([WORK], target)
    assert 0 < took < 1000
    found = device.times_networks(papers, several, seconds=0.0)(graph)
    assert (found.threads, found.batch, found.size) == (2, 3, (32, 32))
    assert 0 < found.fastest_block_ms <= found.median_ms
    assert found.runs >= timing.LEAST_RUNS
    assert device.identity(target) != device.identity(several)
    assert precision in (found.runtime + " float32")
    assert device.doubts() is not None


def test_every_board_that_may_be_named_has_a_row() -> None:
    assert tuple(BOARDS) == ELSEWHERE


def test_times_of_one_target_are_never_taken_for_another_s() -> None:
    numbers = product((1, 2), (1, 2), RUNTIMES)
    changed = [Target(threads=threads, batch=batch, runtime=name) for threads, batch, name in numbers]
    changed.append(Target(precision="int8"))
    assert len({device_of(target).identity(target) for target in changed}) == len(changed)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"runtime": "abacus"}, "runtime=abacus: onnxruntime, openvino, torch are known"),
        ({"device": "moon"}, r"device=moon: local, ssh:user@host\[:python\] and kit:FOLDER are known"),
        ({"device": "ssh:"}, "device=ssh:: local, ssh:"),
        ({"device": "ssh:-oProxyCommand=date"}, "is accepted"),
        ({"device": "ssh:pi@board; date"}, "is accepted"),
        ({"device": "ssh:a b@board"}, "is accepted"),
        ({"device": "ssh:pi@board", "runtime": "torch"}, "torch is timed on this machine alone"),
        ({"precision": "int8", "runtime": "torch"}, "torch is timed in float32 alone"),
        ({"threads": 0}, "threads=0, batch=1: give at least 1"),
    ],
)
def test_a_target_that_is_not_known_is_refused(numbers: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        device_of(Target(**numbers))  # type: ignore[arg-type]
