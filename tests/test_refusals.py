"""What is typed wrongly, or cannot be, is refused in a line that names what would be accepted, and nothing is lost."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from convfabric.runs.job import known_settings
from convfabric.setting_values import OTHER_NAMES
from folders import class_folders
from test_pipeline import done, refusal


def test_force_replaces_runs_only(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years")
    (tmp_path / "config.yaml").write_text("data: mine\nnetwork: mine\n")
    (tmp_path / "model.safetensors").write_text("weeks")
    assert "is not a run" in refusal(["fit", "digits", "--out", tmp_path, "--force", "--epochs", 1])
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_force_leaves_what_is_not_the_runs_own(tmp_path: Path) -> None:
    words = ["train", "digits", "--network", "fabric-tiny", "--epochs", 1, "--out", tmp_path]
    done(words)
    (tmp_path / "notes.txt").write_text("mine")
    done([*words, "--force"])
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("unknown", "advice"),
    [
        ("epoch", "Did you mean epochs?"),
        ("learning_rate", "Did you mean lr?"),
        ("growth", "Networks that have it: msdnet, densenet."),
        ("quux", "Known are of auto layers, scales"),
    ],
)
def test_an_unknown_setting_is_refused_with_what_may_be_meant(unknown: str, advice: str, tmp_path: Path) -> None:
    said = refusal(["fit", "digits", "--out", tmp_path / "r", "--set", f"{unknown}=3"])
    assert f"{unknown}: unknown. {advice}" in said
    assert not (tmp_path / "r").exists()


def test_every_setting_is_listed_with_default_values_and_meaning() -> None:
    listed = json.loads(done(["settings", "--json"]))["settings"]
    assert {one["name"] for one in listed} >= set(known_settings()) - {"data", "prior"}
    assert [one["name"] for one in listed if not (one["about"] and one["kind"])] == []
    assert re.search(r"schedule +cosine  cosine, poly, steps or constant\n", done(["settings"]))
    assert "Highest learning rate; 0: what usually" in done(["settings", "lr"])
    assert "batch_size: no setting. Did you mean batch?" in refusal(["settings", "batch_size"])
    assert set(OTHER_NAMES.values()) <= {one["name"] for one in listed}


def test_a_setting_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "epochs=many: expected int" in refusal(["fit", "digits", "--out", tmp_path / "r", "--set", "epochs=many"])


def test_bad_data_leave_no_run_behind(tmp_path: Path) -> None:
    (class_folders(tmp_path / "d") / "train" / "red" / "0.png").write_bytes(b"")
    assert "0.png: zero bytes long" in refusal(["fit", tmp_path / "d", "--out", tmp_path / "r"])
    assert not (tmp_path / "r").exists()


def test_a_run_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(["fit", "digits", "--macs", "25%", "--out", tmp_path / "file" / "run"])
    assert f"run: cannot be made, as {tmp_path / 'file'} is no folder that may be written in" in said
    assert "timing" not in said


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    assert "no graph.json" in refusal(["predict", tmp_path, tmp_path / "a.png"])
    assert "no trained fabric in it" in refusal(["extract", tmp_path])


def test_describe_gives_the_published_counts() -> None:
    facts = json.loads(done(["describe", "paper-mnist-dense", "--json"]))
    assert (facts["edges"], facts["parameters"]) == (122, 4_512_650)
    assert {"nodes", "macs", "activation_bytes", "architectures"} <= set(facts)


def test_list_and_doctor_answer() -> None:
    assert "fabric-small" in done(["list"])
    assert json.loads(done(["doctor", "--json"]))["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe", "trellis", "--set", "channels=abc"], "channels=abc: expected int"),
        (["describe", "trellis", "--set", "task=depth"], "task=depth: expected"),
        (["describe", "trellis", "--set", "chanels=4"], "chanels: trellis has layers, scales, channels"),
        (["describe", "fabric-tiny", "--size", "big"], "size=big: give WIDTHxHEIGHT"),
        (["fit", "digits", "--size", "20000x20000"], "at most 4096 pixels on a side"),
        (["fit", "digits", "--macs", "150%"], "macs=150%: give a number above 0, such as 1e7, or a share"),
        (["fit", "digits", "--config", "nope.yaml"], "nope.yaml: no such file"),
        (["fit", "nowhere"], "nowhere: no such folder"),
        (["evaluate", "nowhere"], "nowhere: no such folder; give that of a run"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_odd_words_are_answered_in_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refusal(words)
    assert list(tmp_path.iterdir()) == []


def test_force_and_resume_together_are_refused() -> None:
    assert "give one of them" in refusal(["fit", "digits", "--force", "--resume"], code=2)


def test_an_impossible_budget_is_refused_before_training(tmp_path: Path) -> None:
    words = ["fit", "digits", "--network", "fabric-tiny", "--macs", "10", "--out", tmp_path / "r"]
    assert "the smallest, " in refusal(words, code=3)
    assert not (tmp_path / "r" / "fabric").exists()


def test_fit_from_python_takes_settings_by_name_and_data_sets(tmp_path: Path) -> None:
    from torch.utils.data import TensorDataset

    import convfabric

    sets = {name: TensorDataset(torch.rand(64, 2, 8, 8), torch.arange(64) % 3) for name in ("train", "val")}
    small: dict[str, Any] = {"network": "fabric-tiny", "layers": 2, "epochs": 1, "search": "exact"}
    record: Any = convfabric.fit(sets, tmp_path / "r", params="60%", **small).record
    assert record.network.parameters <= 0.6 * record.fabric.parameters
    assert (tmp_path / "r" / "model.onnx").is_file()
    assert "its images have 2 channels" in refusal(["predict", tmp_path / "r", "any.png"])


def test_a_fit_that_is_refused_begins_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    assert "halves images 4 times" in refusal(["fit", "digits", "--network", "vgg", "--out", folder])
    assert not folder.exists()
    words = ["fit", "digits", "--network", "nin", "--macs", "5%", "--out", folder]
    assert "no sub-network fits" in refusal(words, code=3)
    assert not folder.exists()
