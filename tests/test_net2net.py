"""Trained fabrics grow, wider or deeper, and answer as before: every family, in evaluation and in training."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from convfabric.errors import GraphError
from convfabric.fabric.module import Fabric
from convfabric.fabric.net2net import deepened, widened
from convfabric.graph import Place
from convfabric.graph.growth import wider
from convfabric.graph.laws import broken_laws
from convfabric.operators import Chain
from convfabric.weavers import FAMILIES, weave

FOLLOWING = {"msdnet", "densenet", "enet", "alexnet", "lenet"}
"""Families whose layers have groups, or channels inside a chain that follow from those at its ends: none can grow, or
few."""


def lively(name: str) -> Fabric:
    """A small fabric of a family in evaluation mode, its norms' statistics random."""
    torch.manual_seed(0)
    fabric = Fabric(weave(name, size=(32, 32), classes=3, **FAMILIES[name].specimen))
    for module in fabric.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.3)
    return fabric.eval()


def grown(fabric: Fabric, most: int, noise: float = 0.0) -> Iterator[Fabric]:
    """The fabric with three channels more at one group of places after another, as far as they can grow."""
    found = 0
    for tie in fabric.graph.ties:
        place = min(tie.places)
        try:
            yield widened(fabric, {place: fabric.graph.node(place).channels + 3}, seed=found, noise=noise)
        except GraphError:
            continue
        found += 1
        if found == most:
            return


def without_dropout(fabric: Fabric, training: bool) -> Fabric:
    for module in fabric.modules():
        module.train(training and "Dropout" not in type(module).__name__)
    return fabric


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_a_widened_fabric_answers_alike(name: str, training: bool) -> None:
    fabric, images = lively(name), torch.randn(4, 3, 32, 32)
    tried = 0
    for wide in grown(fabric, most=3):
        tried += 1
        with torch.no_grad():
            found, wanted = (without_dropout(one, training)(images) for one in (wide, fabric))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        fabric.eval()
    assert tried or name in FOLLOWING


def test_noise_parts_the_copies_and_little_else() -> None:
    fabric, images = lively("vgg"), torch.randn(2, 3, 32, 32)
    wide = next(grown(fabric, most=1, noise=0.1))
    assert not torch.allclose(wide(images), fabric(images), atol=1e-6)
    assert torch.equal(wide.entry.get_parameter("weight")[:3], fabric.entry.get_parameter("weight"))


def test_places_that_are_tied_grow_together_and_concatenations_follow() -> None:
    fabric, images = lively("unet"), torch.randn(2, 3, 32, 32)
    [tie] = [tie for tie in fabric.graph.ties if Place(1, 0) in tie.places]
    wide = widened(fabric, {Place(1, 0): 5})
    assert {wide.graph.node(place).channels for place in tie.places if fabric.graph.node(place).join == "sum"} == {5}
    torch.testing.assert_close(wide(images), fabric(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_deepened_fabric_answers_as_before(name: str) -> None:
    fabric, images, tried = lively(name), torch.randn(2, 3, 32, 32), 0
    for place in fabric.graph.order:
        then = fabric.graph.node(place).then
        if not (then.steps[-1] if isinstance(then, Chain) else then).rectifies:
            with pytest.raises(GraphError, match="may be below zero"):
                deepened(fabric, place)
            continue
        deep, tried = deepened(fabric, place), tried + 1
        assert broken_laws(deep.graph, (32, 32)) == []
        with torch.no_grad():
            torch.testing.assert_close(deep(images), fabric(images), rtol=0, atol=1e-6)
        if tried == 4:
            break
    assert tried or name in ("gridnet", "enet", "lenet")  # whose nodes end otherwise than with a ReLU


def test_what_cannot_grow_says_why() -> None:
    resnet, nin = weave("resnet", channels=4, blocks=(1,)), weave("nin", channels=6)
    with pytest.raises(GraphError, match="2 channels asked for; it has 4 already"):
        wider(resnet, {Place(0, 0): 2})
    with pytest.raises(GraphError, match="the image's, classes, or belong together"):
        wider(nin, {nin.head.reads[0]: 20})
    with pytest.raises(GraphError, match="no node L9S9"):
        wider(nin, {Place(9, 9): 20})
