"""Data as people have them: other depths, layouts, masks, tables and splits; each is read right, or named."""

import json
import os
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.data.reading import fitted_mask, look, read_picture
from convfabric.errors import DataError
from folders import class_folders, mask_folders, picture
from test_data import check_refused


def said(data: ImageSet, part: str) -> bool:
    return any(part in note for note in data.notes)


def seed(*words: object) -> int:
    return zlib.crc32(repr(words).encode())


def counts(data: ImageSet) -> dict[str, int]:
    return {split: len(items) for split, items in data.splits.items()}


# --- what training gets is what was looked at ------------------------------------------------------------------------

RANGES = {
    "8 bits in int32": (np.int32, 0, 255, (0, 255)),
    "8 bits in 16": (np.uint16, 0, 255, (0, 255)),
    "12 bits in 16": (np.uint16, 0, 4095, (0, 4095)),
    "16 bits": (np.uint16, 0, 65535, (0, 65535)),
    "below zero": (np.int32, -1000, 3000, (-1000, 3000)),
    "a narrow band": (np.uint16, 20000, 22000, (20000, 22000)),
    "floats from 0 to 1": (np.float32, 0, 1, (0, 1)),
    "floats from 0 to 255": (np.float32, 0, 255, (0, 255)),
    "floats of any kind": (np.float32, -3, 7, (-3, 7)),
}


@pytest.mark.parametrize("kind", RANGES)
def test_pixels_keep_their_range(kind: str, tmp_path: Path) -> None:
    dtype, low, high, bounds = RANGES[kind]
    dice = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            for i in range(4):
                share = dice.random((16, 16))
                share[0, :2] = 0, 1
                file = tmp_path / split / name / f"{i}.tiff"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((low + share * (high - low)).astype(dtype)).save(file)
    data = open_data(tmp_path)
    [(images, _)] = data.splits["train"].batches([range(8)])
    assert data.preprocessing.bounds == bounds
    assert (images.amin((1, 2, 3)) == 0).all()
    assert (images.amax((1, 2, 3)) == 255).all()
    assert len(images.unique()) > 200
    assert said(data, f"{bounds[0]:g} to {bounds[1]:g} are black to white")


@pytest.mark.parametrize("ending", ["tif", "png", "jpg", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_size_is_that_of_the_pixels(ending: str, turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    for split in ("train", "val"):
        for name in ("a", "b"):
            for i in range(3):
                file = picture(tmp_path / split / name / f"{i}.{ending}", (32, 16), seed=seed(split, name, i))
                Image.open(file).save(file, exif=exif)
    data = open_data(tmp_path)
    assert data.preprocessing.size == ((32, 16) if turn > 4 else (16, 32))


def exif(turn: int, kind: int, tag: int, value: bytes) -> bytes:
    """EXIF with an orientation and one entry of any kind, whose value stands behind."""
    entries = struct.pack("<HHIHHHHIII", 0x0112, 3, 1, turn, 0, tag, kind, 1, 38, 0) + value
    return b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (10, struct.pack("<ii", -1, 0)),
        (5, struct.pack("<II", 1, 0)),
        (2, b"text\0\0\0\0"),
        (99, bytes(8)),
        (12, b"\xff" * 8),
    ],
)
def test_odd_exif_costs_no_image_and_no_turn(kind: int, value: bytes, tmp_path: Path) -> None:
    for tag in (0x011A, 0x0112, 0x8769):
        file = picture(tmp_path / f"{tag}.jpg", (32, 16))
        Image.open(file).save(file, exif=exif(6, kind, tag, value))
        found, _ = read_picture(file, 3)
        assert found.shape[:2] == (look(file).height, look(file).width)
        assert found.shape == (32, 16, 3) or tag == 0x0112


def test_a_class_that_ends_up_constant_is_refused(tmp_path: Path) -> None:
    for i in range(6):
        for split in ("train", "val"):
            picture(class_folders(tmp_path) / split / "white" / f"{i}.png", colour=(999, 999, 999), seed=i)
    check_refused(tmp_path, r"every image of class white is of one colour")


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "#recycle"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_what_tools_leave_is_left_out_at_any_depth(name: str, depth: int, tmp_path: Path) -> None:
    class_folders(tmp_path)
    inside = [tmp_path, tmp_path / "train", tmp_path / "train" / "red", tmp_path / "train" / "red" / "deep"][depth]
    picture(inside / name / "0.png", seed=1)
    picture(inside / name / "more" / "1.png", seed=2)
    data = open_data(tmp_path)
    assert data.classes == ("blue", "red")
    assert counts(data) == {"train": 12, "val": 12}
    assert said(data, f"1 {name}/")


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    (tmp_path / "data" / "train" / "red").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "train" / "red").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    assert counts(open_data(tmp_path / "data")) == {"train": 12, "val": 12}


