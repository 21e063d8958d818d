"""Settings of training that papers name: momentum, schedules, initial weights, dropout, colours."""

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from convfabric.data.augmentation import Augmentation, augmented, cropped_from, fit_for
from convfabric.data.imageset import HeldSplit
from convfabric.data.opening import open_data
from convfabric.errors import SettingError
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph.costs import costs
from convfabric.operators import FullyConnected
from convfabric.pipeline.inputs import opened, untrained
from convfabric.progress import unwatched
from convfabric.runs.job import job_from
from convfabric.training.interrupts import Interrupts
from convfabric.training.loop import Run
from convfabric.training.losses import summed_loss
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from folders import class_folders, mask_folders


def test_dropout_thins_what_heads_read_in_training_alone() -> None:
    fabric, images = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1)), torch.randn(4, 1, 8, 8)
    fabric.eval()
    before = fabric(images)
    fabric.leave_out(0.5)
    assert torch.equal(fabric(images), before)
    for head in fabric.heads.values():
        head.train()
    thinned = torch.stack([fabric(images) for _ in range(400)])
    assert thinned.std(0).min() > 0
    torch.testing.assert_close(thinned.mean(0), before, atol=0.02, rtol=0.2)


def test_a_training_takes_its_momentum_schedule_dropout_and_initial_weights() -> None:
    changes = {"momentum": 0.5, "schedule": "steps", "dropout": 0.3}
    run = Run(Fabric(weave("nin", channels=4, size=(8, 8), image_channels=1)), open_data("digits"), Recipe(**changes))  # type: ignore[arg-type]
    assert run.optimiser.param_groups[0]["momentum"] == 0.5
    assert {head.dropout for head in run.fabric.heads.values()} == {0.3}
    words = {"data": "digits", "network": "fabric-tiny"}
    wanted = {"xavier": lambda weight: weight[0].numel() ** -0.5, "gaussian": lambda weight: 0.01}
    for init, spread in wanted.items():
        job = job_from(words | {"init": init})
        fabric, _ = untrained(job, opened(job))
        for weight in fabric.state_dict().values():
            if weight.ndim == 4 and weight.numel() > 500:
                assert float(weight.std()) == pytest.approx(spread(weight), rel=0.15)
    job = job_from(words | {"network": "torchvision:resnet18", "weights": "none", "init": "xavier"})
    with pytest.raises(SettingError, match="begins with weights of its own"):
        untrained(job, opened(job_from(words)))


