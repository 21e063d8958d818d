"""The paper's claim that a fabric is any convolutional network, shown: operators, trained networks, one by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from convfabric.data.arrays import from_arrays
from convfabric.data.imageset import ImageSet
from convfabric.data.named import read_named
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.errors import SettingError
from convfabric.evaluation.scoring import score
from convfabric.fabric.archive import load_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.importing.sources import as_it_is
from convfabric.operators import Size
from convfabric.progress import Say
from convfabric.report.drawing import draw
from convfabric.report.gallery import Section
from convfabric.runs.job import network_from, network_numbers, parsed_setting
from convfabric.setting_values import parsed_size
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.universality.constructions import Built, built
from convfabric.universality.embedding import Embedding, embedded
from convfabric.weavers import Source, is_imported, weave

IMAGES = 2
"""Random ones by which a network is compared with its embedding."""
INK = 127
"""Brightness above which a pixel of a digit is a part of it."""
EPOCHS = 6


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A network in a fabric, and how they compare."""

    built: Built
    embedding: Embedding
    right: tuple[float, float] | None = None
    """Shares of right answers on the test split, of the network and of the fabric, where it was trained."""

    @property
    def section(self) -> Section:
        """The part of the trellis that the network is, drawn."""
        facts = self.built
        line = (
            f"{facts.layers} layers × {facts.scales} scales, {facts.channels} channels at the widest node; answers are "
            f"{facts.largest_difference:.1e} apart at most, of the largest value."
        )
        return facts.name, line, draw(self.embedding.trellis, self.embedding.graph)


def trained_networks(say: Say, seed: int = 0) -> Iterator[Embedded]:
    """A VGG, an AlexNet and a U-Net, trained on scans of digits, each in a fabric of 3×3 edges."""
    whole, masks = open_data("digits", DataOptions(size=(16, 16))), _masks_of_digits()
    rows: tuple[tuple[str, ImageSet, Graph], ...] = (
        ("VGG with max pools", whole, _graph("vgg", whole, channels=6, top="full", hidden=32)),
        (
            "AlexNet with 5×5 kernels and filter groups",
            whole,
            _graph("alexnet", whole, channels=12, hidden=64, stem="small", pools="padded", response_norm=False),
        ),
        ("U-Net", masks, _graph("unet", masks, channels=4, scales=3)),
    )
    for name, data, graph in rows:
        torch.manual_seed(seed)
        say(f"{name}: {EPOCHS} epochs on {data.name}")
        fabric = Fabric(graph)
        train(fabric, data, Recipe(epochs=EPOCHS, lr=0.05, seed=seed), device="cpu")
        found = compared(name, fabric.eval(), data.preprocessing.size)
        scores = [score(network, data, "test") for network in (fabric, found.embedding.fabric)]
        yield Embedded(built=found.built, embedding=found.embedding, right=(scores[0].accuracy, scores[1].accuracy))


def _graph(family: str, data: ImageSet, **numbers: object) -> Graph:
    given = {"size": data.preprocessing.size, "image_channels": 1, "classes": len(data.classes), "task": data.task}
    return weave(family, **given, **numbers)  # type: ignore[arg-type]


def _masks_of_digits() -> ImageSet:
    """Scans of digits, each inked pixel of the class of its digit."""
    splits, classes = read_named("digits", None, download=False, seed=0)
    masks = {
        split: (images, np.where(images[..., 0] > INK, labels[:, None, None] + 1, 0))
        for split, (images, labels) in splits.items()
    }
    return from_arrays("digits", masks, ("paper", *classes), DataOptions(), ())


def compared(name: str, fabric: Fabric, image: Size, seed: int = 0) -> Embedded:
    """A network in evaluation mode beside its embedding, on random images of a size.

    >>> found = compared("nin", Fabric(weave("vgg", channels=4)).eval(), (32, 32))
    >>> found.built.scales, found.built.largest_difference < 1e-5
    (5, True)
    """
    embedding = embedded(fabric, image)
    dice = torch.Generator().manual_seed(seed)
    images = torch.randn(IMAGES, fabric.graph.entry.image_channels, *image, generator=dice)
    with torch.inference_mode():
        answers = embedding.fabric(images), fabric(images)
    return Embedded(built=built(name, embedding, *answers), embedding=embedding)


def network_named(name: str, size: str | None, changes: Sequence[str]) -> tuple[Fabric, Size]:
    """The network of a run, one of others with its weights, or a woven one with fresh weights; and its images' size.

    >>> network_named("vgg", "64x48", ["channels=4"])[1]
    (48, 64)
    """
    if is_imported(name):
        numbers = network_numbers(name, dict(parsed_setting(change) for change in changes))
        fabric = as_it_is(Source(network=name, numbers=numbers), parsed_size(size) if size else None)
        return fabric.eval(), parsed_size(size) if size else network_from(name, None, changes)[1]
    if Path(name).is_dir():
        if size or changes:
            raise SettingError(f"{name}: a run is embedded as it is; --size and --set are for networks by name.")
        fabric, papers = load_fabric(Path(name))
        return fabric.eval(), papers.preprocessing.size
    if Path(name).name != name:
        raise SettingError(f"{name}: no such folder.")
    graph, image = network_from(name, size, changes)
    torch.manual_seed(0)
    return Fabric(graph).eval(), image
