"""Masks and outlines as people have them; each is read right, or named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convfabric.data.masks import read_colours
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.data.reading import fitted_mask
from convfabric.errors import DataError
from folders import mask_folders, picture
from test_data import check_refused
from test_found_data import counts, said, seed, targets

COLOURS = ((0, 0, 0), (255, 0, 0), (0, 128, 64))


def coloured(root: Path, palette: bool = False) -> Path:
    """Masks of 0, 1, 2 as colours, or with palettes that every file has in another order."""
    for number, file in enumerate(sorted((mask_folders(root, values=(0, 1, 2)) / "masks").rglob("*.png"))):
        values = np.asarray(Image.open(file))
        if palette:
            order = np.roll(np.arange(3), number)
            image = Image.fromarray(np.argsort(order)[values].astype(np.uint8))
            image.putpalette([part for at in order for part in COLOURS[at]])
        else:
            image = Image.fromarray(np.array(COLOURS, np.uint8)[values])
        image.save(file)
    return root


def test_few_colours_are_classes(tmp_path: Path) -> None:
    data = open_data(coloured(tmp_path))
    assert data.classes == ("#000000", "#008040", "#ff0000")
    assert targets(data)[0, 0, [0, 12, 31]].tolist() == [0, 2, 1]


@pytest.mark.parametrize("layout", ["{0} {1} {2} {3}", "{3},{0},{1},{2}", "{0},{1},{2},{3}", "{0}\t{1}\t{2}\t\t{3}"])
def test_a_table_of_colours_names_the_classes(layout: str, tmp_path: Path) -> None:
    names = ("ground", "crack", "Void")
    lines = [layout.format(*colour, name) for colour, name in zip(COLOURS, names, strict=True)]
    (tmp_path / "table.txt").write_text("\n".join(lines))
    data = open_data(coloured(tmp_path / "data"), DataOptions(colours=str(tmp_path / "table.txt")))
    assert data.classes == ("ground", "crack")
    assert targets(data)[0, 0, [0, 12, 31]].tolist() == [0, 1, 255]


@pytest.mark.parametrize("line", ["0 10 20 30", "10 20 30 2 lanes", "10 20", "a b c"])
def test_a_line_of_colours_that_may_mean_two_things_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text(f"0 0 0 ground\nLane 2 255 0 0\n{line}\n")
    with pytest.raises(DataError, match=rf"line 3: '{line}'; three numbers"):
        read_colours(tmp_path / "table.txt", 255)


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("name,r,g,b", ("a,0,0,0", "b,1,0,0", "B,2,0,0"), "line 4: a second class is named B"),
        ("name,r,g,x", ("a,0,0,0", "b,1,0,0"), "a header of name, r, g, x; red, green and blue are wanted"),
    ],
)
def test_a_table_of_colours_that_cannot_be_meant_is_named(
    header: str, lines: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("\n".join([header, *lines]))
    with pytest.raises(DataError, match=message):
        read_colours(tmp_path / "table.csv", 255)


@pytest.mark.parametrize("header", ["name,b,g,r", "name,Blue,Green,Red"])
def test_a_header_says_in_which_order_colours_stand(header: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"{header}\nground,0,0,0\nlake,255,0,9\n")
    assert read_colours(tmp_path / "table.csv", 255)[0] == {(0, 0, 0): 0, (9, 0, 255): 1}


def test_masks_with_soft_edges_are_refused(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    for file in (tmp_path / "masks").rglob("*.png"):
        ramp = np.linspace(0, 255, 32).astype(np.uint8)
        Image.fromarray(np.repeat(ramp[None], 32, 0) + np.arange(32, dtype=np.uint8)[:, None]).save(file)
    check_refused(tmp_path, r"masks hold 25\d values, too many .* Soft edges .* binary_masks=true")


def test_a_class_that_a_split_has_no_pixel_of_is_told(tmp_path: Path) -> None:
    mask_folders(tmp_path, values=(0, 1, 2))
    for file in (tmp_path / "masks" / "val").iterdir():
        Image.fromarray(np.asarray(Image.open(file)).clip(0, 1)).save(file)
    for hold in (1000.0, 0.0):
        assert said(open_data(tmp_path, DataOptions(hold_mb=hold)), "val: no pixel of class 2")


def test_a_colour_that_a_table_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "masks").mkdir(parents=True)
    (tmp_path / "data" / "class_dict.csv").write_text("name,r,g,b\nground,0,0,0\ncrack,255,0,0\n")
    check_refused(coloured(tmp_path / "data"), r"0\.png: colour #008040 in \d+ pixels; classes are #000000, #ff0000")


def test_palettes_that_differ_are_read_by_their_colours(tmp_path: Path) -> None:
    data = open_data(coloured(tmp_path, palette=True))
    assert len(data.classes) == 3
    assert said(data, "palettes differ")
    assert len(targets(data).flatten(1).unique(dim=0)) == 1


@pytest.mark.parametrize(("ending", "how"), [("jpg", {}), ("webp", {"quality": 50}), ("tif", {"compression": "jpeg"})])
def test_masks_in_a_lossy_format_are_refused(ending: str, how: dict[str, Any], tmp_path: Path) -> None:
    file = mask_folders(tmp_path) / "masks" / "train" / "0.png"
    Image.open(file).save(file.with_suffix(f".{ending}"), **how)
    file.unlink()
    check_refused(tmp_path, r"which changes values; masks are read from PNG")


def test_masks_that_count_from_1_are_told_of(tmp_path: Path) -> None:
    assert said(open_data(mask_folders(tmp_path, values=(1, 2, 3))), "no mask has class 0; are they counted from 1?")


def coco(root: Path) -> Path:
    square, runs = [[0, 0, 15, 0, 15, 31, 0, 31]], {"size": [32, 32], "counts": [512, 256, 256]}
    for split in ("train", "val"):
        names = [f"{i}.png" for i in range(4)]
        for i, name in enumerate(names):
            picture(root / "images" / split / name, (32, 32), seed=seed(split, i))
        one = {"categories": [{"id": 7, "name": "dent"}, {"id": 3, "name": "crack"}]}
        one |= {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]}
        one |= {
            "annotations": [
                {"image_id": i, "category_id": number, "segmentation": found}
                for i in range(4)
                for number, found in ((3, square), (7, runs))
            ]
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(one))
    return root / "annotations" / "instances_train.json"


def test_outlines_of_coco_become_masks(tmp_path: Path) -> None:
    data = open_data(coco(tmp_path))
    assert (data.classes, counts(data)) == (("background", "crack", "dent"), {"train": 4, "val": 4})
    assert targets(data)[0, 0, [0, 14, 15, 16, 23, 24]].tolist() == [1, 1, 0, 2, 2, 0]


@pytest.mark.parametrize("prefix", ["C:\\\\data\\\\", "/elsewhere/"])
def test_coco_files_of_another_machine_name_files_beside_them(prefix: str, tmp_path: Path) -> None:
    file = coco(tmp_path)
    for one in file.parent.glob("*.json"):
        text = one.read_text().replace('"file_name": "', f'"file_name": "{prefix}')
        one.write_bytes(text.encode("utf-16"))
    assert counts(open_data(file)) == {"train": 4, "val": 4}


@pytest.mark.parametrize("text", ["[]", "{", '{"images": 3}', '{"images": [], "categories": [], "annotations": [{}]}'])
def test_a_json_file_that_is_no_coco_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    check_refused(tmp_path / "a.json", r"a\.json")


def changed_coco(root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    file = coco(root)
    for name in ("train", "val"):
        document = json.loads((root / "annotations" / f"instances_{name}.json").read_text())
        change(document)
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(document))
    return file


COCO_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another size": (
        lambda d: d["images"][0].update(height=64, width=64),
        r"outlines for 64×64 pixels, the image has 32",
    ),
    "beside the image": (lambda d: d["annotations"][0].update(segmentation=[[500, 500, 520, 500, 520, 520]]), "beside"),
    "shares": (lambda d: d["annotations"][0].update(segmentation=[[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]), "are no pixels"),
    "no number": (lambda d: d["annotations"][0].update(segmentation=[[float("nan")] * 6]), "are no pixels"),
    "no annotation": (lambda d: d.update(annotations=[]), "no annotation"),
    "an id twice": (lambda d: d["categories"].append({"id": 3, "name": "horse"}), "two categories have the id 3"),
    "two images with one id": (
        lambda d: d["images"][1].update(id=d["images"][0]["id"]),
        r"images 0\.png and 1\.png have the same id 0",
    ),
    "an annotation twice": (
        lambda d: d["annotations"].extend([d["annotations"][0] | {"id": 5}] * 2),
        "stands there twice, with the id 5",
    ),
    "no images": (lambda d: d.pop("images"), "not a COCO file, as it has no 'images'"),
    "an image without a name": (lambda d: d["images"][2].pop("file_name"), r"image 2: no file_name"),
    "a name twice": (
        lambda d: d["categories"].append({"id": 9, "name": "dent"}),
        "two categories have the name 'dent'",
    ),
    "an unknown image": (lambda d: d["annotations"][1].update(image_id=999), "annotation 1: image_id 999 is not among"),
    "an unknown category": (lambda d: d["annotations"][1].update(category_id="x"), "category_id 'x' is not among"),
    "a flat list": (lambda d: d["annotations"][0].update(segmentation=[1, 2, 3, 4, 5, 6]), "a list of polygons"),
    "letters": (lambda d: d["annotations"][0].update(segmentation=[["a"] * 6]), "not a COCO file"),
    "half a size": (
        lambda d: d["annotations"][1].update(segmentation={"size": [16], "counts": [1]}),
        "not a COCO file",
    ),
    "a long name": (lambda d: d["images"][0].update(file_name="x" * 5000), "not a COCO file"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_faults_of_coco_files_are_named(fault: str, tmp_path: Path) -> None:
    change, message = COCO_FAULTS[fault]
    check_refused(changed_coco(tmp_path, change), message)


def test_annotations_of_one_file_under_two_ids_are_all_drawn(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"].append({"id": 77, "file_name": document["images"][0]["file_name"]})
        document["annotations"][1]["image_id"] = 77

    assert targets(open_data(changed_coco(tmp_path, change)))[0, 0, [0, 16]].tolist() == [1, 2]


def test_an_outline_covers_the_pixels_whose_centres_it_holds(tmp_path: Path) -> None:
    square = [[4.0, 4.0, 8.0, 4.0, 8.0, 8.0, 4.0, 8.0]]
    data = open_data(changed_coco(tmp_path, lambda d: d["annotations"][0].update(segmentation=square)))
    assert int((targets(data)[0] == 1).sum()) == 16


@pytest.mark.parametrize(("size", "turn", "fits"), [((32, 16), 6, True), ((32, 16), 3, False), ((16, 16), 6, False)])
def test_a_turned_image_with_a_mask_that_is_not(size: tuple[int, int], turn: int, fits: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    for split in ("train", "val"):
        for i in range(3):
            file = picture(tmp_path / "images" / split / f"{i}.jpg", size, seed=seed(split, i))
            Image.open(file).save(file, exif=exif)
            shape = size if turn == 6 else size[::-1]
            mask = tmp_path / "masks" / split / f"{i}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8) % 2).save(mask)
    if fits:
        assert open_data(tmp_path).preprocessing.size == (32, 16)
    else:
        check_refused(tmp_path, "turned by its EXIF, and its mask is not")


def test_masks_shrink_about_the_centre_as_images_do() -> None:
    halves = fitted_mask(np.repeat([[0, 1]], 8, 1).astype(np.uint8).repeat(16, 0), (2, 2), "stretch", 255)
    assert halves.tolist() == [[0, 1], [0, 1]]
    stripes = np.tile(np.array([[9, 1, 9, 9]], np.uint8), (4, 2))
    assert fitted_mask(stripes, (1, 2), "stretch", 255).tolist() == [[9, 9]]


def test_a_split_without_its_coco_file_is_named(tmp_path: Path) -> None:
    file = coco(tmp_path / "made")
    for split in ("train", "val"):
        (tmp_path / "made" / "images" / split).rename(tmp_path / split)
    file.rename(tmp_path / "train" / "_annotations.coco.json")
    shutil.rmtree(tmp_path / "made")
    check_refused(tmp_path, r"val: no _annotations\.coco\.json, which other splits have")