def test_runs_inside_the_data_are_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path, splits=())
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("data: .")
    shutil.copytree(tmp_path / "runs" / "one", tmp_path / "red" / "run")
    data = open_data(tmp_path)
    assert data.classes == ("blue", "red")
    assert said(data, "1 runs/")


def test_sidecars_are_left_out_and_told_together(tmp_path: Path) -> None:
    folder = class_folders(tmp_path) / "train" / "red"
    for name in ("desktop.ini", "0.json", "1.json", "a.xmp", "Icon\r", "Thumbs.db", ".DS_Store", "noend"):
        (folder / name).write_bytes(b"nothing")
    data = open_data(tmp_path)
    assert said(data, "left out: 1 .db, 1 .ini, 2 .json, 1 .xmp, 1 Icon, 1 noend")


def test_an_image_under_another_ending_is_not_left_out_in_silence(tmp_path: Path) -> None:
    shutil.copy(class_folders(tmp_path) / "train" / "red" / "0.png", tmp_path / "train" / "red" / "0.png~")
    check_refused(tmp_path, r"0\.png~: may hold images")


@pytest.mark.parametrize("name", ["a\nb.png", os.fsdecode(b"a\xff.png")])
def test_names_that_cannot_be_written_down_are_named(name: str, tmp_path: Path) -> None:
    picture(class_folders(tmp_path) / "train" / "red" / "a.png", seed=9).rename(tmp_path / "train" / "red" / name)
    with pytest.raises(DataError, match=r"rename it") as refused:
        open_data(tmp_path)
    str(refused.value).encode()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a\nb", os.fsdecode(b"a\xff")])
def test_class_names_that_cannot_be_written_down_are_named(name: str, tmp_path: Path) -> None:
    (class_folders(tmp_path) / "train" / "red").rename(tmp_path / "train" / name)
    (tmp_path / "val" / "red").rename(tmp_path / "val" / name)
    check_refused(tmp_path, r"a class with a name")


def moved(root: Path, *pairs: tuple[str, str]) -> Path:
    for before, after in pairs:
        (root / after).parent.mkdir(parents=True, exist_ok=True)
        (root / before).rename(root / after)
    return root


MASK_LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "images, labels": lambda root: moved(root, ("masks", "labels")),
    "Images, Annotations": lambda root: moved(root, ("masks", "Annotations"), ("images", "Images")),
    "train/images, train/masks": lambda root: moved(
        root,
        *((f"{kind}/{split}", f"{split}/{kind}") for kind in ("images", "masks") for split in ("train", "val")),
        ("images", ".images"),
        ("masks", ".masks"),
    ),
    "train, train_masks": lambda root: moved(
        root,
        *((f"images/{split}", split) for split in ("train", "val")),
        *((f"masks/{split}", f"{split}_masks") for split in ("train", "val")),
        ("images", ".images"),
        ("masks", ".masks"),
    ),
    "names end in _mask": lambda root: moved(
        root, *((f"masks/{s}/{i}.png", f"masks/{s}/{i}_mask.png") for s in ("train", "val") for i in range(4))
    ),
    "masks beside their images": lambda root: moved(
        root,
        *((f"masks/{s}/{i}.png", f"{s}/{i}_mask.png") for s in ("train", "val") for i in range(4)),
        *((f"images/{s}/{i}.jpg", f"{s}/{i}.jpg") for s in ("train", "val") for i in range(4)),
        ("images", ".images"),
        ("masks", ".masks"),
    ),
}


@pytest.mark.parametrize("layout", MASK_LAYOUTS)
def test_folders_of_masks_are_known(layout: str, tmp_path: Path) -> None:
    data = open_data(MASK_LAYOUTS[layout](mask_folders(tmp_path)))
    assert (data.task, counts(data)) == ("segmentation", {"train": 4, "val": 4})


