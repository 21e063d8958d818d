"""Which files a data set is made of: class folders, images with masks, or a table."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from convfabric.data.boxes import Boxes
from convfabric.data.faults import refuse
from convfabric.data.folders import Found, fault_of_name, folders, images_in, loose_images, plainly
from convfabric.data.outlines import Outlines
from convfabric.data.texts import text_of
from convfabric.errors import DataError
from convfabric.graph import Task

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SPLIT_NAMES |= {"testing": "test", "train2017": "train", "val2017": "val"}
IMAGE_FOLDERS = frozenset(
    (
        "image",
        "images",
        "img",
        "imgs",
        "jpegimages",
        "photo",
        "photos",
        "picture",
        "pictures",
        "frames",
        "imgdir",
        "leftimg8bit",
    )
)
MASK_FOLDERS = frozenset(
    ("mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots", "gt", "groundtruth")
) | frozenset(
    ("segmentation", "segmentations", "segmentationclass", "labelmaps", "targets", "maskpngs", "anndir", "gtfine")
)
OF_MASKS = r"[ _.-]*(mask|masks|label|labels|gt|seg|segmentation|annotation|annot|labelids|groundtruth|L)"
OF_IMAGES = r"[ _.-]+(image|img|rgb|sat|leftImg8bit)"
"""Ends of the names of masks, and of images, that do not tell which belong together."""

Colour = tuple[int, int, int]
"""Red, green and blue."""
ACCEPTED = (
    "Accepted are: train/, val/ and test/ that hold one folder per class; one folder per class; "
    "images/ and masks/ (or labels/, annotations/), with train/, val/, test/ inside or around them or without; "
    "train/ beside train_masks/; masks beside their images as NAME_mask.png; "
    "a CSV file with the columns path,label,split or path,mask,split; a COCO .json file."
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image file with its class index, its mask or its boxes."""

    image: Path
    label: int = -1
    mask: Path | Outlines | None = None
    boxes: Boxes | None = None
    group: str = ""
    """Of images that belong together, as those of one patient do."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a data set, by split; classes may be unnamed (empty) for masks."""

    task: Task
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Item, ...]]
    notes: tuple[str, ...] = ()
    colours: Mapping[Colour, int] | None = None
    """The class of each colour of masks, where the data set says it."""

    def counts(self, split: str) -> tuple[int, ...]:
        """Images of each class in a split, of which there may be none; nothing for masks and boxes."""
        labels = [item.label for item in self.splits.get(split, ())]
        return () if self.task != "classification" else tuple(map(labels.count, range(len(self.classes))))


def listed(root: Path) -> Listing:
    """The files under a folder, in whichever accepted layout they lie.

    Raises DataError that says what was found and what is accepted, of everything that is wrong at once.
    """
    found = Found()
    if pairs := _mask_pairs(root, found):
        return _from_mask_pairs(root, pairs, found)
    splits = split_folders(root)
    if "train" in splits or (splits and len(splits) == len(folders(root, Found()))):
        for other in sorted(set(folders(root, Found())) - set(splits.values())):
            if images_in(other, Found()):
                found.faults.append(
                    f"{other}: beside {'/, '.join(f.name for f in splits.values())}/, and no split by its "
                    f"name; splits are {', '.join(SPLIT_NAMES)}. Rename it or move it away."
                )
        return _from_class_folders(root, splits, found)
    if folders(root, Found()):
        return _from_class_folders(root, {"all": root}, found)
    there = ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"
    tables = [path for path in (*sorted(root.iterdir()), *sorted(root.glob("*/*.json"))) if is_table(path)]
    hint = f" If {tables[0].relative_to(root)} says what they are, name it instead of its folder." if tables else ""
    raise DataError(f"{root}: found {there}.{hint} {ACCEPTED}")


def _bare(name: str) -> str:
    return re.sub("[ _.-]", "", name.lower())


def split_folders(root: Path) -> dict[str, Path]:
    """The folders that are named for a split, in any case; DataError where two are of the same."""
    splits: dict[str, Path] = {}
    for folder in folders(root, Found()):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in splits:
            raise DataError(f"{root}: {splits[split].name}/ and {folder.name}/ would both be {split}; keep one.")
        splits |= {split: folder} if split else {}
    return splits


def _mask_pairs(root: Path, found: Found) -> dict[str, tuple[Path, Path]]:
    """For each split the folders of its images and of its masks, which may be one; none where there are no masks."""
    if pair := _images_and_masks(root):
        images, masks = (split_folders(folder) for folder in pair)
        if images:
            return {split: (folder, masks.get(split, pair[1] / folder.name)) for split, folder in images.items()}
        return {"all": pair}
    splits = split_folders(root)
    beside = {split: mask for split, folder in splits.items() if (mask := _beside(folder))}
    if "train" in beside:
        return {split: (folder, beside.get(split, folder)) for split, folder in splits.items()}
    inside = {split: pair for split, folder in splits.items() if (pair := _images_and_masks(folder))}
    if inside:
        return {split: inside.get(split, (folder, folder / "masks")) for split, folder in splits.items()}
    flat = {split: folder for split, folder in (splits or {"all": root}).items() if _holds_both(folder)}
    return {split: (folder, folder) for split, folder in (splits or flat).items()} if flat else {}


