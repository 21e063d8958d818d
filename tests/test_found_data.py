"""Pixels and folders as people have them; each is read right, or named."""

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.reading import look, read_picture
from convfabric.errors import DataError
from folders import class_folders, mask_folders, picture
from test_data import check_refused


def said(data: ImageSet, part: str) -> bool:
    return any(part in note for note in data.notes)


def seed(*words: object) -> int:
    return zlib.crc32(repr(words).encode())


def counts(data: ImageSet) -> dict[str, int]:
    return {split: len(items) for split, items in data.splits.items()}


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


def test_floats_from_0_to_1_among_integers_are_refused_by_name(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            for i in range(4):
                wide = dice.integers(0, 65536, (16, 16)).astype(np.uint16)
                file = tmp_path / split / name / f"{i}.tiff"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(wide if i else (wide / 65535).astype(np.float32)).save(file)
    check_refused(
        tmp_path, r"(?s)4 things.*a/0\.tiff: floating-point pixels from .* where 0 to 65535 are black to white"
    )


def test_faults_that_only_decoding_finds_are_named_with_the_others(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "train" / "red" / "0.png").write_bytes(b"")
    cut = tmp_path / "train" / "red" / "1.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    check_refused(tmp_path, r"(?s)2 things are wrong.*0\.png: zero bytes long.*1\.png: truncated or damaged")


def test_a_tiff_of_16_bits_whose_white_is_0_is_turned_round(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    for file, values, photometric in (("black.tif", ramp, 1), ("white.tif", 65535 - ramp, 0)):
        Image.fromarray(values).save(tmp_path / file, tiffinfo={262: photometric})
    plain, turned = (read_picture(tmp_path / file, 1)[0] for file in ("black.tif", "white.tif"))
    assert np.array_equal(plain, turned)


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


def test_hidden_images_are_counted_and_names_hardly_apart_told(tmp_path: Path) -> None:
    folder = class_folders(tmp_path, splits=()) / "red"
    (folder / "0.png").rename(folder / ".0.png")
    for i in range(4):
        picture(tmp_path / "Red" / f"{i}.png", seed=50 + i)
    data = open_data(tmp_path)
    assert said(data, "left out: 1 hidden .png")
    assert said(data, "'Red' and 'red' are two classes")


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


def targets(data: ImageSet, split: str = "train") -> torch.Tensor:
    [(_, found)] = data.splits[split].batches([range(len(data.splits[split]))])
    return found


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