@pytest.mark.parametrize(("other", "message"), [("outlines", "are these images and their masks"), ("labels", "Boxes")])
def test_what_may_be_masks_is_asked_about(other: str, message: str, tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.png", seed=i)
    (tmp_path / other).mkdir()
    (tmp_path / other / "0.txt").write_text("0 0.5 0.5 1 1")
    check_refused(tmp_path, message)


def test_class_names_that_are_numbers_count_as_numbers(tmp_path: Path) -> None:
    for at in range(12):
        for i in range(3):
            picture(tmp_path / str(at) / f"{i}.png", seed=100 * at + i)
    assert open_data(tmp_path).classes == tuple(map(str, range(12)))


# --- masks -----------------------------------------------------------------------------------------------------------

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


def targets(data: ImageSet, split: str = "train") -> torch.Tensor:
    [(_, found)] = data.splits[split].batches([range(len(data.splits[split]))])
    return found


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


@pytest.mark.parametrize("text", ["[]", "{", '{"images": 3}', '{"images": [], "categories": [], "annotations": [{}]}'])
def test_a_json_file_that_is_no_coco_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    check_refused(tmp_path / "a.json", r"a\.json")


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [("path", "label"), ("Filename", "CLASS"), ("image_path", "Category")])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_are_read_however_they_were_written(
    delimiter: str, header: tuple[str, str], coding: str, tmp_path: Path
) -> None:
    rows = [delimiter.join(header)]
    for i in range(12):
        picture(tmp_path / "sub" / f"{i}.png", seed=i)
        rows.append(delimiter.join(("sub\\" + str(i) + ".png" * (i % 2), "grün" if i % 2 else "blau")))
    (tmp_path / "t.csv").write_bytes("\r\n".join(rows).encode(coding))
    data = open_data(tmp_path / "t.csv")
    assert data.classes == ("blau", "grün")
    assert sum(counts(data).values()) == 12


def table(root: Path, rows: list[str], header: str = "path,label,split") -> Path:
    for i in range(20):
        picture(root / f"{i}.png", seed=i)
    (root / "t.csv").write_text("\n".join([header, *rows]))
    return root / "t.csv"


def test_what_spreadsheets_write_before_a_table_is_passed_over(tmp_path: Path) -> None:
    rows = [f"{i}.png;{'ab'[i % 2]}" for i in range(20)]
    assert open_data(table(tmp_path, ["path;label", *rows], "\nsep=;")).classes == ("a", "b")
    (tmp_path / "t.csv").write_bytes("path,label\n1.png,a\n".encode("utf-16-le"))
    check_refused(tmp_path / "t.csv", "holds zero bytes")


def test_a_data_set_one_folder_deeper_is_pointed_at(tmp_path: Path) -> None:
    class_folders(tmp_path / "dataset", splits=())
    check_refused(tmp_path, r"If dataset/ is the data set, name .*dataset instead")


def test_a_row_that_comes_again_is_read_once_or_named(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]}" for i in range(20)]
    data = open_data(table(tmp_path, rows + [f"./{row}" for row in rows], "path,label"))
    assert sum(counts(data).values()) == 20
    assert said(data, "20 rows name an image that an earlier row names")
    check_refused(table(tmp_path, [*rows, "./0.png,b"], "path,label"), r"line 22: \./0\.png is a by line 2, here b")