def _images_and_masks(root: Path) -> tuple[Path, Path] | None:
    """The folder of images and that of masks in a folder; DataError where it is not plain which they are."""
    here = folders(root, Found())
    images = [folder for folder in here if _bare(folder.name) in IMAGE_FOLDERS]
    masks = [folder for folder in here if _bare(folder.name) in MASK_FOLDERS]
    if len(images) != 1 or len(here) < 2:
        return None
    full = [folder for folder in masks if images_in(folder, Found())]
    if len(full) == 1:
        return images[0], full[0]
    others = ", ".join(f"{folder.name}/" for folder in here if folder != images[0])
    if masks and not full:
        raise DataError(
            f"{root}: {masks[0].name}/ beside {images[0].name}/ holds no image, so no masks. Boxes and "
            f"outlines are read from a COCO .json file; name it. {ACCEPTED}"
        )
    raise DataError(
        f"{root}: {images[0].name}/ beside {others}: are these images and their masks? Name the masks' folder masks/; "
        f"if they are two classes, name {images[0].name}/ otherwise."
    )


def _beside(folder: Path) -> Path | None:
    """The folder of a split's masks that lies beside it, as train_masks/ does."""
    others = [other for other in folders(folder.parent, Found()) if other != folder]
    named = (o for o in others if o.name.lower().startswith(folder.name.lower()))
    return next((o for o in named if _bare(o.name[len(folder.name) :]) in MASK_FOLDERS), None)


def _holds_both(folder: Path) -> bool:
    """Whether masks lie beside their images in one folder; DataError where that is so in folders of classes."""
    stems = {path.stem for path in loose_images(folder)}
    if any(_stripped(stem, OF_MASKS) in stems - {stem} for stem in stems):
        return True
    for inner in folders(folder, Found()):
        known = {path.stem: path for path in loose_images(inner)}
        for stem, path in known.items():
            if _bare(stem).endswith("mask") and _stripped(stem, OF_MASKS) in set(known) - {stem}:
                raise DataError(
                    f"{path}: a mask beside its image in the folder of a class. For classification move masks away; "
                    f"for segmentation put images into images/ and masks into masks/."
                )
    return False


