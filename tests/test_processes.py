"""Several processes of one run: the same network as by one, each trial tried once, and advice where one has died."""

import json
import os
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
from typer.testing import CliRunner

from convfabric.cli.commands import app
from convfabric.cutting.fitness import Judge
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
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(survey.__file__).parents[2])])
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    said = subprocess.PIPE
    return subprocess.Popen([*started, script, *map(str, words)], env=environment, stderr=said, stdout=said, text=True)


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
