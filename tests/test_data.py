"""Accepted layouts, and what each kind of bad input is answered with."""

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from convfabric.data import checking
from convfabric.data.imageset import HeldSplit, ImageSet, in_order
from convfabric.data.opening import find_listing, open_data
from convfabric.data.options import DataOptions
from convfabric.data.reading import Look
from convfabric.errors import DataError
from folders import class_folders, mask_folders, picture


def check_refused(root: Path, match: str, **options: object) -> None:
    with pytest.raises(DataError, match=match):
        open_data(root, DataOptions(**options))  # type: ignore[arg-type]


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_class_folders_by_split(tmp_path: Path) -> None:
    data = open_data(class_folders(tmp_path))
    assert (data.task, data.classes, data.preprocessing.size) == ("classification", ("blue", "red"), (12, 16))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "val": 12}
    assert data.scored_split == "val"


def test_one_folder_is_drawn_into_three_splits_the_same_way_each_time(tmp_path: Path) -> None:
    class_folders(tmp_path, splits=(), images=20)
    data, again = open_data(tmp_path), open_data(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 28, "val": 6, "test": 6}
    assert data.digest == again.digest
    assert data.digest != open_data(tmp_path, DataOptions(split_seed=1)).digest


def test_images_with_masks(tmp_path: Path) -> None:
    data = open_data(mask_folders(tmp_path))
    _, mask = next(data.splits["train"].batches([[0]]))
    assert (data.task, len(data.classes)) == ("segmentation", 3)
    assert set(mask.unique().tolist()) == {0, 1, 2, 255}


def test_masks_beside_their_split_with_named_classes_and_a_void_value(tmp_path: Path) -> None:
    mask_folders(tmp_path / "given", values=(0, 1, 11, 11))
    for split in ("train", "val"):
        (tmp_path / "given" / "images" / split).rename(tmp_path / split)
        (tmp_path / "given" / "masks" / split).rename(tmp_path / f"{split}annot")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = open_data(tmp_path, DataOptions(ignore=11))
    assert data.classes == ("sky", "road")


def test_a_table_of_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, splits=("a",))
    rows = [f"a/{name}/{i}.png,{name},{'val' if i < 2 else 'train'}" for name in ("red", "blue") for i in range(6)]
    (tmp_path / "t.csv").write_text("path,label,split\n" + "\n".join(rows))
    data = open_data(tmp_path / "t.csv")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4}