def test_no_group_is_in_two_splits(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},p{i // 2}" for i in range(20)]
    data = open_data(table(tmp_path, rows, "path,label,group"))
    assert data.files
    where = {int(Path(file).stem) // 2: split for split, files in data.files.items() for file in files}
    assert all(where[int(Path(f).stem) // 2] == split for split, files in data.files.items() for f in files)
    given = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 11 else 'val'},p{i // 2}" for i in range(20)]
    check_refused(table(tmp_path, given, "path,label,split,group"), r"group p5 is in train and val")


# --- splits ----------------------------------------------------------------------------------------------------------


def test_copies_stay_together_in_a_draw_and_are_told_of(tmp_path: Path) -> None:
    class_folders(tmp_path, splits=(), images=12)
    for i in range(12):
        Image.open(tmp_path / "red" / f"{i}.png").save(tmp_path / "red" / f"copy{i}.bmp")
    data = open_data(tmp_path)
    assert data.files
    where = {Path(file).name: split for split, files in data.files.items() for file in files if "red" in file}
    assert all(where[f"{i}.png"] == where[f"copy{i}.bmp"] for i in range(12))
    assert said(data, "12 images are copies of others")


def test_an_image_in_two_splits_is_refused_unless_kept(tmp_path: Path) -> None:
    shutil.copy(class_folders(tmp_path) / "train" / "red" / "0.png", tmp_path / "val" / "red" / "new.png")
    check_refused(tmp_path, r"1 images of val are in another split too: .*0\.png = .*new\.png.*copies=keep")
    assert said(open_data(tmp_path, DataOptions(copies="keep")), "in another split too")


def test_an_image_with_two_labels_is_named(tmp_path: Path) -> None:
    shutil.copy(class_folders(tmp_path) / "train" / "red" / "0.png", tmp_path / "train" / "blue" / "new.png")
    check_refused(tmp_path, r"1 images have two labels: .*new\.png \(blue\) and .*0\.png \(red\)")


@pytest.mark.parametrize("rare", [1, 2, 3])
def test_a_draw_gives_every_split_every_class_or_is_refused(rare: int, tmp_path: Path) -> None:
    class_folders(tmp_path, splits=(), images=30)
    for i in range(rare):
        picture(tmp_path / "green" / f"{i}.png", seed=500 + i)
    if rare < 3:
        check_refused(tmp_path, rf"class green has {rare} images: too few to draw")
        return
    data = open_data(tmp_path)
    for split in data.splits:
        assert set(targets(data, split).tolist()) == {0, 1, 2}


# --- data sets from Python -------------------------------------------------------------------------------------------


def python_set(count: int = 12, **changed: Any) -> dict[str, list[tuple[Any, Any]]]:
    dice = np.random.default_rng(0)
    sets = {
        split: [(dice.integers(0, 256, (8, 8, 3), np.uint8), at % 2) for at in range(count)]
        for split in ("train", "val")
    }
    if changed:
        image, label = sets["train"][5]
        sets["train"][5] = (changed.get("image", image), changed.get("label", label))
    return sets


@pytest.mark.parametrize(
    "changed",
    [
        {"label": "cat"},
        {"label": -1},
        {"label": 7},
        {"label": 0.5},
        {"label": np.array([0, 1])},
        {"label": None},
        {"label": np.zeros((8, 8), np.uint8)},
        {"image": "a.png"},
        {"image": None},
        {"image": np.zeros((8, 8, 3), np.float32) - 1},
        {"image": np.full((8, 8, 3), np.nan, np.float32)},
        {"image": np.zeros((0, 8, 3), np.uint8)},
        {"image": np.zeros((3, 8, 8), np.uint8)},
    ],
    ids=str,
)
def test_what_is_wrong_in_a_python_set_is_named_with_its_position(changed: dict[str, Any]) -> None:
    sets: Any = python_set(**changed)
    sets["train"] = type("Named", (list,), {"classes": ("a", "b")})(sets["train"])
    with pytest.raises(DataError, match=r"train\[5\]|some answers are labels|2 shapes"):
        open_data(sets)


def test_labels_with_an_axis_are_labels() -> None:
    sets = {split: [(image, np.array([label])) for image, label in found] for split, found in python_set().items()}
    assert open_data(sets).task == "classification"  # type: ignore[arg-type]


def test_masks_with_an_axis_are_masks_and_their_size_is_checked() -> None:
    dice = np.random.default_rng(0)

    def of(height: int) -> dict[str, Any]:
        return {
            split: [(torch.rand(3, 8, 8), dice.integers(0, 3, (1, height, 8))) for _ in range(4)]
            for split in ("train", "val")
        }

    assert len(open_data(of(8)).classes) == 3
    with pytest.raises(DataError, match=r"train\[0\]: a mask of 7×8, its image has 8×8"):
        open_data(of(7))


def test_numbers_of_python_sets_keep_their_range_and_it_is_said() -> None:
    wide = {split: [(image.astype(np.int64) * 16, at) for image, at in found] for split, found in python_set().items()}
    data, plain = open_data(wide), open_data(python_set())
    [(found, _)], [(wanted, _)] = (one.splits["train"].batches([range(12)]) for one in (data, plain))
    assert (found.int() - wanted.int()).abs().max() <= 1
    assert said(data, "0 to 4095 became 0 to 255")
    floats = {split: TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8) % 2) for split in ("train", "val")}
    assert said(open_data(floats), "floats from 0 to 1 became 0 to 255")


def test_a_palette_image_of_pillow_is_seen_in_its_colours() -> None:
    def image(at: int) -> Image.Image:
        noise = np.random.default_rng(at).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(noise).quantize(8)

    data = open_data({split: [(image(at + n), at % 2) for at in range(4)] for n, split in ((0, "train"), (9, "val"))})
    [(found, _)] = data.splits["train"].batches([[0]])
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), np.asarray(image(0).convert("RGB")))


