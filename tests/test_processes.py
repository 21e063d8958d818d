"""Several processes of one run: the same network as by one, each trial tried once, and advice where one has died."""

import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zlib import crc32

import pytest
import torch
from typer.testing import CliRunner

from convfabric.cli.commands import app
from convfabric.cutting.fitness import Judge
from convfabric.fabric.archive import read_tensors
from convfabric.graph import Graph
from convfabric.graph.json_format import graph_to_json
from convfabric.latency import prediction, survey
from test_pipeline import TINY, done

SCRIPT = """
import os, sys
from pathlib import Path
from convfabric.cli.commands import main
from convfabric.cutting.fitness import Judge
from test_processes import notes, short_samples

short_samples()
said, sys.argv = sys.argv[1] + os.environ["RANK"], ["convfabric", *sys.argv[2:]]
Path(said + ".pid").write_text(str(os.getpid()))
Judge.judged = notes(Path(said))
main()
"""
"""The command line, that notes which sub-networks each process tries."""


def short_samples() -> None:
    """Sub-networks are timed briefly, in processes that know no fixture."""
    survey.SAMPLE_SECONDS, survey.calibrate = 0.01, partial(prediction.calibrate, count=4)


def notes(file: Path) -> Callable[..., object]:
    """What judges a sub-network, and notes in a file which."""
    judged = Judge.judged

    def noted(judge: Judge, graph: Graph) -> object:
        with file.open("a") as lines:
            print(f"{crc32(graph_to_json(graph).encode())}x{judge.few.preprocessing.size}".replace(" ", ""), file=lines)
        return judged(judge, graph)

    return noted


def together(script: Path, *words: object) -> subprocess.Popen[str]:
    """The script above, run by two processes."""
    script.write_text(SCRIPT)
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    said = subprocess.PIPE
    return subprocess.Popen(
        [*started, script, *map(str, words)], env=environment(), stderr=said, stdout=said, text=True
    )


@pytest.mark.slow
def test_two_processes_choose_like_one_and_try_each_sub_network_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "digits", *TINY, "--epochs", 1, "--out", tmp_path / "run-1"]
    done([*words, "--set", "subnetworks=2", "--set", "sizes=[0.75]"])
    shutil.copytree(tmp_path / "run-1", tmp_path / "run-2")
    cut = ["--macs", "40%", "--set", "trials=6", "--set", "finetune=0", "--json"]
    process = together(tmp_path / "script.py", tmp_path / "by-two-", "curve", tmp_path / "run-2", *cut)
    answer, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    monkeypatch.setattr(Judge, "judged", notes(tmp_path / "by-one"))
    for answered in (answer, done(["curve", tmp_path / "run-1", *cut])):
        assert len(json.loads(answered)["networks"]) == 1
    alone, first, second = ((tmp_path / f"by-{who}").read_text().split() for who in ("one", "two-0", "two-1"))
    one, two = (tmp_path / f"run-{n}" / "curve" / "macs-40percent" / "cut" / "graph.json" for n in (1, 2))
    assert one.read_text() == two.read_text()
    assert sorted(alone) == sorted(first + second)
    assert len(set(alone)) == len(alone) >= 12
    assert abs(len(first) - len(second)) <= 2


@pytest.mark.slow
def test_where_a_process_dies_the_others_end_and_say_what_to_type(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["fit", "digits", "--network", "fabric-tiny", "--epochs", 90, "--out", run, "--macs", "50%"]
    process = together(tmp_path / "script.py", tmp_path / "p", *words, "--set", "accelerator=cpu")
    try:
        until = time.monotonic() + 120
        while not (run / "fabric.state.safetensors").is_file():
            assert time.monotonic() < until
            time.sleep(0.2)
        os.kill(int((tmp_path / "p0.pid").read_text()), signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0
    assert f"Go on with: torchrun --nproc-per-node 2 -m convfabric fit digits --out {run} --resume" in said


def test_what_is_one_process_s_work_is_refused_to_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = CliRunner().invoke(app, ["calibrate", "fabric-tiny"])
    assert refused.exit_code == 2
    assert "train, fit, extract, curve" in " ".join(refused.output.split())


TRAIN = ["train", "digits", *TINY, "--epochs", "3"]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(survey.__file__).parents[2])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.mark.slow
def test_two_kills_and_resumptions_change_no_bit_of_a_run(tmp_path: Path) -> None:
    quiet = {"env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    done([*TRAIN, "--out", tmp_path / "whole"])
    goes_on = [sys.executable, "-m", "convfabric", *TRAIN, "--out", str(tmp_path / "killed"), "--resume"]
    for begun in ("config.yaml", "fabric.state.safetensors"):  # before the first epoch is over, and after it
        process = subprocess.Popen(goes_on, **quiet)  # type: ignore[call-overload]
        waited = time.monotonic() + 60
        while not (tmp_path / "killed" / begun).exists() and time.monotonic() < waited:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    done(goes_on[3:])
    for name in ("fabric/model.safetensors", "metrics.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


TWO_HALVES = """
import sys, torch
from convfabric.data.opening import open_data
from convfabric.environment import is_first_process
from convfabric.fabric.module import Fabric
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from pathlib import Path
from safetensors.torch import save_file

torch.manual_seed(0)
fabric = Fabric(weave("fabric-tiny", layers=2, size=(8, 8), image_channels=1, classes=10))
seen = {}

def watch(moment):
    if moment.step <= 4:
        seen.update({f"{moment.step}.{n}": p.grad.clone().contiguous() for n, p in fabric.named_parameters()})

recipe = Recipe(epochs=1, batch=64, accumulate=int(sys.argv[2]), lr=0.01, clip_norm=1e9)
train(fabric, open_data("digits"), recipe, folder=Path(sys.argv[1]), device="cpu", watch=watch)
if is_first_process():
    save_file(seen, sys.argv[1] + "/gradients.safetensors")
"""


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_that_accumulates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_HALVES)
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setattr(sys, "argv", [str(script), str(one), "2"])
    runpy.run_path(str(script))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    subprocess.run(
        [*launch, str(script), str(two), "1"], check=True, env=environment(), capture_output=True, timeout=120
    )
    a, b = (read_tensors(folder / "gradients.safetensors")[0] for folder in (one, two))
    assert a.keys() == b.keys()
    assert len(a) > 100
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5)
    assert len(list(csv.DictReader((two / "metrics.csv").read_text().splitlines()))) == 1
