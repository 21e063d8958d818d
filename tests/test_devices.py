"""Boards elsewhere: what they answer is checked, connections break and are made anew, and a fit goes all the way."""

import json
import subprocess
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from boards import answering, pretended_board, real_board
from convfabric.errors import DeviceError, UntimedError
from convfabric.latency import timing
from convfabric.latency.devices import device_of, measure, over_ssh
from convfabric.latency.devices.board import FACTS, RUNTIMES
from convfabric.latency.drafts import drafted
from convfabric.latency.target import Target
from convfabric.operators import Conv, Work
from convfabric.runs.job import job_from
from test_pipeline import TINY, done, finished, run

WORKS = [Work(Conv(), channels, 4, (8, 8), (8, 8)) for channels in (3, 4)]
GOOD = json.dumps(dict.fromkeys(FACTS, "known"))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_ssh, "PAUSE", 0.0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("hello\n", "answers b'hello.n', which is no JSON"),
        ("[1, 2]\n", "of itself; processor, cores"),
        (json.dumps({**json.loads(GOOD), "host": "x" * 500}) + "\n", "of itself; processor, cores"),
        (GOOD + "\n" + '{"ms": "fast"}\n', "says {'ms': 'fast'} of a model; ms were expected"),
        (GOOD + "\n" + '{"ms": NaN}\n', "of a model; ms were expected"),
        (GOOD + "\n" + '{"ms": -1}\n', "of a model; ms were expected"),
        (GOOD + "\n" + '{"ms": true}\n', "of a model; ms were expected"),
        (GOOD + "\n" + '{"fault": "no such operator"}\n', r"cannot run float32 Conv.* 1×3×8×8 .*: no such operator"),
    ],
)
def test_what_a_board_says_is_checked(lines: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(device=f"ssh:{answering(tmp_path / 'bin', lines, monkeypatch)}")
    with pytest.raises(DeviceError, match=said):
        device_of(target).time_operations(WORKS, target)


def test_a_connection_that_breaks_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks = f"test -e {tmp_path}/second || {{ touch {tmp_path}/second; printf '%s' '{{\"pro'; exit 255; }}"
    target = Target(device=f"ssh:{pretended_board(tmp_path / 'bin', monkeypatch, breaks)}")
    assert len(device_of(target).time_operations(WORKS, target)) == 2
    device: Any = device_of(target)
    device.board._process.kill()
    assert len(device.time_operations(WORKS, target)) == 2
    device.board.close()


def test_a_board_that_is_not_reached_is_named_with_what_ssh_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = pretended_board(tmp_path / "bin", monkeypatch, "echo no route to host >&2; exit 255")
    said = run(["calibrate", "fabric-tiny", "--size", 8, "--device", f"ssh:{address}"])
    assert said.exit_code == 1
    assert "no answer in 3 attempts. no route to host" in said.stderr
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="the system has no ssh"):
        device_of(Target(device="ssh:nobody@nowhere")).identity(Target())


