"""Runs evaluated on images that lie elsewhere than those they were trained on."""

import shutil
from pathlib import Path

from convfabric.archive import passport, save_fabric
from convfabric.data.opening import open_data
from convfabric.evaluation import evaluate
from convfabric.fabric import Fabric
from convfabric.job import job_from
from convfabric.noting import data_facts
from convfabric.runs import begin, note
from convfabric.weavers import weave
from folders import class_folders, picture
from test_pipeline import refusal, run


def test_evaluate_knows_the_images_of_a_run_in_another_folder(tmp_path: Path) -> None:
    job = job_from({"data": str(class_folders(tmp_path / "mine", splits=())), "size": "8"})
    data, folder = open_data(job.data, job.options), tmp_path / "run"
    begin(folder, job)
    note(folder, data=data_facts(data))
    fabric = Fabric(weave("fabric-tiny", size=(8, 8), classes=2))
    save_fabric(folder, fabric, passport(fabric, data))
    copied = shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    moved, whole = evaluate(folder, str(copied)), evaluate(folder, str(copied), "all")
    assert (moved.split, moved.score.images, moved.trained_on) == ("test", len(data.splits["test"]), False)
    assert (whole.score.images, whole.trained_on) == (sum(map(len, data.splits.values())), True)
    assert evaluate(folder, str(copied), "train").trained_on
    assert "the run's own images" in run(["evaluate", folder, copied]).output
    picture(copied / "red" / "more.png", colour=(200, 30, 30))
    others = evaluate(folder, str(copied))
    assert (others.split, others.own) == ("all", False)
    shutil.rmtree(tmp_path / "mine")
    assert "mine: gone, and" in refusal(["evaluate", folder])
