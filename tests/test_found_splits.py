"""Tables, splits and data sets from Python as people have them; each is read right, or named."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.errors import DataError
from folders import class_folders, picture
from test_data import check_refused
from test_found_data import counts, said, seed, targets


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


def test_a_table_names_files_in_either_form_of_accents_and_columns_that_are_not_read(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            picture(tmp_path / f"e\u0301{split}{i}.png", seed=seed(split, i))
    rows = [f"\u00e9{split}{i}.png,{'ab'[i]},{split},{i}" for split in ("train", "val") for i in range(2)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,target", *rows]))
    data = open_data(tmp_path / "t.csv")
    assert counts(data) == {"train": 2, "val": 2}
    assert said(data, "table: not read: target")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["lost.png,a,train", "1.png,b,val"], r"t\.csv, line 2: lost\.png: no such file"),
        (["0.png,1,train", "1.png,1.0,val"], r"labels 1 and 1\.0 would be two classes"),
        (["0.png,cat,train", "1.png,Cat,val"], "labels Cat and cat would be two classes"),
        (["0.png,caf\u00e9,train", "1.png,cafe\u0301,val"], "would be two classes; write them alike"),
        (["0.png,a b,train", "1.png,a\u00a0b,val"], "would be two classes; write them alike"),
        (["0.png,a b,train", "1.png,a  b,val"], "would be two classes; write them alike"),
        (["0.png,dog,big,train", "1.png,cat,val"], r"line 2: 4 fields, the header has 3; a field that holds ','"),
        (['0.png,"a,train', "1.png,b,val"], r"a quote may not be closed"),
        (['0.png,"a,train', '1.png,b",val'], r"line 3: its label goes over 2 lines, from 'a,train'; is a quote not"),
    ],
)
def test_what_a_table_cannot_mean_is_named(rows: list[str], message: str, tmp_path: Path) -> None:
    check_refused(table(tmp_path, rows), message)


def test_a_column_that_says_what_is_for_validation_is_a_split(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{i >= 14},{i}" for i in range(20)]
    data = open_data(table(tmp_path, rows, "path,label,is_valid,fold"))
    assert counts(data) == {"train": 14, "val": 6}
    assert said(data, "table: not read: fold")
    check_refused(table(tmp_path, ["0.png,a,maybe", "1.png,b,true"], "path,label,is_valid"), "is one of train, val")


def test_a_label_made_of_others_is_told_of(tmp_path: Path) -> None:
    rows = [f"{i}.png,{('scab', 'rust', 'scab rust', 'fine')[i % 4]}" for i in range(20)]
    assert said(open_data(table(tmp_path, rows, "path,label")), "'scab rust' is a class of its own")


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


def test_samples_may_be_dictionaries_as_hugging_face_has_them() -> None:
    sets: Any = {
        split: type("Named", (list,), {"features": {"label": type("Label", (), {"names": ["cat", "dog"]})}})(
            {"image": Image.fromarray(image), "label": label} for image, label in found
        )
        for split, found in python_set().items()
    }
    assert open_data(sets).classes == ("cat", "dog")
    sets["train"][3] = {"picture": 1}
    with pytest.raises(DataError, match=r"train\[3\]: .*has picture; read are image"):
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


def test_a_field_over_several_lines_may_be_a_note_but_not_rows(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 14 else 'val'},fine" for i in range(20)]
    noted = [*rows[:5], rows[5].replace("fine", '"first\nsecond"'), *rows[6:]]
    header = "path,label,split,note"
    assert sum(counts(open_data(table(tmp_path, noted, header))).values()) == 20
    swallowed = [*rows[:5], rows[5].replace("fine", '"bad'), *rows[6:9], rows[9] + '"', *rows[10:]]
    check_refused(table(tmp_path, swallowed, header), r"its note goes over 5 lines, from 'bad'")


def test_a_split_goes_before_what_is_said_to_be_valid(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 14 else 'val'},{i % 3 == 0}" for i in range(20)]
    data = open_data(table(tmp_path, rows, "path,label,split,is_valid"))
    assert said(data, "table: not read: is_valid")
    assert not said(data, "is_valid as val")


def test_a_label_that_may_mean_nothing_is_told_of(tmp_path: Path) -> None:
    rows = [f"{i}.png,{('a', 'b', 'NaN', '?')[i % 4]}" for i in range(20)]
    data = open_data(table(tmp_path, rows, "path,label"))
    assert said(data, "'NaN' is a class of its own")
    assert said(data, "'?' is a class of its own")