def test_nothing_that_is_typed_reaches_the_shell_of_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = pretended_board(tmp_path / "bin", monkeypatch).partition(":")[0]
    target = Target(device=f"ssh:{address}:python3; touch {tmp_path}/stolen")
    with pytest.raises(DeviceError, match="no answer in 3 attempts"):
        device_of(target).identity(target)
    assert not (tmp_path / "stolen").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    said = run(["calibrate", "fabric-tiny", "--size", 8, "--device", f"kit:{tmp_path}"])
    assert said.exit_code == 1
    assert "holds other files" in said.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_times_of_another_machine_and_of_a_fault_are_not_taken(tmp_path: Path) -> None:
    target = Target(device=f"kit:{tmp_path / 'kit'}")
    device, times = device_of(target), tmp_path / "kit" / timing.TIMES
    with pytest.raises(UntimedError):
        device.time_operations(WORKS, target)
    times.write_text("{}")
    with pytest.raises(DeviceError, match=r"not what timing\.py writes"):
        device.identity(target)
    [first, _] = json.loads((tmp_path / "kit" / timing.WANTED).read_text())["models"]
    times.write_text(json.dumps({"facts": json.loads(GOOD), "times": {first["file"]: {"ms": 1.0}}}))
    carried = [sys.executable, tmp_path / "kit" / "timing.py"]
    said = subprocess.run(carried, check=True, capture_output=True, text=True).stdout
    assert "of another machine and begun anew" in said
    assert device.time_operations(WORKS, target)[0] != 1.0
    found = json.loads(times.read_text())
    found["times"][first["file"]] = {"fault": "out of memory"}
    times.write_text(json.dumps(found))
    with pytest.raises(DeviceError, match="out of memory"):
        device.time_operations(WORKS, target)
    model = tmp_path / "kit" / "models" / first["file"]
    model.rename(tmp_path / "elsewhere")
    torn = subprocess.run(carried, check=False, capture_output=True, text=True)
    assert torn.returncode == 1
    assert "1 of 2 could not be run, the first: " in torn.stderr
    (tmp_path / "elsewhere").rename(model)
    assert "all 2 are timed" in subprocess.run(carried, check=True, capture_output=True, text=True).stdout
    assert len(device.time_operations(WORKS, target)) == 2
    (tmp_path / "kit" / timing.WANTED).write_text("{")
    broken = subprocess.run(carried, check=False, capture_output=True, text=True)
    assert "carry the folder here once more" in broken.stderr
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_times_operations_and_files_here_and_in_a_folder(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    here = Target(runtime=runtime)
    assert min(device_of(here).time_operations(WORKS, here)) > 0
    model = drafted(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    assert measure(model, (3, 8, 8), here, seconds=0.0).runtime.startswith(RUNTIMES[runtime])
    there = Target(device=f"kit:{tmp_path / 'kit'}", runtime=runtime)
    with pytest.raises(UntimedError):
        device_of(there).time_operations(WORKS, there)
    subprocess.run([sys.executable, tmp_path / "kit" / "timing.py"], check=True, capture_output=True)
    assert min(device_of(there).time_operations(WORKS, there)) > 0
    assert f"{runtime} {version(runtime)}" in device_of(there).identity(there)
    job = job_from({"data": "digits", "network": "fabric-tiny", "runtime": runtime, "device": there.device})
    assert job.target == there


def test_a_runtime_that_a_board_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_version", lambda package: "")
    target = Target(runtime="openvino")
    with pytest.raises(DeviceError, match=r"this machine: has no openvino; there, pip install openvino\."):
        device_of(target).identity(target)


def test_all_forms_of_a_network_are_carried_to_a_board_at_once(tmp_path: Path) -> None:
    words = ["probe", "digits", "--network", "fabric-tiny", "--latency-ms", 5, "--out", tmp_path]
    few = ["layers=2", "scales=1", "precision=auto", "sizes=[0.75]", "subnetworks=1"]
    said = done([*words, *(part for change in few for part in ("--set", change))])
    assert "models to be timed" in said
    wanted = json.loads((tmp_path / timing.WANTED).read_text())["models"]
    networks = {(one["key"].split()[0], *one["shape"][2:]) for one in wanted if one["kind"] == "network"}
    assert networks == {(numbers, side, side) for numbers in ("float32", "int8") for side in (6, 8)}
    assert all((tmp_path / "models" / one["file"]).is_file() for one in wanted)


@pytest.mark.slow
def test_a_fit_for_a_board_goes_on_whenever_its_folder_comes_back(tmp_path: Path) -> None:
    kit, folder = tmp_path / "kit", tmp_path / "run"
    words = ["fit", "digits", "--network", "fabric-tiny", "--epochs", 1, "--latency-ms", 5, "--device", f"kit:{kit}"]
    small = [part for change in ("layers=2", "scales=2", "trials=4") for part in ("--set", change)]
    words += [*small, "--out", folder]
    carried = [sys.executable, kit / "timing.py"]
    done(["probe", "digits", "--network", "fabric-tiny", "--latency-ms", 5, *small, "--out", kit])
    first = run(words)
    assert first.exit_code == 5
    assert "models to be timed" in first.stderr
    assert not folder.exists()
    subprocess.run(carried, check=True, capture_output=True)
    second = run(words)
    assert second.exit_code == 5
    assert f"Go on with: convfabric fit digits --out {folder} --resume" in second.stderr
    assert finished(folder).network
    subprocess.run(carried, check=True, capture_output=True)
    done(["fit", "digits", "--out", folder, "--resume"])
    record = finished(folder)
    assert record.budget_met
    assert f"on kit:{kit}" in record.exported.latency.runtime


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_a_fit_for_a_board_by_ssh_states_the_board(real: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["fit", "digits", *TINY, "--epochs", 1, "--latency-ms", 5, "--set", "trials=4"]
    pretended = nullcontext(pretended_board(tmp_path / "bin", monkeypatch))
    with real_board(tmp_path / "server", monkeypatch) if real else pretended as address:
        done([*words, "--device", f"ssh:{address}", "--out", tmp_path / "run"])
        device: Any = device_of(Target(device=f"ssh:{address}"))
        device.board.close()
    record = finished(tmp_path / "run")
    assert record.budget_met
    assert f"on ssh:{address.partition(':')[0]}" in record.exported.latency.runtime
