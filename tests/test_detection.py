"""Boxes around things: read, learnt, found, counted, delivered."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from convfabric import fit, import_network, open_data
from convfabric.boxes.anchors import anchors
from convfabric.boxes.answers import Found, boxes_and_odds, decoded, encoded, found_boxes, found_in, laid_out, parted
from convfabric.boxes.average_precision import precision
from convfabric.boxes.moving import moved
from convfabric.boxes.multibox import box_loss
from convfabric.data.augmentation import Augmentation, augmented
from convfabric.data.options import DataOptions
from convfabric.errors import DataError, SettingError
from convfabric.pipeline.evaluate import evaluate, predictor
from convfabric.runs.job import RATE_FOR_BOXES, job_from
from convfabric.weavers import weave
from test_extraction import lively_fabric
from test_importing import torchvision_s

KINDS = ("bar", "block")


def things(root: Path, each: Mapping[str, int], seed: int = 0, side: int = 64) -> Path:
    """Grey images with bright bars and blocks on noise, and a COCO file for each split; the one for training."""
    dice = np.random.default_rng(seed)
    for split, count in each.items():
        (root / split).mkdir(parents=True)
        images, rows = [], []
        for number in range(count):
            picture = Image.fromarray(dice.integers(0, 80, (side, side), dtype=np.uint8))
            pen = ImageDraw.Draw(picture)
            for label in dice.permutation(2)[: dice.integers(1, 3)].tolist():
                wide, high = (40, 8) if label == 0 else (20, 22)
                left, top = (int(dice.integers(0, side - most)) for most in (wide, high))
                pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=int(dice.integers(170, 255)))
                rows.append({"image_id": number, "category_id": label + 5, "bbox": [left, top, wide, high]})
            picture.save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{split}/{number}.png", "width": side, "height": side})
        categories = [{"id": at + 5, "name": name} for at, name in enumerate(KINDS)]
        found = {"images": images, "annotations": rows, "categories": categories}
        (root / f"things-{split}.json").write_text(json.dumps(found))
    return root / "things-train.json"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return things(tmp_path_factory.mktemp("things"), {"train": 96, "val": 32, "test": 32})


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "things"
    small: dict[str, Any] = {"network": "fabric-tiny", "layers": 2, "channels": 8}
    fit(str(source), folder, epochs=14, finetune=0.3, macs="60%", trials=4, accelerator="cpu", **small)
    return folder


def changed(source: Path, tmp_path: Path, change: Any) -> Path:
    """A copy of a COCO file with one change to its annotations."""
    document = json.loads(source.read_text())
    change(document)
    for one in document["images"]:
        one["file_name"] = str(source.parent / one["file_name"])
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(document))
    return file


def test_boxes_are_read_from_coco_files_with_their_images(source: Path) -> None:
    data = open_data(source)
    assert (data.task, data.classes, data.preprocessing.size) == ("detection", KINDS, (64, 64))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 96, "val": 32, "test": 32}
    images, targets = next(data.splits["train"].batches([[0, 1, 2, 3]]))
    assert (targets.dtype, targets.shape) == (torch.float32, (4, 2, 5))
    for image, boxes in zip(images, targets, strict=True):
        for label, left, top, right, bottom in boxes[boxes[:, 0] >= 0].int().tolist():
            inside = image[0, top:bottom, left:right]
            assert (inside >= 80).float().mean() > 0.99
            assert (right - left > bottom - top) == (KINDS[label] == "bar")
    assert any(note.startswith("boxes: ") for note in data.notes)


@pytest.mark.parametrize(("fitting", "size"), [("stretch", (32, 96)), ("pad", (80, 100)), ("cover", (32, 48))])
def test_boxes_stay_around_what_they_were_drawn_around(source: Path, fitting: Any, size: tuple[int, int]) -> None:
    data = open_data(source, DataOptions(size=size, fitting=fitting))
    images, targets = next(data.splits["val"].batches([list(range(32))]))
    for image, boxes in zip(images, targets, strict=True):
        for _, left, top, right, bottom in boxes[boxes[:, 0] >= 0].round().int().tolist():
            inside = image[0, top + 1 : bottom - 1, left + 1 : right - 1]
            assert inside.numel() == 0 or inside.float().mean() > 120


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["annotations"][3].update(bbox=[1, 2, 3]), r"annotation 3: bbox \[1, 2, 3\]; left, top, width"),
        (lambda d: d["annotations"][0].update(bbox=["a", 2, 3, 4]), "annotation 0: bbox"),
        (lambda d: d["annotations"][0].update(bbox=[9, 9, -4, 4]), r"bbox \[9, 9, -4, 4\]; left, top, width"),
        (lambda d: [one.update(bbox=None) for one in d["annotations"][:3]], r"3 things are wrong(.|\n)*annotation 2"),
        (lambda d: d["annotations"][0].update(bbox=[50, 2, 30, 4]), r"beyond the image of 64×64 pixels"),
        (lambda d: d["annotations"][0].update(bbox=[0.1, 0.2, 0.3, 0.4]), "not as shares"),
        (lambda d: d["annotations"][0].update(category_id=77), "category_id 77"),
        (lambda d: d["annotations"].clear(), "no annotation with a box"),
        (lambda d: d["categories"].append({"id": 5, "name": "other"}), "two categories have the id 5"),
        (lambda d: d["images"][0].update(width=100, height=64), "boxes for 100×64 pixels, the image has 64×64"),
    ],
)
def test_what_is_wrong_in_a_file_of_boxes_is_named(source: Path, tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_data(changed(source, tmp_path, change))


def test_crowds_and_boxes_without_an_area_are_left_out_and_said(source: Path, tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["annotations"][0]["iscrowd"] = 1
        document["annotations"][1]["bbox"][2] = 0

    data = open_data(changed(source, tmp_path, change))
    assert "left out of them: 2 around crowds, or without an area" in data.notes


def test_categories_without_a_box_are_left_out_and_a_test_without_boxes_too(source: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        document = json.loads(source.with_name(f"things-{split}.json").read_text())
        document["categories"].append({"id": split == "val", "name": "shapes"})
        for one in document["images"]:
            one["file_name"] = str(source.parent / one["file_name"])
        if split == "test":
            del document["annotations"]
        (tmp_path / f"Things-{split.capitalize()}.json").write_text(json.dumps(document))
    data = open_data(tmp_path / "Things-Train.json")
    assert (data.classes, set(data.splits)) == (KINDS, {"train", "val"})
    assert "no box of shapes, left out of the classes" in data.notes
    assert any("Things-Test.json: no annotation with a box, left out" in note for note in data.notes)


def test_a_file_of_roboflow_s_brings_its_other_splits(source: Path, tmp_path: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        shutil.copytree(source.parent / split, tmp_path / folder)
        document = json.loads(source.with_name(f"things-{split}.json").read_text())
        for one in document["images"]:
            one["file_name"] = Path(one["file_name"]).name
        (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(document))
    for named in (tmp_path, tmp_path / "train" / "_annotations.coco.json"):
        data = open_data(named)
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 96, "val": 32}


def test_the_split_that_a_file_is_named_for_is_scored(run: Path, source: Path) -> None:
    found = {split: evaluate(run, str(source.with_name(f"things-{split}.json"))) for split in ("train", "val", "test")}
    assert {name: one.split for name, one in found.items()} == {"train": "train", "val": "val", "test": "test"}
    assert found["train"].trained_on
    assert found["test"].score == evaluate(run).score


def test_a_file_with_outlines_is_for_segmentation_unless_boxes_are_asked_for(source: Path, tmp_path: Path) -> None:
    def outline(document: dict[str, Any]) -> None:
        for one in document["annotations"]:
            left, top, wide, high = one["bbox"]
            one["segmentation"] = [[left, top, left + wide, top, left + wide, top + high, left, top + high]]

    file = changed(source, tmp_path, outline)
    tasks = [open_data(file, DataOptions(task=task)).task for task in (None, "detection")]  # type: ignore[arg-type]
    assert tasks == ["segmentation", "detection"]
    with pytest.raises(DataError, match="for segmentation and detection, not classification"):
        open_data(file, DataOptions(task="classification"))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "photos" / name / "1.png")
    with pytest.raises(DataError, match="for classification, not for detection"):
        open_data(tmp_path / "photos", DataOptions(task="detection"))


def random_boxes(count: int, dice: torch.Generator, side: int = 64) -> Tensor:
    ends = torch.rand(count, 2, 2, generator=dice) * side
    low, high = ends.amin(1), ends.amax(1)
    return torch.cat([low, torch.maximum(high, low + 4)], 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_torchvision_s_ssd(seed: int) -> None:
    dice, image, classes = torch.Generator().manual_seed(seed), (64, 64), 3
    maps = [torch.randn(2, 6 * (classes + 5), side, side, generator=dice) for side in (8, 4)]
    answer = torch.cat([laid_out(one, image) for one in maps], 2)
    said, boxes = parted(answer), []
    for count in (4, 2):  # near anchors, so that rounding does not say which one is most alike
        near = said.anchors_4N[:, torch.randperm(480, generator=dice)[:count]]
        boxes.append(decoded(0.5 * torch.randn(4, count, generator=dice), near).T.contiguous())
    labels = [torch.randint(0, classes, (len(one),), generator=dice) for one in boxes]
    targets = -torch.ones(2, 5, 5)
    for at, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        targets[at, : len(box)] = torch.cat([label[:, None].float(), box], 1)
    corners = box_convert(said.anchors_4N.T, "cxcywh", "xyxy")
    matched = [SSDMatcher(0.5)(box_iou(box, corners)) for box in boxes]
    theirs = SimpleNamespace(box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    logits = torch.cat([said.logits_BKN[:, -1:], said.logits_BKN[:, :-1]], 1).transpose(1, 2)
    outputs = {"bbox_regression": said.offsets_B4N.transpose(1, 2), "cls_logits": logits.contiguous()}
    given = [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]
    wanted = SSD.compute_loss(theirs, given, outputs, [corners] * 2, matched)  # type: ignore[arg-type]
    assert float(box_loss(answer, targets)) == pytest.approx(float(sum(wanted.values())), rel=1e-5)


def test_offsets_are_those_of_torchvision_and_lead_back_to_the_boxes() -> None:
    dice, around = torch.Generator().manual_seed(0), anchors((4, 4), (64, 64), torch.zeros(1))
    boxes = random_boxes(around.shape[1], dice)
    offsets = encoded(boxes.T, around)
    theirs = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)).encode_single(boxes, box_convert(around.T, "cxcywh", "xyxy"))
    torch.testing.assert_close(offsets.T, theirs)
    torch.testing.assert_close(decoded(offsets, around).T, boxes)


def test_a_part_learns_from_the_whole_though_it_reads_fewer_scales() -> None:
    graph = weave("fabric-tiny", size=(64, 64), classes=2, task="detection", scales=4)
    fabric, images = lively_fabric(graph, 0), torch.randn(2, 3, 64, 64)
    last = graph.head.reads[-1]
    part = graph.restrict(graph.edge_names - {edge.name for edge in graph.arriving(last)})
    assert len(part.head.reads) < len(graph.head.reads)
    with torch.no_grad():
        whole, some, other = fabric(images), fabric(images, part), lively_fabric(graph, 1)(images)
    targets = torch.tensor([[[1.0, 2, 3, 30, 30]], [[0, 10, 10, 50, 44]]])
    assert float(box_loss(some, targets, teacher_BVN=whole, distil=1.0)) == pytest.approx(0, abs=1e-4)
    assert float(box_loss(some, targets, teacher_BVN=other, distil=1.0)) > 1
    assert float(box_loss(whole, targets, teacher_BVN=whole, distil=1.0)) == 0
    with pytest.raises(SettingError, match="boxes of other shapes"):
        box_loss(whole, targets, teacher_BVN=some, distil=1.0)


@pytest.mark.parametrize(
    "how", [Augmentation(flip=True), Augmentation(shift=0.2, zoom=0.3), Augmentation(rotate=90), Augmentation(crop=0.8)]
)
def test_boxes_move_with_their_images(how: Augmentation) -> None:
    images, targets = torch.zeros(32, 1, 64, 64, dtype=torch.uint8), torch.zeros(32, 1, 5)
    images[:, :, 20:44, 10:50] = 255
    targets[:, 0] = torch.tensor([1.0, 10, 20, 50, 44])
    changed, boxes = augmented(images, targets, how, torch.Generator().manual_seed(0), 255, (64, 64))
    assert not torch.equal(boxes, targets)
    for image, (label, *sides) in zip(changed[:, 0], boxes[:, 0].tolist(), strict=True):
        assert label == 1
        lit = (image > 127).nonzero()
        top, left, bottom, right = (*lit.amin(0).tolist(), *(lit.amax(0) + 1).tolist())
        assert sides == pytest.approx([left, top, right, bottom], abs=1.01)


def test_a_box_that_moved_out_of_the_image_is_no_longer_looked_for() -> None:
    away = torch.tensor([[[1.0, 0, 1.9], [0, 1, 0]]])
    assert moved(torch.tensor([[[2.0, 0, 0, 4, 4]]]), away, (8, 8))[0, 0, 0] == -1


def test_of_boxes_that_overlap_the_surest_stays_for_each_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [0, 0, 10, 10], [40, 40, 60, 60]])
    odds = torch.tensor([[0.6, 0.0], [0.9, 0.0], [0.0, 0.7], [0.2, 0.0]])
    found = found_boxes(boxes, odds)
    assert found.odds_M.tolist() == pytest.approx([0.9, 0.7, 0.2])
    assert found.labels_M.tolist() == [0, 1, 0]


def test_average_precision_is_what_its_definition_says() -> None:
    there = [torch.tensor([[0.0, 0, 0, 10, 10], [0, 20, 20, 40, 40]]), torch.tensor([[1.0, 5, 5, 25, 25]])]
    boxes = [torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 40, 40]]), torch.tensor([[5.0, 5, 25, 19]])]
    odds = [torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0.5])]
    labels = [torch.zeros(3, dtype=torch.long), torch.ones(1, dtype=torch.long)]
    found = precision([Found(*one) for one in zip(boxes, labels, odds, strict=True)], there, 3)
    # class 0: right, wrong, right: precision 1 up to half of the recall, 2/3 beyond; class 1 overlaps by 0.7
    of_first = (51 * 1 + 50 * 2 / 3) / 101
    assert found.at_50 == pytest.approx((of_first + 1) / 2)
    assert found.of_class == (pytest.approx(of_first), pytest.approx(0.5), None)


def test_the_usual_rate_is_lower_for_boxes_however_the_task_is_known(source: Path) -> None:
    said: list[dict[str, Any]] = [{"data": str(source)}, {"data": "elsewhere", "task": "detection"}]
    assert [job_from(one).recipe.lr for one in said] == [RATE_FOR_BOXES] * 2
    assert job_from({"data": str(source), "lr": 0.2}).recipe.lr == 0.2
    assert job_from({"data": str(source), "optimiser": "adamw"}).recipe.lr == 0
    assert job_from({"data": "digits"}).recipe.lr > RATE_FOR_BOXES


def test_a_network_finds_what_it_was_trained_to_find(run: Path, source: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert record["network"]["score"]["ap50"] > 0.3
    found = evaluate(run)
    assert found.score.ap50 == pytest.approx(record["network"]["score"]["ap50"], abs=0.05)
    assert found.score.headline == found.score.ap50
    assert (run / "report.html").read_text().count("<figure>") == 12
    assert "val_ap50" in (run / "metrics.csv").read_text()


def test_the_file_s_boxes_are_the_network_s(run: Path, source: Path) -> None:
    import onnxruntime

    from convfabric.fabric.archive import load_fabric

    network, papers = load_fabric(run)
    pixels, _ = next(open_data(source).splits["test"].batches([[0, 1, 2]]))
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    (named,) = session.get_outputs()
    answer = network(papers.preprocessing.normalised(pixels))
    wanted = boxes_and_odds(answer, (64, 64)).detach()
    assert named.name == "boxes"
    np.testing.assert_allclose(session.run(None, {"images": pixels.float().numpy()})[0], wanted.numpy(), atol=2e-3)
    assert len(found_in(answer, (64, 64))) == 3


def test_predictions_are_in_pixels_of_the_image_and_alike_in_the_script(
    run: Path, source: Path, tmp_path: Path
) -> None:
    image = Image.open(source.parent / "test" / "0.png").resize((128, 96))
    image.save(tmp_path / "large.png")
    told = predictor(run, 0.1)(tmp_path / "large.png")
    spoken = subprocess.run(
        [sys.executable, str(run / "predict.py"), "--least", "0.1", str(tmp_path / "large.png")],
        capture_output=True,
        text=True,
        check=True,
    )
    again = json.loads(spoken.stdout)
    assert told["boxes"], "nothing found"
    assert len(predictor(run, 0.02)(tmp_path / "large.png")["boxes"]) > len(told["boxes"])
    assert [one["class"] for one in again["boxes"]] == [one["class"] for one in told["boxes"]]
    for one, other in zip(again["boxes"], told["boxes"], strict=True):
        assert one["box"] == pytest.approx(other["box"], abs=0.05)
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)
        assert 0 <= one["box"][0] <= one["box"][2] <= 128
        assert 0 <= one["box"][1] <= one["box"][3] <= 96


def test_categories_in_another_order_are_matched_by_name(run: Path, source: Path, tmp_path: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        for one in document["categories"]:
            one["id"] = 20 - one["id"]
        for one in document["annotations"]:
            one["category_id"] = 20 - one["category_id"]

    file = changed(source.with_name("things-test.json"), tmp_path, swap)
    assert open_data(file, draw=False).classes == KINDS[::-1]
    assert evaluate(run, str(file)).score.ap50 == pytest.approx(evaluate(run).score.ap50, abs=1e-6)


def test_a_network_of_torchvision_reads_boxes_by_a_decoder() -> None:
    fabric = import_network(torchvision_s("resnet18"), (64, 64), classes=1, task="detection")
    assert [place.scale for place in fabric.graph.head.reads] == [5, 4, 3, 2]
    assert fabric(torch.randn(1, 3, 64, 64)).shape == (1, 10, 6 * (4 + 16 + 64 + 256))


def test_boxes_in_int8_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="networks for detection are delivered in float32"):
        fit(str(source), tmp_path / "run", network="fabric-tiny", precision="int8")
