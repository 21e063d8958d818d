"""Runs evaluated on images that lie elsewhere than those they were trained on."""

import shutil
from itertools import product
from math import exp
from pathlib import Path

import pytest
import torch
from PIL import Image

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.errors import DataError
from convfabric.evaluation.crf import FieldNumbers, refined
from convfabric.fabric.archive import passport, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.pipeline.evaluate import evaluate
from convfabric.runs.folder import begin
from convfabric.runs.job import Job, job_from
from convfabric.runs.record import data_record, update_record
from convfabric.weavers import weave
from folders import class_folders, mask_folders, picture
from test_pipeline import refusal, run


def begun(folder: Path, job: Job) -> ImageSet:
    """A run whose network is as it was drawn, and its data."""
    data = open_data(job.data, job.options)
    begin(folder, job)
    update_record(folder, data=data_record(data))
    size, classes = data.preprocessing.size, len(data.classes)
    fabric = Fabric(weave("fabric-tiny", size=size, classes=classes, task=data.task))
    save_fabric(folder, fabric, passport(fabric, data))
    return data


def test_evaluate_knows_the_images_of_a_run_in_another_folder(tmp_path: Path) -> None:
    job = job_from({"data": str(class_folders(tmp_path / "mine", splits=())), "size": "8"})
    folder = tmp_path / "run"
    data = begun(folder, job)
    copied = shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    moved, whole = evaluate(folder, str(copied)), evaluate(folder, str(copied), "all")
    assert (moved.split, moved.score.images, moved.trained_on) == ("test", len(data.splits["test"]), False)
    assert (whole.score.images, whole.trained_on) == (sum(map(len, data.splits.values())), True)
    assert evaluate(folder, str(copied), "train").trained_on
    assert "the run's own images" in run(["evaluate", folder, copied]).output
    picture(copied / "red" / "more.png", colour=(200, 30, 30))
    others = evaluate(folder, str(copied))
    assert (others.split, others.same_images, others.trained_on) == ("all", False, None)
    picture(tmp_path / "mine" / "red" / "0.png", colour=(90, 30, 30))
    assert "mine: changed since" in refusal(["evaluate", folder])
    assert "mine: not what the fabric" in refusal(["export", folder])
    assert not evaluate(folder, job.data).same_images
    shutil.rmtree(tmp_path / "mine")
    assert "mine: gone, and" in refusal(["evaluate", folder])
    assert "put it back" in refusal(["report", folder])


@pytest.mark.parametrize("hold_mb", [512, 0])
def test_masks_that_were_changed_are_not_the_runs_own(tmp_path: Path, hold_mb: int) -> None:
    job = job_from({"data": str(mask_folders(tmp_path / "mine")), "hold_mb": hold_mb})
    folder = tmp_path / "run"
    begun(folder, job)
    copied = shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    assert evaluate(folder, str(copied)).same_images
    assert evaluate(folder, str(copied), "validation").split == "val"
    Image.new("L", (32, 32)).save(copied / "masks" / "val" / "0.png")
    assert not evaluate(folder, str(copied)).same_images
    Image.new("L", (32, 32), 3).save(copied / "masks" / "val" / "0.png")
    with pytest.raises(DataError, match=r"masks of 4 classes; the network knows 3"):
        evaluate(folder, str(copied))


def test_data_of_training_images_alone_are_scored(tmp_path: Path) -> None:
    job = job_from({"data": str(class_folders(tmp_path / "mine")), "size": "8"})
    folder = tmp_path / "run"
    begun(folder, job)
    assert evaluate(folder, str(class_folders(tmp_path / "other", splits=("train",)))).split == "train"
    assert evaluate(folder, str(class_folders(tmp_path / "tests", splits=("test",)))).split == "test"
    one = class_folders(tmp_path / "as many", splits=("test",), images=12)
    assert evaluate(folder, str(one)).split == "test"
    with pytest.raises(DataError, match="no split test; there are train, val"):
        evaluate(folder, split="test")


def test_a_field_moves_lone_pixels_to_their_neighbours_and_stops_at_edges_of_colour() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:] = 2.0  # an edge of colour down the middle
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 0, :, :4], logits[:, 1, :, 4:] = 1.0, 1.0
    logits[0, :, 3, 1] = torch.tensor([0.0, 0.8])
    classes = refined(logits, images, FieldNumbers()).argmax(1)[0]
    assert not classes[:, :4].any()
    assert classes[:, 4:].all()


@pytest.mark.parametrize("step", [1, 2])
def test_a_field_is_the_mean_field_of_its_pairs_written_pixel_by_pixel(step: int) -> None:
    torch.manual_seed(0)
    numbers = FieldNumbers(strength=2.0, colour=0.7, reach=1, step=step, iterations=2)
    images, logits = torch.randn(1, 2, 4, 5), torch.randn(1, 3, 4, 5)
    found = logits.clone()
    for _ in range(2):
        odds, after = found.softmax(1), logits.clone()
        for y, x in product(range(4), range(5)):
            total, message = 0.0, torch.zeros(3)
            for dy, dx in product((-step, 0, step), repeat=2):
                if (dy or dx) and 0 <= y + dy < 4 and 0 <= x + dx < 5:
                    apart = float((images[0, :, y + dy, x + dx] - images[0, :, y, x]).square().sum())
                    weight = exp(-apart / (2 * 0.7**2) - (dy**2 + dx**2) / (step / 2) ** 2 / 2)
                    total, message = total + weight, message + weight * odds[0, :, y + dy, x + dx]
            after[0, :, y, x] += 2.0 * message / total
        found = after
    torch.testing.assert_close(refined(logits, images, numbers), found)


@pytest.mark.parametrize("wrong", [{"colour": 0.0}, {"reach": 0}, {"strength": -1.0}, {"step": 1.5}])
def test_numbers_of_a_field_that_make_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FieldNumbers(**wrong)  # type: ignore[arg-type]