def test_a_table_of_masks(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    rows = [f"images/{s}/{i}.jpg,masks/{s}/{i}.png,{s}" for s in ("train", "val") for i in range(4)]
    (tmp_path / "t.csv").write_text("path,mask,split\n" + "\n".join(rows))
    assert open_data(tmp_path / "t.csv").task == "segmentation"


def test_datasets_from_python_of_another_size_are_told_of() -> None:
    def images(side: int) -> list[tuple[np.ndarray, int]]:
        dice = np.random.default_rng(side)
        return [(dice.integers(0, 256, (side, 8), np.uint8), i % 2) for i in range(4)]

    assert "val: images of 9×8 pixels brought to 8×8" in open_data({"train": images(8), "val": images(9)}).notes
    with pytest.raises(DataError, match="data sets for train: train and val are needed"):
        open_data({"train": images(8)})


def test_datasets_from_python_with_five_channels() -> None:
    splits = {name: TensorDataset(torch.rand(20, 5, 9, 7), torch.arange(20) % 2) for name in ("train", "val")}
    data = open_data(splits)
    assert (data.preprocessing.channels, data.preprocessing.size) == (5, (9, 7))


def test_streamed_and_held_images_are_the_same(tmp_path: Path) -> None:
    class_folders(tmp_path)
    held, streamed = (open_data(tmp_path, DataOptions(hold_mb=mb, workers=0)) for mb in (100, 0))
    assert "read from disk" in " ".join(streamed.notes)
    for a, b in zip(batches(held), batches(streamed), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def batches(data: ImageSet) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(data.splits["train"].batches(in_order(12, 5)))


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = open_data(class_folders(tmp_path))
    split = data.splits["train"]
    assert isinstance(split, HeldSplit)
    normal = data.preprocessing.normalised(split.images_BCHW)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


def test_mnist_pads_and_splits(shared_data: Path) -> None:
    data = open_data("mnist", DataOptions(data_dir=str(shared_data), size=(32, 32), fitting="pad"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 54999, "val": 5001, "test": 10000}
    pixels, _ = next(data.splits["train"].batches([[0]]))
    assert not pixels[..., :2, :].any()


def test_a_named_set_that_is_not_there_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mnist is not there .*--download fetches it"):
        open_data("mnist", DataOptions(data_dir=str(tmp_path)))


# --- converted, and said ---------------------------------------------------------------------------------------------


def saved_as(tmp_path: Path, image: Image.Image, name: str, **how: object) -> ImageSet:
    class_folders(tmp_path)
    (tmp_path / "train" / "red" / "0.png").unlink()
    image.save(tmp_path / "train" / "red" / name, **how)
    return open_data(tmp_path, DataOptions(size=(12, 16)))


@pytest.mark.parametrize(
    ("mode", "name", "said"),
    [
        ("RGBA", "0.png", "alpha: laid on white"),
        ("LA", "0.png", "alpha: laid on white"),
        ("CMYK", "0.jpg", "CMYK: converted to RGB"),
        ("P", "0.png", "palette: colours looked up"),
        ("I;16", "0.png", "pixels of more than 8 bits: 0 to 0 are black to white"),
        ("L", "0.png", "mixed: 1 grey images among 24"),
    ],
)
def test_unusual_pixels_are_converted_and_reported(tmp_path: Path, mode: str, name: str, said: str) -> None:
    data = saved_as(tmp_path, Image.new(mode, (16, 12)), name)
    assert any(said in note for note in data.notes), data.notes


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    from convfabric.data.reading import read_picture

    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 3)[0].min() == 255


def test_sixteen_bits_keep_their_order(tmp_path: Path) -> None:
    from convfabric.data.reading import read_picture

    Image.fromarray(np.array([[0, 256, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 1)[0].ravel().tolist() == [0, 1, 255]


def test_an_animation_gives_its_first_frame_and_says_so(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "blue")]
    data = saved_as(tmp_path, frames[0], "0.gif", save_all=True, append_images=frames[1:])
    assert any("several frames or pages: the first taken" in note for note in data.notes)


def test_exif_orientation_is_applied_and_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved_as(tmp_path, Image.new("RGB", (12, 16)), "0.jpg", exif=exif)
    assert any("EXIF orientation: turned upright" in note for note in data.notes)


def test_names_need_not_be_ascii(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "red").rename(tmp_path / split / "rød 赤")
        (tmp_path / split / "rød 赤" / "0.png").rename(tmp_path / split / "rød 赤" / "größe ☂.png")
    assert open_data(tmp_path).classes == ("blue", "rød 赤")


def test_different_sizes_are_brought_to_one_and_said(tmp_path: Path) -> None:
    class_folders(tmp_path)
    picture(tmp_path / "train" / "red" / "0.png", size=(300, 200))
    data = open_data(tmp_path)
    assert any("2 different image sizes, brought to 16×16" in note for note in data.notes)


# --- refused, by name ------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = class_folders(tmp_path) / "train" / "red" / "3.png"
    file.write_bytes(file.read_bytes()[:-80])
    check_refused(tmp_path, r"red/3\.png: truncated or damaged")


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "val" / "blue" / "3.png").write_text("hello")
    check_refused(tmp_path, r"blue/3\.png: not an image that Pillow can read")


def test_a_file_of_zero_bytes_is_named(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "val" / "blue" / "3.png").write_bytes(b"")
    check_refused(tmp_path, r"blue/3\.png: zero bytes long")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "val" / "blue" / "photo.heic").write_bytes(b"x")
    check_refused(tmp_path, r"photo\.heic: may hold images; read are \.png")


def test_an_enormous_image_is_named_with_the_limit(tmp_path: Path) -> None:
    Image.new("1", (20_000, 6_000)).save(class_folders(tmp_path) / "train" / "red" / "big.png")
    check_refused(tmp_path, r"big\.png: 20000×6000 pixels; 100 million are read at most")


def test_threads_do_not_bring_back_warnings_that_another_has_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = find_listing(class_folders(tmp_path))
    first, second = listing.splits["train"][:2]
    opened, look = Image.open, checking.look
    first_began, second_began, first_ended = threading.Event(), threading.Event(), threading.Event()

    def open_in_turn(path: Path) -> Image.Image:
        if path == first.image:
            first_began.set()
            assert second_began.wait(60)
        else:
            second_began.set()
            assert first_ended.wait(60)
            warnings.warn("of Pillow", stacklevel=1)
        return opened(path)

    def look_in_turn(path: Path) -> Look:
        if path == first.image:
            found = look(path)
            first_ended.set()
            return found
        assert first_began.wait(60)
        return look(path)

    monkeypatch.setattr(Image, "open", open_in_turn)
    monkeypatch.setattr(checking, "look", look_in_turn)
    assert len(checking.survey([first, second])) == 2


def test_an_image_beyond_pillows_own_limit_is_named_too(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(class_folders(tmp_path) / "train" / "red" / "huge.png")
    check_refused(tmp_path, r"huge\.png: enormous; 100 million pixels are read at most")


def test_pixels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    Image.new("F", (16, 12), float("nan")).save(class_folders(tmp_path) / "train" / "red" / "f.tiff")
    check_refused(tmp_path, r"f\.tiff: some pixels are no finite numbers")


def test_a_folder_without_images_says_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("x")
    check_refused(tmp_path, r"found readme\.md\. Accepted are")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    check_refused(tmp_path / "nowhere", r"nowhere: no such folder or CSV file")


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(mask_folders(tmp_path) / "masks" / "train" / "1.png")
    check_refused(tmp_path, r"masks/train/1\.png: 8×8 pixels, its image 1\.jpg has 32×32")


def test_a_mask_value_outside_the_classes_is_named(tmp_path: Path) -> None:
    (mask_folders(tmp_path) / "classes.txt").write_text("sky\nroad\n")
    check_refused(tmp_path, r"0\.png: mask value 2; there are 2 classes, 0 to 1, and 255 is ignored")


def test_a_void_value_that_was_not_named_is_asked_for(tmp_path: Path) -> None:
    check_refused(mask_folders(tmp_path, values=(0, 1, 77, 77)), r"mask value 77; all .* \[0, 1, 77\].*set ignore=77")


def test_every_slip_of_masks_is_named_and_none_that_is_ignored(tmp_path: Path) -> None:
    folder = mask_folders(tmp_path, values=(0, 1, 77, 99, 255))
    check_refused(folder, r"mask value 77; .*mask value 99; all .* hold \[0, 1, 77, 99\].* slip, or name the classes")


@pytest.mark.parametrize("hold_mb", [512, 0])
def test_the_mask_with_a_stray_value_is_named(tmp_path: Path, hold_mb: float) -> None:
    stray = mask_folders(tmp_path) / "masks" / "val" / "1.png"
    values = np.array(Image.open(stray))
    values[0, 0] = 200
    Image.fromarray(values).save(stray)
    with pytest.raises(DataError, match=r"masks/val/1\.png: mask value 200; all masks"):
        open_data(tmp_path, DataOptions(hold_mb=hold_mb))


def test_faults_of_all_splits_are_told_together(tmp_path: Path) -> None:
    masks = mask_folders(tmp_path) / "masks"
    for split in ("train", "val"):
        Image.new("RGB", (32, 32), "red").save(masks / split / "1.png")
    check_refused(tmp_path, r"(?s)2 things are wrong.*train/1\.png.*val/1\.png")


def test_masks_in_black_and_white_are_asked_about(tmp_path: Path) -> None:
    mask_folders(tmp_path, values=(0, 255))
    check_refused(tmp_path, r"Set binary_masks=true if 255 means class 1")
    assert len(open_data(tmp_path, DataOptions(binary_masks=True)).classes) == 2


def test_masks_of_one_class_only_are_refused(tmp_path: Path) -> None:
    check_refused(mask_folders(tmp_path, values=(1, 1)), r"one class only, masks hold \[1\]")


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    (mask_folders(tmp_path) / "masks" / "train" / "2.png").unlink()
    check_refused(tmp_path, r"2\.jpg: no mask 2\.\*")


def test_a_mask_without_an_image_is_named(tmp_path: Path) -> None:
    (mask_folders(tmp_path) / "images" / "val" / "2.jpg").unlink()
    check_refused(tmp_path, r"2\.png: a mask without an image")


def test_a_mask_in_colour_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(mask_folders(tmp_path) / "masks" / "train" / "1.png")
    check_refused(tmp_path, r"1\.png: holds colours, 7 other masks hold class indices")


def test_a_line_with_an_unknown_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,split\na.png,x,holdout\n")
    check_refused(tmp_path / "t.csv", r"t\.csv, line 2")


def test_floats_from_python_outside_0_to_1_are_refused() -> None:
    dataset = TensorDataset(torch.randn(4, 3, 8, 8), torch.arange(4))
    with pytest.raises(DataError, match=r"train\[0\]: float32 of shape \(8, 8, 3\); uint8, or floats from 0 to 1"):
        open_data({"train": dataset, "val": dataset})
