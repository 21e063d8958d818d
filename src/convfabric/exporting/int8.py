"""``model.int8.onnx``: the exported network in int8, kept where that costs few right answers on validation images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet, Preprocessing, drawn, in_order
from convfabric.evaluation.scoring import Score, score
from convfabric.execution.quantisation import Pixels, prepared, quantised, weighted_nodes
from convfabric.exporting.formats import run_onnx
from convfabric.fabric.archive import write_atomically

INT8_FILE = "model.int8.onnx"
CALIBRATED, AT_ONCE = 256, 16
"""Training images that ranges are taken from, and how many at once."""
JUDGED = 256
"""Validation images by which layers are compared where not all can be in int8."""
SHARES = (0.125, 0.25, 0.5)
"""Of the layers with weights that stay in float32, the most sensitive ones, where the first and last are not enough."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """A network in int8."""

    float32_layers: int
    """Layers with weights that stay in float32."""
    layers: int
    """All of them."""
    val_score: Score
    """On validation images."""
    val_score_float32: Score
    """The same of the file in float32."""
    score: Score
    """On the scored split."""
    bytes: int
    """Of the file."""

    def __str__(self) -> str:
        lost = 100 * (self.val_score_float32.headline - self.val_score.headline)
        word = "lost" if lost >= 0 else "gained"
        small = f"{self.layers - self.float32_layers} of {self.layers} layers with weights in int8"
        return f"{abs(lost):.2f} points {word} on validation images, {small}"


def write_int8(folder: Path, data: ImageSet, float32: Score, most: float) -> Int8 | None:
    """Writes ``model.int8.onnx`` beside the ``model.onnx`` of a folder, and says how it answers.

    ``float32`` is how that answers on validation images, and ``most`` the percentage points that int8 may lose of it.
    All layers are tried, then all but the first and the last, then all but the most sensitive ones. None, and no file,
    where each loses more.
    """
    given = (folder / "model.onnx").read_bytes()
    model, batches = prepared(given), list(_batches(data))
    layers = weighted_nodes(model)
    for kept in _kept(model, batches, layers, data):
        small = _with_facts(quantised(model, batches, kept), given)
        draft = folder / f".{INT8_FILE}.draft"
        write_atomically(draft, small)
        try:
            answering = ByFile(draft, data.preprocessing)
            found = score(answering, data, "val")
            if 100 * (float32.headline - found.headline) <= most + 1e-9:
                on_scored = score(answering, data, data.scored_split)
                draft.replace(folder / INT8_FILE)
                return Int8(
                    float32_layers=len(kept),
                    layers=len(layers),
                    val_score=found,
                    val_score_float32=float32,
                    score=on_scored,
                    bytes=len(small),
                )
        finally:
            draft.unlink(missing_ok=True)
    return None


def _kept(model: bytes, batches: Sequence[Pixels], layers: Sequence[str], data: ImageSet) -> Iterator[list[str]]:
    """Layers that stay in float32, at first none."""
    yield []
    yield [layers[0], layers[-1]]
    ranked = _most_sensitive(model, batches, layers, data)
    for share in SHARES:
        yield ranked[: math.ceil(share * len(ranked))]


def _most_sensitive(model: bytes, batches: Sequence[Pixels], layers: Sequence[str], data: ImageSet) -> list[str]:
    """The layers, first the one that alone in int8 makes the answers worst."""
    few = replace(data, splits={"val": drawn(data.splits["val"], JUDGED)})
    losses: dict[str, float] = {}
    for layer in layers:
        others = [other for other in layers if other != layer]
        losses[layer] = score(ByFile(quantised(model, batches, others), data.preprocessing), few, "val").loss
    return sorted(layers, key=lambda layer: losses[layer], reverse=True)


def _batches(data: ImageSet) -> Iterator[Pixels]:
    """A few training images, as files take them."""
    few = drawn(data.splits["train"], CALIBRATED)
    for images, _ in few.batches(in_order(len(few), AT_ONCE)):
        yield images.float().numpy()


def _with_facts(model: bytes, like: bytes) -> bytes:
    """A model with the metadata of another."""
    made, given = onnx.load_from_string(model), onnx.load_from_string(like)
    del made.metadata_props[:]
    made.metadata_props.extend(given.metadata_props)
    return bytes(made.SerializeToString())


class ByFile(nn.Module):
    """An ONNX file as a network that takes normalised images."""

    def __init__(self, file: Path | bytes, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.here = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.answer, shape = run_onnx(file), (1, preprocessing.channels, 1, 1)
        self.mean, self.std = (torch.tensor(part).view(shape) for part in (preprocessing.mean, preprocessing.std))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, from pixels as they were before they were normalised."""
        pixels = (255 * (images_BCHW * self.std + self.mean)).round()
        return torch.from_numpy(self.answer(pixels.contiguous().numpy()))
