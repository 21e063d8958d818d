"""Part Labels in its published formats, made small: read, trained on, scored by superpixels; bad files are named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from convfabric.cli.commands import app
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.data.part_labels import CLASSES, LISTS, OF_SUPERPIXELS, SUPERPIXELS, superpixels_of
from convfabric.errors import DataError
from convfabric.evaluation.superpixels import superpixel_score
from convfabric.fabric.module import Fabric
from convfabric.weavers import weave
from folders import picture

SIDE, CELL = 24, 4
PEOPLE = {"train": 6, "val": 3, "test": 3}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Twelve images of hair above skin on a background, with a grid of superpixels."""
    root = tmp_path / "faces"
    for at, (split, count) in enumerate(PEOPLE.items()):
        lines = []
        for i in range(count):
            name, number = f"Some_Body_{'abc'[at]}{i}", i + 1
            face(root, name, number, np.random.default_rng(10 * at + i))
            lines.append(f"{name} {number}\n")
        (root / LISTS[split]).write_text("".join(lines))
    return root


def face(root: Path, name: str, number: int, dice: np.random.Generator) -> None:
    stem, classes = f"{name}_{number:04d}", np.full((SIDE, SIDE), 2)
    left, top = dice.integers(2, 8, 2)
    classes[top : top + 6, left : left + 12], classes[top + 6 : top + 14, left : left + 12] = 0, 1
    colours = np.eye(3, dtype=np.uint8)[classes] * 255
    picture(root / "lfw_funneled" / name / f"{stem}.jpg", size=(SIDE, SIDE), seed=int(dice.integers(1000)))
    mask = root / "parts_lfw_funneled_gt_images" / f"{stem}.ppm"
    mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours).save(mask)
    rows = np.arange(SIDE) // CELL
    cells = rows[:, None] * (SIDE // CELL) + rows[None]
    commonest = [np.bincount(classes[cells == cell]).argmax() for cell in range(cells.max() + 1)]
    for folder, values in ((SUPERPIXELS, cells), (OF_SUPERPIXELS, np.array([len(commonest), *commonest]))):
        file = root / folder / name / f"{stem}.dat"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(file, values, fmt="%d")


def test_images_masks_and_lists_are_read_as_they_are_published(faces: Path) -> None:
    data = open_data(faces)
    assert data.classes == CLASSES
    assert {split: len(part) for split, part in data.splits.items()} == PEOPLE
    images, masks = next(iter(data.splits["train"].batches([[0]])))
    assert images.shape == (1, 3, SIDE, SIDE)
    name = Path((data.files or {})["train"][0]).stem
    seen = np.asarray(Image.open(faces / "parts_lfw_funneled_gt_images" / f"{name}.ppm"))
    assert np.array_equal(masks[0].numpy(), seen.argmax(2))


def test_the_score_over_superpixels_is_that_of_three_plain_lines(faces: Path) -> None:
    data = open_data(faces, DataOptions(size=(32, 32)))
    torch.manual_seed(0)
    fabric = Fabric(weave("unet", size=(32, 32), task="segmentation", classes=3, channels=3, scales=2)).eval()
    found = superpixel_score(fabric, data, "test", lambda file: superpixels_of(faces, file))
    right, total = 0, 0
    for at, file in enumerate((data.files or {})["test"]):
        images, _ = next(iter(data.splits["test"].batches([[at]])))
        labels, classes = superpixels_of(faces, Path(file))
        with torch.inference_mode():
            logits = fabric(data.preprocessing.normalised(images))
        odds = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode="bilinear")[0].softmax(0).numpy()
        answers = [odds[:, labels == cell].mean(1).argmax() for cell in range(len(classes))]
        right, total = right + int((np.array(answers) == classes).sum()), total + len(classes)
    assert (found.right, found.superpixels) == (right, total)
    assert total == 3 * (SIDE // CELL) ** 2
    assert 0 < found.right < found.superpixels


def test_a_run_is_scored_by_superpixels(faces: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["fit", faces, "--out", run, "--macs", "60%", "--network", "unet", "--epochs", "2", "--set", "channels=2"]
    words += ["--set", "scales=2", "--set", "trials=2", "--set", "give_up=0"]
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    answered = CliRunner().invoke(app, ["evaluate", str(run), "--json"]).stdout
    assert 0 <= json.loads(answered)["superpixel_accuracy"] <= 1
    assert "of 108 superpixels" in CliRunner().invoke(app, ["evaluate", str(run)]).stdout
    result = CliRunner().invoke(app, ["evaluate", str(run), "--crf", "--json"])
    assert result.exit_code == 0, result.output
    field = json.loads(result.stdout)["field"]
    assert field["score"]["images"] == 3
    assert field["refined_ms"] > field["alone_ms"] > 0
    assert field["superpixels"]["superpixels"] == 108 >= field["superpixels"]["right"] > 0
    refused = CliRunner().invoke(app, ["evaluate", str(run), str(faces), "--crf"])
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("parts_train.txt", "Some_Body_a0\n", "parts_train.txt, line 1: 'Some_Body_a0'; a name and a number"),
        ("parts_train.txt", "Some_Body_a0 1\n\nNo_Body 3\n", "line 3: .*No_Body_0003.jpg is not there"),
        ("parts_train.txt", "\ufeffSome_Body_a0 1\nSome_Body_a1 ²\n", "line 2: 'Some_Body_a1 ²'; a name and a number"),
        ("parts_test.txt", "Some_Body_a0 1\n", "Some_Body_a0 1 stands in .*parts_train.txt, line 1 already"),
    ],
)
def test_lines_of_the_lists_that_name_nothing_are_named(faces: Path, file: str, text: str, said: str) -> None:
    (faces / file).write_text(text, "utf-8")
    with pytest.raises(DataError, match=said):
        open_data(faces)