def test_an_image_of_two_python_splits_is_refused() -> None:
    sets = python_set()
    sets["val"][:3] = sets["train"][:3]
    with pytest.raises(DataError, match=r"3 images of val are in another split too: train\[0\] = val\[0\]"):
        open_data(sets)


def test_what_a_python_set_raises_is_named() -> None:
    class Broken(list[Any]):
        def __getitem__(self, at: Any) -> Any:
            raise KeyError("lost")

    with pytest.raises(DataError, match=r"(?s)2 things.*train\[0\]: gives no image and answer \(KeyError"):
        open_data({"train": Broken([1, 2]), "val": python_set()["val"]})
    with pytest.raises(DataError, match="train: generator has no length"):
        open_data({"train": (one for one in ()), "val": []})  # type: ignore[dict-item]


def test_draws_are_the_same_share_of_every_class(tmp_path: Path) -> None:
    for name, many in (("a", 40), ("b", 20)):
        for i in range(many):
            picture(tmp_path / name / f"{i}.png", seed=seed(name, i))
    data = open_data(tmp_path)
    for split, share in (("test", 0.15), ("val", 0.15)):
        met = Counter(targets(data, split).tolist())
        assert (met[0], met[1]) == (round(40 * share), round(20 * share))


# --- what newcomers brought ------------------------------------------------------------------------------------------

LOOKALIKES = {
    "splits by other names": (
        ["training_set/cat", "training_set/dog", "test_set/cat", "test_set/dog"],
        "look like splits",
    ),
    "splits in splits": (["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a"], "look like splits"),
    "a split by another name": (["train/a", "train/b", "eval/a", "eval/b"], "eval: beside train/, and no split"),
    "splits inside classes": (["cat/train", "cat/test", "dog/train", "dog/test"], "a split inside a class"),
    "a folder for each picture": (["x1/images", "x1/masks", "x2/images", "x2/masks"], "images or masks inside"),
    "masks by another name": (["pictures of it", "its masks"], "are these images and masks"),
}


@pytest.mark.parametrize("layout", LOOKALIKES)
def test_folders_that_only_look_like_classes_are_refused(layout: str, tmp_path: Path) -> None:
    places, message = LOOKALIKES[layout]
    for place in places:
        for i in range(3):
            picture(tmp_path / place / f"{i}.png", seed=seed(place, i))
    check_refused(tmp_path, message)


def test_img_dir_and_ann_dir_are_images_and_masks(tmp_path: Path) -> None:
    data = open_data(moved(mask_folders(tmp_path), ("images", "img_dir"), ("masks", "ann_dir")))
    assert (data.task, counts(data)) == ("segmentation", {"train": 4, "val": 4})


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


def test_sixteen_bit_colour_that_would_be_black_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + np.random.default_rng(i).integers(0, 4096, 48).astype(">u2").tobytes() for i in range(12))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    file = class_folders(tmp_path) / "train" / "red" / "wide.png"
    png = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    check_refused(tmp_path, r"wide\.png: 16 bits a channel, of which the upper 4 are not used")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_colour_is_laid_on_white(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert read_picture(tmp_path / "a.png", 3)[0].min() == 255


def test_python_sets_that_differ_in_their_classes_are_refused() -> None:
    sets: Any = python_set()
    for split, names in (("train", ("a", "b")), ("val", ("b", "c"))):
        sets[split] = type("Named", (list,), {"classes": names})(sets[split])
    with pytest.raises(DataError, match="val: classes b, c; train has a, b"):
        open_data(sets)


def test_tensors_with_channels_last_are_refused() -> None:
    with pytest.raises(DataError, match=r"train\[5\]: a tensor of shape \(32, 32, 3\)"):
        open_data(python_set(image=torch.zeros(32, 32, 3)))


def test_binary_masks_from_python() -> None:
    sets = {
        split: [(torch.rand(3, 8, 8), np.repeat([[0, 255]], 8, 0).repeat(4, 1)) for _ in range(4)]
        for split in ("train", "val")
    }
    assert len(open_data(sets, DataOptions(binary_masks=True)).classes) == 2


@pytest.mark.parametrize("name", ["a\0.png", "x" * 5000])
def test_paths_that_no_system_has_are_named(name: str, tmp_path: Path) -> None:
    check_refused(table(tmp_path, [f"{name},a,train", "1.png,b,val"]), r"t\.csv")
    check_refused(tmp_path / name, "cannot be read|no such folder")
