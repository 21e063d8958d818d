"""What the command line says: answers alone on standard output, refusals before any work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from folders import class_folders
from test_pipeline import refusal


def test_what_a_library_prints_in_c_stays_out_of_the_answer() -> None:
    program = """
import ctypes
from convfabric.cli.console import answer, keep_answers_apart
keep_answers_apart()
ctypes.CDLL(None).puts(b"from a library")
answer(True, {"macs": 3}, [])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (json.loads(found.stdout), found.stderr) == ({"macs": 3}, "from a library\n")


@pytest.mark.parametrize("setting", ["channels=0", "prior=rood-8"])
def test_what_no_graph_can_be_woven_with_is_refused_before_images_are_read(setting: str, tmp_path: Path) -> None:
    (class_folders(tmp_path / "d") / "train" / "red" / "0.png").write_bytes(b"")
    assert f"{setting}: " in refusal(["fit", tmp_path / "d", "--out", tmp_path / "r", "--set", setting])


def test_a_run_that_is_resumed_with_another_network_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "config.yaml").write_text("data: digits\nnetwork: densenet\ngrowth: 4\n")
    said = refusal(["fit", "digits", "--network", "resnet", "--out", folder, "--resume"])
    assert "begun with network=densenet, now network=resnet" in said
