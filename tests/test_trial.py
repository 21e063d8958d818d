"""The page that answers dropped images: it prepares and answers them as predict.py does."""

import importlib.util
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from browser import needs_browser, tab
from convfabric.data.imageset import Preprocessing
from convfabric.data.reading import fitted_array
from convfabric.errors import ArchiveError, SettingError
from convfabric.execution.compiler import kept_in
from convfabric.exporting.formats import write_onnx
from convfabric.exporting.predictor_script import write_predictor
from convfabric.exporting.program import program
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric
from convfabric.report.browser_runtime import PACKAGE, BrowserRuntime, browser_runtime, packed
from convfabric.report.trial_page import check_tried, trial_page, write_trial
from convfabric.weavers import weave

NO_RUNTIME = BrowserRuntime(program=packed(b"throw new Error('none is here')"), machine=packed(b""))
CLASSES = ("a</script>", "b")


def papers(channels: int = 3, task: str = "classification") -> Passport:
    words: dict[str, Any] = {"image_channels": channels, "classes": 2, "task": task, "layers": 2, "scales": 3}
    known: dict[str, Any] = {"mean": (0.5,) * channels, "std": (0.25,) * channels, "fitting": "pad"}
    preprocessing = Preprocessing(size=(12, 16), channels=channels, **known)
    return Passport(graph=weave("fabric-tiny", size=(12, 16), **words), preprocessing=preprocessing, classes=CLASSES)


def noise(file: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(file)
    return array


@needs_browser
def test_images_are_prepared_as_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(trial_page("a", papers(), b"", NO_RUNTIME))
    asked = "Object.assign(facts, {{fitting: '{}', channels: {}}}); prepared(place('files').files[0])"
    with tab(tmp_path / "page.html") as shown:
        for shape in ((12, 16), (31, 20), (7, 50), (5, 6)):
            colour = noise(tmp_path / f"{shape[0]}.png", (*shape, 3))
            grey = np.asarray(Image.fromarray(colour).convert("L"))[..., None]
            shown.choose("#files", tmp_path / f"{shape[0]}.png")
            for fitting in ("pad", "cover", "stretch"):
                for array in (colour, grey):
                    said = asked.format(fitting, array.shape[2])
                    found = shown.run(f"{said}.then((one) => [...one.pixels])")
                    wanted = fitted_array(array, (12, 16), fitting).transpose(2, 0, 1)
                    assert np.abs(np.reshape(found, wanted.shape) - wanted).max() <= 1, (shape, said)
        said = shown.run("ready.catch(() => place('state').textContent)")
        assert said == "This browser cannot run the network: none is here"


SEEN = """((size, scaled) => ({ canvas: document.createElement("canvas"), size, scaled,
 top: Math.floor((scaled[0] - HEIGHT) / 2), left: Math.floor((scaled[1] - WIDTH) / 2) }))"""
"""What ``prepared`` says of an image of a height and width."""
SAID = "map((line) => line.textContent)"


@needs_browser
def test_boxes_and_masks_are_those_of_predict_py(tmp_path: Path) -> None:
    write_predictor(tmp_path)
    made = importlib.util.spec_from_file_location("predict", tmp_path / "predict.py")
    assert made
    assert made.loader
    made.loader.exec_module(theirs := importlib.util.module_from_spec(made))
    dice = np.random.default_rng(1)
    corners = np.sort(dice.random((40, 2, 2)) * (16, 12), axis=1).reshape(40, 4)
    answer = np.concatenate([corners, dice.random((40, 2))], 1).astype(np.float32)
    facts = {"size": [12, 16], "fitting": "pad", "classes": list(CLASSES)}
    wanted = [
        f"{one['class']} {100 * one['probability']:.1f} %" for one in theirs.boxes_found(answer, facts, (9, 9), 0.3)
    ]
    (tmp_path / "page.html").write_text(trial_page("a", papers(task="detection"), b"", NO_RUNTIME))
    with tab(tmp_path / "page.html") as shown:
        asked = f"boxesOf(new Float32Array({answer.flatten().tolist()}), {SEEN}([9, 9], [9, 9]))"
        assert shown.run(f"{asked}.{SAID}") == wanted
    (tmp_path / "page.html").write_text(trial_page("a", papers(task="segmentation"), b"", NO_RUNTIME))
    with tab(tmp_path / "page.html") as shown:
        logits = [0.0] * (12 * 16) + [1.0] * 48 + [-1.0] * 144
        asked = f"maskOf(new Float32Array({logits}), {SEEN}([12, 16], [12, 16]))"
        assert shown.run(f"{asked}.{SAID}") == [f"{CLASSES[0]} 75.0 %", f"{CLASSES[1]} 25.0 %"]


@needs_browser
@pytest.mark.skipif(not (kept_in() / PACKAGE).is_file(), reason="the runtime for browsers was not fetched here")
def test_the_network_answers_in_the_browser_as_in_predict_py(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_onnx(program(Fabric(papers().graph).eval(), papers()), papers(), tmp_path / "model.onnx")
    write_predictor(tmp_path)
    noise(tmp_path / "some.png", (31, 20, 3))
    words = [sys.executable, str(tmp_path / "predict.py"), str(tmp_path / "some.png")]
    wanted = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    with tab(write_trial(tmp_path, papers())) as shown:
        shown.choose("#files", tmp_path / "some.png")
        said = shown.run(
            "ready.then((one) => answered(one, place('files').files[0])).then(() => document.body.innerText)"
        )
    assert f"{wanted['class']} {100 * wanted['probability']:.1f} %" in said


def test_what_browsers_cannot_read_is_refused() -> None:
    check_tried(papers(channels=1))
    with pytest.raises(SettingError, match=r"this network reads 2 channels, from 0 to 65535. predict.py reads them"):
        check_tried(papers(channels=2))


def test_only_the_published_runtime_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise OSError("no network connection")

    monkeypatch.setattr(urllib.request, "urlopen", nowhere)
    with pytest.raises(ArchiveError, match=r"cannot be fetched \(no network connection\). Fetch it where "):
        browser_runtime(tmp_path)
    (tmp_path / PACKAGE).write_bytes(b"another")
    with pytest.raises(ArchiveError, match=r"not what the authors of onnxruntime-web published"):
        browser_runtime(tmp_path)