def test_colours_move_along_what_they_do_in_the_images() -> None:
    dice = torch.Generator().manual_seed(0)
    shades = torch.randint(70, 180, (64, 1, 6, 6), generator=dice)
    images = torch.cat([shades, shades, 100 + shades // 50], 1).to(torch.uint8)
    data = replace(open_data("digits"), splits={"train": HeldSplit(images, torch.zeros(64, dtype=torch.int64))})
    data = replace(data, preprocessing=replace(data.preprocessing, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3))
    how = replace(fit_for(data, colour=0.1), shift=0.0, zoom=0.0, rotate=0.0, light=0.0, flip=False)
    changed, _ = augmented(images, torch.zeros(64, dtype=torch.int64), how, dice, 255, (6, 6))
    moved = (changed - images.float()).mean((2, 3))
    assert moved[:, 0].std() > 1
    assert torch.allclose(moved[:, 0], moved[:, 1], atol=0.05)
    assert moved[:, 2].abs().mean() < 0.2 * moved[:, 0].abs().mean()
    with pytest.raises(SettingError, match="images have 1 channels, not three"):
        fit_for(open_data("digits"), colour=0.1)


def test_crops_show_a_part_anywhere_with_its_mask_or_boxes_from_files_that_are_read_larger(tmp_path: Path) -> None:
    dice = torch.Generator().manual_seed(0)
    rows = torch.arange(96).expand(96, 96).T
    ramps = torch.stack([rows, rows.T]).to(torch.uint8).expand(64, 2, 96, 96)
    masks = ramps[:, 0].long() // 32
    seen, answers = augmented(ramps, masks, Augmentation(crop=0.4), dice, 255, (48, 48))
    assert seen.shape[2:] == answers.shape[1:] == (48, 48)
    inside = slice(4, -4)
    nearest = (seen[:, 0] / 32).floor()
    torch.testing.assert_close(answers[:, inside].float(), nearest[:, inside], atol=1, rtol=0)
    assert (answers == nearest).float().mean() > 0.95
    shown = (seen[:, 0, -1, 24] - seen[:, 0, 0, 24]) / 95
    assert 0.35 < float(shown.min()) < 0.5 < 0.9 < float(shown.max()) <= 1
    assert 255 not in answers
    boxes = torch.tensor([[0.0, 24, 24, 72, 72]]).expand(64, 1, 5)
    _, found = augmented(ramps, boxes, Augmentation(crop=0.999), dice, 255, (48, 48))
    torch.testing.assert_close(found[:, 0, 1:], torch.tensor([[12.0, 12, 36, 36]]).expand(64, 4), atol=0.2, rtol=0)
    data = open_data(class_folders(tmp_path / "photos"))
    read, usual = (next(cropped_from(data, Augmentation(crop=crop)).batches([[0]]))[0] for crop in (0.4, 1.0))
    assert read.shape[2:] == tuple(2 * side for side in usual.shape[2:])
    with pytest.raises(SettingError, match=r"crop=0: give a share of the sides above 0, up to 1"):
        fit_for(data, crop=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"colour": -1.0}, "a share from 0 to 1"),
        ({"shift": 3.0}, "a share from 0 to 1"),
        ({"light": -1.0}, "a share from 0 to 1"),
        ({"weight_decay": 2.0}, "a share from 0 to 1"),
        ({"zoom": 1.0}, "a share from 0, below 1"),
        ({"momentum": 1.0}, "a share from 0, below 1"),
        ({"dropout": 1.0}, "a share from 0, below 1"),
        ({"rotate": -400.0}, "degrees from 0 to 180"),
        ({"lr": 1e9}, "at most 100"),
        ({"crop": 0.0}, "a share of the sides above 0"),
        ({"growing": 0.0}, "a share above 0, up to 1"),
    ],
)
def test_settings_of_training_have_a_range(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Recipe(**wrong)


def test_gridnet_trains_by_its_published_recipe(tmp_path: Path) -> None:
    numbers = {"optimiser": "adamw", "weight_decay": 0.0, "lr": 0.01, "schedule": "constant", "warmup": 0.0}
    recipe = Recipe(**numbers, batch=4, crop=0.4, flip=True, epochs=1)  # type: ignore[arg-type]
    data = open_data(mask_folders(tmp_path / "scenes"))
    graph = weave(
        "gridnet", size=data.preprocessing.size, task="segmentation", classes=len(data.classes), streams=2, channels=4
    )
    run = Run(Fabric(graph), data, recipe)
    run.go_on(unwatched, Interrupts())
    assert {group["lr"] for group in run.optimiser.param_groups} == {0.01}
    assert all(isfinite(row["train_loss"]) for row in run.progress.rows)


def test_googlenet_s_auxiliary_heads_are_the_published_ones() -> None:
    words: dict[str, Any] = {"size": (224, 224), "classes": 1000}
    linear, published = (weave("googlenet", exits=True, auxiliary=aux, **words) for aux in (False, True))
    theirs = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    wanted = sum(p.numel() for aux in (theirs.aux1, theirs.aux2) for p in aux.parameters())
    small, large = (costs(graph, (224, 224)).parameters for graph in (linear, published))
    of_linear = (512 + 528) * 1000 + 2 * 1000
    biases = 2 * 128  # of a 1×1 before its norm, which torchvision leaves out
    assert large - small + of_linear == wanted + biases


def test_early_exits_count_as_much_as_is_said() -> None:
    exits, targets = [torch.zeros(2, 4), torch.zeros(2, 4)], torch.tensor([0, 3])
    whole = float(summed_loss(exits[:1], targets, Recipe(), void=-100))
    assert float(summed_loss(exits, targets, Recipe(early=0.3), void=-100)) == pytest.approx(1.3 * whole)


def test_dropconnect_drops_weights_in_training_alone() -> None:
    torch.manual_seed(0)
    dropping = layer(FullyConnected(size=(2, 2), drop=0.5), 3, 4)
    plain = layer(FullyConnected(size=(2, 2)), 3, 4)
    plain.load_state_dict(dropping.state_dict())
    images = torch.randn(5, 3, 2, 2)
    with torch.no_grad():
        wanted = plain(images, (1, 1))
        assert torch.equal(dropping.eval()(images, (1, 1)), wanted)
        dropping.train()
        drawn = torch.stack([dropping(images, (1, 1)) for _ in range(2000)])
    assert drawn.std(0).min() > 0
    torch.testing.assert_close(drawn.mean(0), wanted, atol=0.15, rtol=0.1)
    with pytest.raises(ValueError, match=r"drop=1\.0: a probability"):
        FullyConnected(size=(2, 2), drop=1.0)
