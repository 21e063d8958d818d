"""Several processes of one run: the same network as by one, each trial tried once, and advice where one has died."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convfabric.cli.commands import app
from test_pipeline import TINY

NOTING = """
import os, sys
from functools import partial
from convfabric.cutting.fitness import Judge
from convfabric.graph.json_format import graph_to_json
from convfabric.latency import prediction, survey

survey.SAMPLE_SECONDS, survey.calibrate = 0.01, partial(prediction.calibrate, count=6)

notes, sys.argv = sys.argv[1] + os.environ.get("RANK", "0"), ["convfabric", *sys.argv[2:]]
open(notes + ".pid", "w").write(str(os.getpid()))
judged = Judge.judged

def noted(self, graph):
    with open(notes, "a") as file:
        file.write(str(hash((graph_to_json(graph), self.few.preprocessing.size))) + chr(10))
    return judged(self, graph)

Judge.judged = noted
from convfabric.cli.commands import main
main()
"""
"""The command line, that notes which sub-networks each process tries; sub-networks are timed briefly."""


def together(count: int, *words: object) -> subprocess.Popen[str]:
    """The script above, run by so many processes."""
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    said = subprocess.PIPE
    return subprocess.Popen(
        [*started[: 6 if count > 1 else 1], *map(str, words)], env=environment, stderr=said, stdout=said, text=True
    )


@pytest.mark.slow
def test_two_processes_choose_like_one_and_try_each_sub_network_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(NOTING)
    run = tmp_path / "run-1"
    words = ["train", "digits", *TINY, "--epochs", 1, "--out", run]
    words += ["--set", "subnetworks=2", "--set", "sizes=[0.75]"]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    shutil.copytree(run, tmp_path / "run-2")
    tried, graphs = {}, {}
    for count in (1, 2):
        folder = tmp_path / f"run-{count}"
        cut = ["curve", folder, "--macs", "40%", "--set", "trials=6", "--set", "finetune=0", "--json"]
        process = together(count, script, tmp_path / f"by-{count}-", *cut)
        answer, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert len(json.loads(answer)["networks"]) == 1
        tried[count] = [(tmp_path / f"by-{count}-{rank}").read_text().split() for rank in range(count)]
        graphs[count] = (folder / "curve" / "macs-40percent" / "cut" / "graph.json").read_text()
    [alone], (first, second) = tried[1], tried[2]
    assert graphs[1] == graphs[2]
    assert sorted(alone) == sorted(first + second)
    assert len(set(alone)) == len(alone) >= 12
    assert abs(len(first) - len(second)) <= 2


@pytest.mark.slow
def test_where_a_process_dies_the_others_end_and_say_what_to_type(tmp_path: Path) -> None:
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(NOTING)
    words = ["fit", "digits", "--network", "fabric-tiny", "--epochs", 90, "--out", run, "--macs", "50%"]
    process = together(2, script, tmp_path / "p", *words, "--set", "accelerator=cpu")
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