def test_lists_are_read_in_any_coding_of_unicode_and_others_are_named(faces: Path) -> None:
    for name in ("parts_train.txt", "parts_test.txt"):
        (faces / name).write_text((faces / name).read_text("utf-8"), "utf-16")
    assert {split: len(part) for split, part in open_data(faces).splits.items()} == PEOPLE
    (faces / "parts_test.txt").write_bytes("Jos\xe9_Body 1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"parts_test\.txt: not in UTF-8, and not in UTF-16 with its mark"):
        open_data(faces)


def test_a_mask_of_another_colour_is_named(faces: Path) -> None:
    file = faces / "parts_lfw_funneled_gt_images" / "Some_Body_b0_0001.ppm"
    Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(file)
    with pytest.raises(DataError, match=r"Some_Body_b0_0001.ppm: colour #090909 in 576 pixels"):
        open_data(faces)


@pytest.mark.parametrize(
    ("folder", "text", "said"),
    [
        (SUPERPIXELS, "0 1\n\nx 1\n", "line 3: 'x'; whole numbers from 0"),
        (SUPERPIXELS, "0 1\n1\n", "line 2: 1 numbers; the first row has 2"),
        (SUPERPIXELS, " \n", "empty; rows of whole numbers"),
        (OF_SUPERPIXELS, "", "empty; rows of whole numbers"),
        (SUPERPIXELS, "0 1\n1 2\n", "2 rows of 2 superpixels; Some_Body_c0_0001.jpg has 24 rows of 24 pixels"),
        (SUPERPIXELS, ("99 " * SIDE + "\n") * SIDE, "superpixels 99 to 99; there are the classes of 0 to 35"),
        (OF_SUPERPIXELS, "4\n0\n1\n", "promises 4 superpixels and has the classes of 2"),
        (OF_SUPERPIXELS, "2\n0\n7\n", "class 7; classes are 0"),
        (SUPERPIXELS, f"{10**20} 1\n", f"line 1: '{10**20}'; whole numbers from 0"),
        (OF_SUPERPIXELS, "0\n", "no superpixel; their number and the class of each"),
        (SUPERPIXELS, None, "is not there: superpixels of Some_Body_c0_0001.jpg"),
    ],
)
def test_files_of_superpixels_that_do_not_fit_are_named(faces: Path, folder: str, text: str | None, said: str) -> None:
    file = faces / folder / "Some_Body_c0" / "Some_Body_c0_0001.dat"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(DataError, match=said):
        superpixels_of(faces, faces / "lfw_funneled" / "Some_Body_c0" / "Some_Body_c0_0001.jpg")
