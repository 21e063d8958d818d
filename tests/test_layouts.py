"""Layouts of folders and tables that cannot be used, and what is said of them."""

import shutil
from pathlib import Path

import pytest

from convfabric.data.opening import open_data
from folders import class_folders, mask_folders, picture
from test_data import check_refused


def test_several_faults_are_told_together(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (class_folders(tmp_path) / "train" / "red" / name).write_bytes(b"")
        (tmp_path / "val" / "red" / name).write_bytes(b"")
    check_refused(tmp_path, r"(?s)2 things are wrong.*2\.png.*2\.png")


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "train" / "green").mkdir()
    check_refused(tmp_path, r"class green is empty")


def test_what_is_wrong_with_folders_is_told_together(tmp_path: Path) -> None:
    for name in ("green", "white"):
        (class_folders(tmp_path) / "train" / name).mkdir()
    (tmp_path / "train" / "red" / "raw.nef").write_text("mine")
    picture(tmp_path / "val" / "stray.png")
    check_refused(tmp_path, r"(?s)4 things are wrong.*green is empty.*raw\.nef.*white is empty.*stray\.png")


def test_a_class_in_one_split_only_is_named(tmp_path: Path) -> None:
    picture(class_folders(tmp_path) / "train" / "green" / "0.png")
    check_refused(tmp_path, r"class green has no image in val")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "green" / "0.png")
    check_refused(tmp_path, r"one class only \(green\)")


def test_an_image_outside_the_class_folders_is_named(tmp_path: Path) -> None:
    picture(class_folders(tmp_path) / "train" / "stray.png")
    check_refused(tmp_path, r"stray\.png: an image outside the class folders")


def test_masks_and_images_without_each_other_are_told_together(tmp_path: Path) -> None:
    (mask_folders(tmp_path) / "masks" / "train" / "0.png").unlink()
    (tmp_path / "images" / "val" / "1.jpg").unlink()
    (tmp_path / "images" / "val" / "2.jpg").unlink()
    check_refused(tmp_path, r"(?s)3 things are wrong.*0\.jpg: no mask.*1\.png: a mask without.*2\.png: a mask without")


def test_a_second_file_of_one_name_is_named(tmp_path: Path) -> None:
    picture(mask_folders(tmp_path) / "images" / "train" / "1.png", size=(32, 32))
    picture(tmp_path / "masks" / "val" / "2.gif")
    check_refused(tmp_path, r"(?s)2 things are wrong.*1\.png: a second file named 1.*2\.png: a second file named 2")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "val" / "blue" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    check_refused(tmp_path, r"lost\.png: a link to a file that is not there")


def test_folders_of_splits_are_known_in_any_case_and_none_is_left_out(tmp_path: Path) -> None:
    (class_folders(tmp_path) / "train").rename(tmp_path / "Train")
    assert len(open_data(tmp_path).splits["train"]) == 12
    (tmp_path / "Train").rename(tmp_path / "test")
    check_refused(tmp_path, r"test and val are there, and no train to learn from")
    shutil.copytree(tmp_path / "val", tmp_path / "valid")
    check_refused(tmp_path, r"val/ and valid/ would both be val; keep one")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("where;kind\na.png;x\n")
    check_refused(tmp_path / "t.csv", r"no column path and no label; found where, kind, parted by a semicolon")


def test_every_bad_row_of_a_table_is_named_with_its_line(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = ["a.png,x,train", "b.png,y,holdout", "", "c.png", "a.png,x,val"]
    (tmp_path / "t.csv").write_text("\n".join(["path, label ,split", *rows]))
    check_refused(
        tmp_path / "t.csv", r"(?s)3 things.*line 3: .*split=holdout.*line 5: path=c.*line 6: a\.png is in train"
    )


@pytest.mark.parametrize(
    ("content", "said"), [(b"path,label,split\n", "no rows"), (b"path,label\na.png,r\x81t\n", "read as text in UTF-8")]
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    check_refused(tmp_path / "t.csv", rf"t\.csv: .*{said}")


def test_a_file_that_a_table_names_and_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,split\na.png,x,train\nb.png,y,train\nc.png,x,val\nd.png,y,val\n")
    check_refused(tmp_path / "t.csv", r"a\.png: no such file")
