"""Which files of a folder belong to a data set: images do; what tools and programs leave beside them does not."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from convfabric.data.reading import ENDINGS

LEFT_BY_TOOLS = frozenset(
    ("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found")
) | frozenset(("thumbnails", "thumbs", "cache"))
"""Folders, in lower case, that file servers and viewers make; those that begin with a dot or __ are left out too."""
UNREAD = frozenset(
    (".heic", ".heif", ".raw", ".nef", ".cr2", ".cr3", ".arw", ".dng", ".svg", ".psd", ".eps", ".pdf", ".npy", ".npz")
) | frozenset(
    (".mat", ".h5", ".hdf5", ".pkl", ".dcm", ".nii", ".gz", ".mp4", ".avi", ".mov", ".mkv", ".zip", ".tar", ".7z")
)
"""Endings of what may hold images and is not read, so that it is not left out in silence."""
OF_RUNS = ("graph.json", "config.yaml")


@dataclass
class Found:
    """What a look through folders met besides images."""

    faults: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    """Kinds of files and names of folders that were left out, and how many of each."""

    @property
    def notes(self) -> list[str]:
        """One line on what was left out."""
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left.items()))
        return [f"left out: {told}"] if told else []


def folders(root: Path, found: Found) -> list[Path]:
    """The folders in a folder that may hold images, links to folders among them, in order of their names."""
    return list(_counted((path for path in sorted(root.iterdir()) if path.is_dir()), found))


def _counted(paths: Iterator[Path], found: Found) -> Iterator[Path]:
    for path in paths:
        if not path.name.startswith((".", "__")) and path.name.lower() not in LEFT_BY_TOOLS and not _holds_runs(path):
            yield path
        else:
            found.left[f"{path.name}/"] += 1


def is_run(folder: Path) -> bool:
    """Whether a folder is one that this package writes a run into."""
    return any((folder / name).is_file() for name in OF_RUNS) and (
        (folder / "model.safetensors").is_file() or not any(is_image(path) for path in folder.iterdir())
    )


def _holds_runs(folder: Path) -> bool:
    """Whether a folder is a run, or holds runs and nothing else."""
    try:
        inside = list(folder.iterdir())
        return is_run(folder) or (bool(inside) and all(path.is_dir() and is_run(path) for path in inside))
    except OSError:
        return False


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name.

    >>> is_image(Path("a.JPG")), is_image(Path("._a.jpg"))
    (True, False)
    """
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def loose_images(folder: Path) -> list[Path]:
    """Image files directly in a folder.

    >>> loose_images(Path("."))
    []
    """
    return sorted(path for path in folder.iterdir() if is_image(path) and path.is_file())


def images_in(folder: Path, found: Found) -> list[Path]:
    """Every image in a folder, at any depth, links followed, in order of their paths.

    Other files are left out by kind; what may be an image that is not read, or cannot be named, is a fault.
    """
    images: list[Path] = []
    for path in _files(folder, found, seen=set()):
        if path.is_symlink() and not path.exists():
            found.faults.append(f"{path}: a link to a file that is not there.")
        elif fault := fault_of_name(path.name):
            found.faults.append(f"{str(path)!r}: {fault}; rename it.")
        elif is_image(path):
            images.append(path)
        elif path.suffix.lower() in UNREAD or (path.is_file() and _is_image_inside(path)):
            found.faults.append(f"{path}: may hold images; read are {', '.join(ENDINGS)}. Convert it or move it away.")
        elif not path.name.startswith("."):
            found.left[path.suffix.lower() or path.name.strip()] += 1
        elif path.suffix.lower() in ENDINGS:
            found.left[f"hidden {path.suffix.lower()}"] += 1
    return images


def _files(folder: Path, found: Found, seen: set[str]) -> Iterator[Path]:
    """Files at any depth; a folder that links lead to a second time is gone through once."""
    try:
        inside, real = sorted(folder.iterdir()), os.path.realpath(folder)
    except OSError as fault:
        found.faults.append(f"{folder}: cannot be looked into ({fault.strerror}).")
        return
    if real in seen:
        return
    seen.add(real)
    yield from (path for path in inside if not path.is_dir())
    for path in _counted((path for path in inside if path.is_dir()), found):
        yield from _files(path, found, seen)


def plainly(name: str) -> str:
    r"""A name without what cannot be seen in it: capitals, kinds and numbers of spaces, ways to write an accent.

    >>> plainly("Cafe\u0301\u00a0 noir") == plainly("caf\u00e9 Noir")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def named_file(near: Iterable[Path], said: str) -> Path | None:
    """The file that a table or a COCO file names, in the first of some folders that has it.

    As it is written, with other slashes, in the other form of accented letters, or, of the whole path on another
    machine, by its name alone; with an ending of an image where it has none.

    >>> named_file([Path("no/such/folder")], "a.png") is None
    True
    """
    slashed = said.replace("\\", "/")
    names = [said, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    names += [name.rpartition("/")[2] for name in names if re.match("/|[A-Za-z]:", said)]
    for folder in near:
        for name in dict.fromkeys(names):
            path = folder / name
            if path.is_file():
                return path
            alike = [one for one in path.parent.glob(f"{path.name}.*") if is_image(one)] if path.parent.is_dir() else []
            if len(alike) == 1 and not any(mark in path.name for mark in "*?["):
                return alike[0]
    return None


def fault_of_name(name: str) -> str:
    r"""What keeps a name from being written down; nothing for most.

    >>> fault_of_name("red"), fault_of_name("a\nb")
    ('', 'a name with a control character')
    """
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        return "a name that is not UTF-8"
    if any(unicodedata.category(letter) == "Cc" for letter in name.rstrip("\r")):
        return "a name with a control character"
    return ""


def _is_image_inside(path: Path) -> bool:
    try:
        with Image.open(path):
            return not path.name.startswith(".")
    except Exception:  # whatever it is, it is none that could have been read
        return False
