"""What the command line says: answers alone on standard output, refusals before any work."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import typer

from convfabric.cli import console
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


def test_nothing_is_begun_with_resume_alone(tmp_path: Path) -> None:
    said = refusal(["fit", "digits", "--out", tmp_path / "gone", "--resume"])
    assert "gone: no run there to go on with; type the whole command" in said
    assert not (tmp_path / "gone").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_the_interpreter_drops_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised while a weak reference calls back is printed and forgotten."""
    monkeypatch.setattr(console, "AGAIN", 0.05)

    def ended(reference: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    def asked_to_end() -> None:
        held = {1, 2}
        watched = weakref.ref(held, ended)
        del held
        assert watched() is None, "it goes on as if nothing had been asked"
        time.sleep(10)

    with pytest.raises(typer.Exit) as end, console.refusals():
        asked_to_end()
    assert end.value.exit_code == console.INTERRUPTED
    time.sleep(0.1)  # it is over: nothing comes again


def test_what_a_script_lets_its_background_jobs_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with console.refusals():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
