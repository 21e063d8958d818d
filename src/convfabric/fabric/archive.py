"""A network on disk: ``graph.json`` and ``model.safetensors``. Nothing is ever pickled or unpickled."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet, Preprocessing
from convfabric.errors import ArchiveError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.json_format import from_text, to_text
from convfabric.graph.laws import check

GRAPH_FILE, WEIGHTS_FILE = "graph.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Passport:
    """Everything a network needs to be used: its graph, its classes, and how its images are prepared."""

    graph: Graph
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    ignore: int = 255
    """Mask value that was neither trained nor counted."""


def passport(fabric: Fabric, data: ImageSet) -> Passport:
    """The passport of a fabric that was trained on these data.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> passport(fabric, open_data("digits")).classes[:3]
    ('0', '1', '2')
    """
    return Passport(graph=fabric.graph, classes=data.classes, preprocessing=data.preprocessing, ignore=data.ignore)


def write_atomically(path: Path, content: bytes | str) -> None:
    """The content in a file, whole or not at all; a file that was there stays as it was until then.

    Raises ArchiveError where it cannot be written, a full disk included.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_atomically(Path(folder.name) / "a.txt", "whole or not at all")
    >>> (Path(folder.name) / "a.txt").read_text()
    'whole or not at all'
    >>> folder.cleanup()
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as fault:
        draft.unlink(missing_ok=True)
        kept = "; the file that was there is kept" if path.exists() else ""
        raise ArchiveError(f"{path}: could not be written ({fault.strerror or fault}){kept}.") from None


def save_fabric(folder: Path, fabric: Fabric, papers: Passport) -> None:
    """Graph and weights in a folder, each written whole or not at all."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in fabric.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, save(weights))
    write_atomically(folder / GRAPH_FILE, to_text(papers))


def load_fabric(folder: str | Path) -> tuple[Fabric, Passport]:
    """The fabric in a folder, in evaluation mode, and its passport.

    Raises ArchiveError for what is missing, damaged, of another graph or of an unknown key.
    """
    folder = Path(folder)
    file = folder / GRAPH_FILE
    if not file.is_file():
        if (folder / "config.yaml").is_file():
            raise ArchiveError(f"{folder}: this run has no network yet; convfabric fit goes on with --resume.")
        raise ArchiveError(f"{folder}: no {GRAPH_FILE}, so it is not a run of convfabric.")
    papers = from_text(Passport, file.read_text("utf-8"), str(file))
    fabric = Fabric(check(papers.graph))
    load_weights(fabric, read_tensors(folder / WEIGHTS_FILE)[0], str(folder / WEIGHTS_FILE))
    return fabric.eval(), papers


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Every tensor in a safetensors file, and its text fields; ArchiveError for a missing or damaged one."""
    if not path.is_file():
        raise ArchiveError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as fault:
        raise ArchiveError(f"{path}: truncated or damaged ({fault}). Nothing was loaded.") from None


def load_weights(fabric: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """The weights into the fabric, all or none; ArchiveError where they are another graph's."""
    wanted = {name: tensor.shape for name, tensor in fabric.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wanted != found:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ArchiveError(
            f"{where}: weights of another graph. {odd[0]} is {_said(found.get(odd[0]))} there and "
            f"{_said(wanted.get(odd[0]))} here, {len(odd)} of {len(wanted)} differ. Nothing was loaded."
        )
    fabric.load_state_dict(dict(weights))


def _said(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "×".join(map(str, shape)) or "a number"
