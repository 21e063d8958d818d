"""A network on disk: ``graph.json`` and ``model.safetensors``. Nothing is ever pickled or unpickled."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet, Preprocessing
from convfabric.errors import ArchiveError
from convfabric.fabric.module import Fabric, unweighted
from convfabric.graph import Graph
from convfabric.graph.json_format import from_text, text_of, to_text
from convfabric.graph.laws import check

GRAPH_FILE, WEIGHTS_FILE = "graph.json", "model.safetensors"
FACTS = "convfabric"
"""Name under which exported files carry their classes and how their images are prepared."""


@dataclass(frozen=True, kw_only=True)
class Passport:
    """Everything a network needs to be used: its graph, its classes, and how its images are prepared."""

    graph: Graph
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    ignore: int = 255
    """Mask value that was neither trained nor counted."""
    weights: str = field(default="", compare=False)
    """Digest of the weights beside it, see :func:`digest_of`; archives of before have none."""
    seal: str = field(default="", compare=False)
    """Digest of everything else here, see :func:`sealed`; archives of before have none."""


def sealed(papers: Passport) -> Passport:
    """The passport with a digest of all it says, by which a change is noticed.

    >>> from convfabric.weavers import weave
    >>> pixels = Preprocessing(size=(8, 8), channels=3, fitting="cover", mean=(0.5,) * 3, std=(0.2,) * 3)
    >>> one = sealed(Passport(graph=weave("fabric-tiny"), classes=("a", "b"), preprocessing=pixels))
    >>> one.seal == sealed(one).seal != sealed(replace(one, ignore=7)).seal
    True
    """
    text = to_text(replace(papers, seal=""))
    return replace(papers, seal=hashlib.sha256(text.encode()).hexdigest()[:32])


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
    """Graph and weights in a folder, each written whole or not at all; the graph, which says the digest, last."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in fabric.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, save(weights))
    write_atomically(folder / GRAPH_FILE, to_text(sealed(replace(papers, weights=digest_of(weights)))))


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Thirty-two hexadecimal digits of the SHA-256 of names, kinds, shapes and values.

    >>> digest_of({"a": torch.zeros(2)}) == digest_of({"a": torch.zeros(2)}) != digest_of({"a": torch.ones(2)})
    True
    """
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


def load_fabric(folder: str | Path) -> tuple[Fabric, Passport]:
    """The fabric in a folder, in evaluation mode, and its passport.

    Raises ArchiveError for what is missing, damaged, of another graph or of an unknown key, before anything as large as
    the graph says is made.
    """
    folder = Path(folder)
    file, weights = folder / GRAPH_FILE, folder / WEIGHTS_FILE
    if not file.is_file():
        if not folder.is_dir():
            raise ArchiveError(f"{folder}: no such folder; give that of a run.")
        if (folder / "config.yaml").is_file():
            there = (folder / "fabric" / GRAPH_FILE).is_file()
            how = "convfabric extract cuts one from its fabric" if there else "convfabric fit goes on with --resume"
            raise ArchiveError(f"{folder}: this run has no network yet; {how}.")
        raise ArchiveError(f"{folder}: no {GRAPH_FILE}, so it is not a run of convfabric.")
    papers = from_text(Passport, text_of(file), str(file))
    _check_parts(papers, str(file))
    try:
        check(papers.graph, papers.preprocessing.size)
        with torch.device("meta"):
            wanted = shapes_of(unweighted(papers.graph).fabric.state_dict())
    except (ValueError, RuntimeError, OverflowError, MemoryError) as fault:
        raise ArchiveError(f"{file}: {str(fault).splitlines()[0]}") from None
    _check_shapes(wanted, _header(weights), str(weights))
    fabric, found = unweighted(papers.graph).fabric, read_tensors(weights)[0]
    load_weights(fabric, found, str(weights))
    if papers.weights and digest_of(found) != papers.weights:
        raise ArchiveError(f"{weights}: not the weights that were written with {GRAPH_FILE}. Nothing was loaded.")
    if papers.seal and sealed(papers).seal != papers.seal:
        raise ArchiveError(f"{file}: not what was written; its seal says so. Without the line of the seal it is taken.")
    return fabric.eval(), papers


def _check_parts(papers: Passport, where: str) -> None:
    """ArchiveError where classes or images are not those of the graph."""
    if len(papers.classes) != papers.graph.head.classes:
        raise ArchiveError(f"{where}: {len(papers.classes)} classes, the head has {papers.graph.head.classes}.")
    if papers.preprocessing.channels != papers.graph.entry.image_channels:
        read, wanted = papers.preprocessing.channels, papers.graph.entry.image_channels
        raise ArchiveError(f"{where}: images of {read} channels, the graph reads {wanted}.")


Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Of each tensor its shape, and its type as safetensors writes it."""
TYPES = {torch.float32: "F32", torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape and type of each tensor.

    >>> shapes_of({"a": torch.zeros(2, 3)})
    {'a': ((2, 3), 'F32')}
    """
    return {name: (tuple(tensor.shape), TYPES.get(tensor.dtype, str(tensor.dtype))) for name, tensor in tensors.items()}


def _header(path: Path) -> Shapes:
    """What a file of weights says that it holds."""
    with _opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ArchiveError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, UnicodeDecodeError, ValueError, OverflowError, MemoryError) as fault:
        if isinstance(fault, ArchiveError):
            raise
        raise ArchiveError(f"{path}: truncated or damaged ({fault}). Nothing was loaded.") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Every tensor in a safetensors file, and its text fields; ArchiveError for a missing or damaged one."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def load_weights(fabric: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """The weights into the fabric, all or none; ArchiveError where they are another graph's, or no weights at all."""
    _check_shapes(shapes_of(fabric.state_dict()), shapes_of(weights), where)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ArchiveError(f"{where}: {name} holds what is no finite number. Nothing was loaded.")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ArchiveError(f"{where}: {name} holds a variance below zero. Nothing was loaded.")
    fabric.load_state_dict(dict(weights))


def _check_shapes(wanted: Shapes, found: Shapes, where: str) -> None:
    if wanted != found:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        there, here = found.get(odd[0]), wanted.get(odd[0])
        kinds = bool(there and here and there[0] == here[0])
        raise ArchiveError(
            f"{where}: weights of another graph. {odd[0]} is {_said(there, kinds)} there and "
            f"{_said(here, kinds)} here, {len(odd)} of {len(wanted)} differ. Nothing was loaded."
        )


def _said(known: tuple[tuple[int, ...], str] | None, kind: bool) -> str:
    if known is None:
        return "missing"
    return known[1] if kind else "×".join(map(str, known[0])) or "a number"