def _stripped(stem: str, endings: str) -> str:
    return re.sub(f"{endings}$", "", stem, flags=re.IGNORECASE) or stem


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes in the order in which they are counted: numbers by what they are worth, else by letters.

    >>> in_order(["10", "9", "1"]), in_order(["b", "a", "10"])
    (('1', '9', '10'), ('10', 'a', 'b'))
    """
    names = set(names)
    numbers = all(re.fullmatch("-?[0-9]+", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name))) if numbers else tuple(sorted(names))


def _from_class_folders(root: Path, splits: Mapping[str, Path], found: Found) -> Listing:
    folders(root, found)
    names = in_order(f.name for split in splits.values() for f in folders(split, Found() if split == root else found))
    items: dict[str, tuple[Item, ...]] = {}
    for folder in splits.values():
        _check_are_classes(folder)
    found.faults += [f"{name!r}: a class with {fault}; rename it." for name in names if (fault := fault_of_name(name))]
    for split, folder in splits.items():
        if loose := loose_images(folder):
            more = f", and {len(loose) - 1} more there" if len(loose) > 1 else ""
            found.faults.append(f"{loose[0]}: an image outside the class folders{more}. {ACCEPTED}")
        files = {name: images_in(folder / name, found) for name in names if (folder / name).is_dir()}
        for name, images in files.items():
            if not images:
                found.faults.append(f"{folder / name}: class {name} is empty. Add images to it or remove the folder.")
        items[split] = tuple(Item(image=f, label=i) for i, name in enumerate(names) for f in files.get(name, ()))
    refuse(found.faults)
    listing = Listing(task="classification", classes=names, splits=items, notes=(*found.notes, *_hardly_apart(names)))
    check_classes(listing, root)
    return listing


def _check_are_classes(root: Path) -> None:
    """DataError where folders taken for classes are splits, or images and masks, by their names or what they hold."""
    classes = folders(root, Found())
    split_words = [folder for folder in classes if set(re.split("[ _.-]", folder.name.lower())) & set(SPLIT_NAMES)]
    if len(split_words) > 1:
        said = " and ".join(f"{folder.name}/" for folder in split_words[:3])
        raise DataError(f"{root}: {said} look like splits; splits are named {', '.join(SPLIT_NAMES)}. {ACCEPTED}")
    for folder in classes:
        for inner in folders(folder, Found()):
            if inner.name.lower() in SPLIT_NAMES:
                raise DataError(f"{inner}: a split inside a class; splits stand around classes. {ACCEPTED}")
            if len(classes) > 1 and _bare(inner.name) in IMAGE_FOLDERS | MASK_FOLDERS:
                raise DataError(f"{inner}: images or masks inside what would be a class. {ACCEPTED}")
    named = [folder for folder in classes if any(word in _bare(folder.name) for word in ("mask", "annot", "label"))]
    if len(classes) == 2 and len(named) == 1:
        one, other = ({_stripped(path.stem, OF_MASKS) for path in images_in(folder, Found())} for folder in classes)
        if one == other and len(one) > 1:
            raise DataError(
                f"{root}: {classes[0].name}/ and {classes[1].name}/ hold files of the same names: are these images and "
                f"masks? Name them images/ and masks/; if they are classes, name {named[0].name}/ otherwise."
            )


def is_table(path: Path) -> bool:
    """Whether a file may be a table of images, or a COCO file, by its name.

    >>> is_table(Path("train.CSV")), is_table(Path("notes.txt"))
    (True, False)
    """
    return path.suffix.lower() in (".csv", ".tsv", ".json")


def _hardly_apart(names: Sequence[str]) -> list[str]:
    """What is told of classes whose names differ in nothing that one sees."""
    known: dict[str, str] = {}
    pairs = [(known.setdefault(plainly(name), name), name) for name in names]
    return [f"{first!a} and {name!a} are two classes" for first, name in pairs if first != name]


def check_classes(listing: Listing, root: str | Path) -> None:
    """DataError where there are not two classes, or where a split lacks one."""
    if len(listing.classes) < 2:
        tables = [file for file in sorted(Path(root).glob("*")) if is_table(file)]
        hint = f" If {tables[0].name} says the classes, name it instead of its folder." if tables else ""
        said = ", ".join(listing.classes)
        if len(listing.classes) == 1 and (inner := Path(root) / said).is_dir() and len(folders(inner, Found())) > 1:
            hint = f" If {said}/ is the data set, name {inner} instead."
        raise DataError(f"{root}: one class only ({said}); at least two are needed.{hint} {ACCEPTED}")
    missing = [
        f"{root}: {name if name.startswith('class ') else f'class {name}'} has no image in {split}; every split needs "
        "every class."
        for split, items in listing.splits.items()
        for name in sorted(set(listing.classes) - {listing.classes[item.label] for item in items})
    ]
    refuse(missing)


def _from_mask_pairs(root: Path, pairs: Mapping[str, tuple[Path, Path]], found: Found) -> Listing:
    splits = {}
    for split, (images, masks) in pairs.items():
        pictures, drawn = images_in(images, found), images_in(masks, found) if masks.is_dir() else []
        if images == masks:
            stems = {path.stem for path in pictures}
            drawn = [path for path in pictures if _stripped(path.stem, OF_MASKS) in stems - {path.stem}]
            pictures = sorted(set(pictures) - set(drawn))
        by_name = _by_name(images, pictures, (OF_IMAGES,), {}, found.faults)
        masked = _by_name(masks, drawn, (OF_MASKS, OF_IMAGES), by_name, found.faults)
        here = {path: name for name, path in by_name.items()}
        found.faults += [f"{path}: no mask {path.stem}.* in {masks}." for path in here if here[path] not in masked]
        found.faults += [
            f"{masked[name]}: a mask without an image in {images}." for name in masked.keys() - by_name.keys()
        ]
        splits[split] = tuple(Item(image=image, mask=masked.get(name)) for name, image in by_name.items())
    refuse(found.faults)
    return Listing(task="segmentation", classes=class_names(root), splits=splits, notes=tuple(found.notes))


def _by_name(
    root: Path, files: Sequence[Path], endings: Iterable[str], known: Mapping[str, Path], faults: list[str]
) -> dict[str, Path]:
    """Files by the names that images and masks find each other by; two of one name are a fault.

    It is the path without ending, less what only tells images from masks.
    """
    named: dict[str, Path] = {}
    for file in files:
        whole = Path(normalize("NFC", str(file.relative_to(root).with_suffix(""))))
        inside, stem = whole.parent, whole.name
        for ending in endings:
            stem = stem if str(inside / stem) in known else _stripped(stem, ending)
        name = str(whole if str(whole) in known else inside / stem)
        if name in named:
            faults.append(f"{file}: a second file named {name}, after {named[name]}.")
        named.setdefault(name, file)
    return named


def class_names(root: Path) -> tuple[str, ...]:
    """The names in classes.txt in a folder, one a line; none where there is no such file."""
    file = root / "classes.txt"
    lines = text_of(file).splitlines() if file.is_file() else []
    names = tuple(line.strip() for line in lines if line.strip())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: {twice[0]} is named twice.")
    return names
