"""Every command of the README and the documents is typed, in a folder that holds what they speak of."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import typer
from safetensors.torch import save_file

from boards import pretended_board
from convfabric.pipeline.inputs import opened, untrained
from convfabric.runs.job import Job, default_folder
from folders import class_folders, picture
from test_detection import things
from test_documents import DOCUMENTS, blocks
from test_pipeline import run

SHORTLY = ("--epochs", "1", "--set", "trials=2", "--set", "finalists=1", "--set", "finetune_most=1")
"""Of 30 epochs and 64 sub-networks; what a command says itself about them is kept."""
ELSEWHERE = ("pip install", "make ", "python3 -m venv", "scp ", "torchrun")
"""What installs, what runs this very test, what carries a folder, and what tests/test_processes.py types."""

LIBRARY = re.compile(r"torchvision:|timm:")
"""Their networks; tests/test_sources.py trains and cuts such."""
EVERY_CONSTRUCTION = "convfabric universality"
"""tests/test_universality.py runs them all."""


def commands(file: Path) -> list[list[str]]:
    lines = [
        line for language in ("console", "bash") for block in blocks(file, language) for line in block.splitlines()
    ]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


TYPED = [file for file in DOCUMENTS if commands(file)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, boxes, networks and weights under the names that the documents give them."""
    root = tmp_path_factory.mktemp("world")
    class_folders(root / "photos", images=8)
    picture(root / "some.jpg", (32, 32))
    boxes = things(root / "things", {"train": 16, "val": 8, "test": 8})
    for split in ("train", "val", "test"):
        boxes.with_name(f"things-{split}.json").rename(root / "things" / f"{split}.json")
    shutil.copy(root / "things" / "train" / "0.png", root / "image.jpg")
    outlined = json.loads((root / "things" / "train.json").read_text())
    for one in outlined["annotations"]:
        left, top, wide, high = one["bbox"]
        one["segmentation"] = [[left, top, left + wide, top, left + wide, top + high, left, top + high]]
    for one in outlined["images"]:
        one["file_name"] = f"things/{one['file_name']}"
    (root / "instances.json").write_text(json.dumps(outlined))
    return root


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(autouse=True)
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that is this machine, and a cache that holds what networks of libraries would fetch."""
    pretended_board(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def network_in_a_file(file: Path) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    torch.export.save(torch.export.export(module.eval(), (torch.rand(1, 3, 32, 32),)), file)


def made_for(words: list[str]) -> list[str]:
    """The words as they are typed here; networks and weights that they name are made first."""
    for word in words:
        if word.startswith("file:"):
            network_in_a_file(Path(word.removeprefix("file:")))
        elif word.startswith("torchvision:"):
            name = word.removeprefix("torchvision:")
            file = Path(os.environ["TORCH_HOME"], "hub", "checkpoints", weights_of(name))
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torchvision.models.get_model(name).state_dict(), file)
        elif word == "lite0.safetensors":
            save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), word)
    return [word.replace("/home/pi/timing/bin/python", sys.executable) for word in words]


def weights_of(name: str) -> str:
    return torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]


def shortened(words: list[str]) -> list[str]:
    """The words of a fit that trains briefly, on small images, and begins anew where an earlier one has been.

    Machines that run tests may be slow, and this is no test of how slow: milliseconds are twenty times as many.
    """
    more = [*SHORTLY, "--force"] if words[1] == "fit" else []
    network = words[words.index("--network") + 1] if "--network" in words else "fabric-tiny"
    more += ["--network", network] if words[1] == "fit" and "--network" not in words else []
    if "--latency-ms" in words:
        at = words.index("--latency-ms") + 1
        words = [*words[:at], f"{20 * float(words[at]):g}", *words[at + 1 :]]
    if words[1] == "fit" and network.startswith(("torchvision:", "timm:")):
        more += ["--size", "32", "--set", "narrowest=1"]
    more += ["--set", "layers=2"] if network == "fabric-tiny" and words[1] in ("fit", "probe", "calibrate") else []
    return [*words, *more]


def typed(words: list[str]) -> None:
    """Fails where a command does; carries a kit as often as it is asked to."""
    if words[0] in ("python", "ssh"):
        arguments = words[1:] if words[0] == "python" else words[3:]
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return
    assert words[0] == "convfabric", words
    for carried in range(4):
        result = run(shortened(made_for(words))[1:])
        if result.exit_code != 5 or carried == 3:
            break
        subprocess.run([sys.executable, "kit/timing.py"], check=True, stdout=subprocess.DEVNULL)
    assert result.exit_code == 0, (words, result.output, result.exception)


def read_alone(job: Job, folder: Path, **_: Any) -> None:
    """A fit up to where training begins: its data are opened, its network is made, and its weights are read."""
    untrained(job, opened(job))
    raise typer.Exit


def is_read_alone(file: Path, words: list[str], later: list[list[str]]) -> bool:
    """Whether it is a fit of a library's network, or one outside the README, whose run nothing after it needs."""
    if words[1] != "fit" or (file.name == "README.md" and not any(map(LIBRARY.match, words))):
        return False
    folder = default_folder(words[2])
    return folder.exists() or not any(word.startswith(str(folder)) for line in later for word in line)


@pytest.mark.slow
@pytest.mark.parametrize("file", TYPED, ids=lambda file: file.name)
def test_what_the_documents_say_to_type_works(file: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of the README are run to their end; others up to their training, but for what is read after them."""
    if file.name == "universality.md":
        typed(["convfabric", "fit", "photos/", "--macs", "50%"])
    told = commands(file)
    for at, words in enumerate(told):
        said = shlex.join(words)
        if not said.startswith(ELSEWHERE) and said != EVERY_CONSTRUCTION:
            with monkeypatch.context() as patch:
                if is_read_alone(file, words, told[at + 1 :]):
                    patch.setattr("convfabric.pipeline.fit.run_job", read_alone)
                typed(words)
