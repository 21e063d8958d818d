"""The judge of sub-networks: what it sees, and what it leaves for later."""

import random

import pytest
import torch

from convfabric.cutting.fitness import Judge
from convfabric.data.imageset import HeldSplit, ImageSet, drawn
from convfabric.data.opening import open_data
from convfabric.evaluation.scoring import Score
from convfabric.fabric.module import Fabric
from convfabric.graph.subnetworks import Sampler
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return open_data("digits")


def as_set(split: object) -> set[bytes]:
    assert isinstance(split, HeldSplit)
    return {image.numpy().tobytes() for image in split.images_BCHW}


def test_what_is_drawn_and_what_comes_after_are_the_whole_split(digits: ImageSet) -> None:
    split = digits.splits["val"]
    first, rest = drawn(split, 100), drawn(split, 10_000, after=100)
    assert (len(first), len(first) + len(rest)) == (100, len(split))
    assert as_set(first) | as_set(rest) == as_set(split)


def test_the_judge_leaves_validation_images_for_what_is_decided_later(digits: ImageSet) -> None:
    judge = Judge.of(Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1)), digits, Recipe())
    seen, unseen = judge.few.splits["val"], Judge.unseen(digits).splits["val"]
    assert min(len(seen), len(unseen)) > 100
    assert not as_set(seen) & as_set(unseen)
    assert "test" not in judge.few.splits


def test_a_trained_fabric_is_judged_better_than_a_fresh_one_and_stays_as_it_is(digits: ImageSet) -> None:
    torch.manual_seed(0)
    graph = weave("fabric-tiny", size=(8, 8), image_channels=1, operators="residual")
    fabric = Fabric(graph)
    part = Sampler.of(graph, 0.5, (8, 8)).draw(random.Random(1))
    recipe = Recipe(epochs=2, subnetworks=1, narrowest=0.5)
    fresh = Judge.of(fabric, digits, recipe)(part)
    train(fabric, digits, recipe, device="cpu")
    before = {name: value.clone() for name, value in fabric.state_dict().items()}
    judge = Judge.of(fabric, digits, recipe)
    assert judge(part) > fresh + 0.2
    assert judge(part) == judge(part) == judge.known[part]
    assert all(torch.equal(before[name], value) for name, value in fabric.state_dict().items())


@pytest.mark.parametrize(
    ("images", "before", "after", "surely"),
    [(135, 134, 133, False), (135, 134, 128, True), (10_000, 9_900, 9_850, True), (10_000, 9_900, 9_895, False)],
)
def test_one_image_of_few_is_chance_and_fifty_of_ten_thousand_are_not(
    images: int, before: int, after: int, surely: bool
) -> None:
    def found(right: int) -> Score:
        return Score(images=images, loss=0.1, accuracy=right / images, miou=None, class_iou=())

    assert found(after).surely_below(found(before)) == surely
    assert not found(before).surely_below(found(after))
