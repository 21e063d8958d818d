import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.worth import WORTHS
from convfabric.data.augmentation import Augmentation, augmented, fit_for
from convfabric.data.image_sizes import shrunk, smaller
from convfabric.data.imageset import HeldSplit, ImageSet, Split
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.errors import ArchiveError, SettingError, TrainingError
from convfabric.evaluation.scoring import score
from convfabric.fabric.archive import read_tensors
from convfabric.fabric.module import Fabric
from convfabric.training import loop
from convfabric.training.estimate import estimate
from convfabric.training.loop import Moment, Run, train
from convfabric.training.losses import loss
from convfabric.training.recipe import Optimiser, Recipe
from convfabric.weavers import weave
from folders import class_folders, mask_folders

QUICK = Recipe(epochs=2, batch=64, lr=0.05)


def few_digits(count: int = 256) -> ImageSet:
    from dataclasses import replace

    data = open_data("digits")
    train_split = data.splits["train"]
    assert isinstance(train_split, HeldSplit)
    few = HeldSplit(train_split.images_BCHW[:count], train_split.targets[:count])
    splits: dict[str, Split] = {"train": few, "val": HeldSplit(few.images_BCHW[:64], few.targets[:64])}
    return replace(data, splits=splits)


def fresh(seed: int = 0, **numbers: Any) -> Fabric:
    torch.manual_seed(seed)
    return Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1, classes=10, **numbers))


def same_weights(a: Fabric, b: Fabric) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_twice_gives_the_same_bits_and_learns() -> None:
    data, fabrics = few_digits(), (fresh(), fresh())
    rows = [train(fabric, data, QUICK, device="cpu") for fabric in fabrics]
    assert rows[0] == rows[1]
    assert same_weights(*fabrics)
    assert rows[0][-1]["train_loss"] < rows[0][0]["train_loss"]


@pytest.mark.parametrize("optimiser", get_args(Optimiser))
def test_at_its_usual_rate_every_optimiser_learns(optimiser: Optimiser) -> None:
    rows = train(fresh(), few_digits(), Recipe(epochs=8, batch=32, optimiser=optimiser), device="cpu")
    assert rows[-1]["val_accuracy"] > 0.6


def test_every_parameter_receives_a_gradient() -> None:
    seen: list[bool] = []
    fabric = fresh()

    def watch(moment: Moment) -> None:
        seen.append(all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in fabric.parameters()))

    train(fabric, few_digits(64), Recipe(epochs=1, batch=64), device="cpu", watch=watch)
    assert seen == [True]


@pytest.mark.parametrize("stop_at", [1, 4, 5, 7])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, stop_at: int) -> None:
    data, whole, halved = few_digits(), fresh(), fresh()
    train(whole, data, QUICK, folder=tmp_path / "whole", device="cpu")

    def interrupt(moment: Moment) -> None:
        if moment.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(halved, data, QUICK, folder=tmp_path / "halved", device="cpu", watch=interrupt)
    resumed = fresh(seed=9)
    train(resumed, data, QUICK, folder=tmp_path / "halved", resume=True, device="cpu")
    assert same_weights(whole, resumed)
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "halved" / "metrics.csv").read_bytes()


def test_a_run_goes_on_only_with_the_settings_it_was_started_with(tmp_path: Path) -> None:
    train(fresh(), few_digits(), QUICK, folder=tmp_path, device="cpu")
    with pytest.raises(SettingError, match="the run was started with recipe"):
        train(fresh(), few_digits(), QUICK.changed(lr=0.2), folder=tmp_path, resume=True, device="cpu")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    fabric = fresh()

    def poison(moment: Moment) -> None:
        if moment.step == 3:
            fabric.heads["head"].bias.data.fill_(float("nan"))  # type: ignore[union-attr,operator]

    with pytest.raises(TrainingError, match=r"the loss of step 4 is nan\. The state of step 3 is kept in"):
        train(fabric, few_digits(), QUICK, folder=tmp_path, device="cpu", watch=poison)
    kept, facts = read_tensors(tmp_path / "fabric.state.safetensors")
    assert json.loads(facts["progress"])["step"] == 3
    assert all(tensor.isfinite().all() for name, tensor in kept.items() if name != "fabric.heads.head.bias")


def test_gradients_that_are_not_finite_stop_the_run_before_weights_are_touched(tmp_path: Path) -> None:
    fabric = fresh()

    def poison(moment: Moment) -> None:
        if moment.step == 3:
            fabric.heads["head"].bias.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[union-attr,operator]

    with pytest.raises(
        TrainingError, match=r"the norm of the gradients of step 4 is nan\. The state of step 3 is kept"
    ):
        train(fabric, few_digits(), QUICK, folder=tmp_path, device="cpu", watch=poison)
    kept, _ = read_tensors(tmp_path / "fabric.state.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_full_disk_during_a_checkpoint_keeps_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(fresh(), few_digits(), QUICK.changed(epochs=1), folder=tmp_path, device="cpu")
    before = (tmp_path / "fabric.state.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArchiveError, match=r"fabric\.state\.safetensors: could not be written \(No space left"):
        train(fresh(), few_digits(), QUICK.changed(epochs=1), folder=tmp_path, device="cpu")
    assert (tmp_path / "fabric.state.safetensors").read_bytes() == before


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"batch=9: 2 equal parts .* nearest is 8"):
        train(fresh(), few_digits(), Recipe(epochs=1, batch=9, accumulate=2), device="cpu")


def test_a_teacher_is_followed() -> None:
    data = few_digits()
    teacher, alone, taught = fresh(1), fresh(2), fresh(2)
    train(teacher, data, Recipe(epochs=6, batch=32), device="cpu")
    train(alone, data, QUICK, device="cpu")
    train(taught, data, QUICK, device="cpu", teacher=teacher)
    assert not same_weights(alone, taught)
    images = data.splits["val"].batches([list(range(64))])
    pixels = data.preprocessing.normalised(next(images)[0])
    with torch.no_grad():
        apart = [
            (teacher(pixels).softmax(1) - s(pixels).softmax(1)).abs().mean() for s in (alone.eval(), taught.eval())
        ]
    assert apart[1] < apart[0]


def test_distillation_loss_is_cross_entropy_plus_divergence() -> None:
    torch.manual_seed(0)
    logits, taught, targets = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    recipe = Recipe(distil=0.25, temperature=3.0)
    by_hand = 0.0
    for row in range(4):
        p, q = (taught[row] / 3).softmax(0), (logits[row] / 3).softmax(0)
        by_hand += float(0.75 * -logits[row].log_softmax(0)[targets[row]] + 0.25 * 9 * (p * (p / q).log()).sum()) / 4
    assert float(loss(logits, targets, recipe, 255, taught)) == pytest.approx(by_hand, rel=1e-5)


def test_ignored_pixels_do_not_count_in_either_part_of_the_loss() -> None:
    torch.manual_seed(0)
    logits, taught, targets = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 7]]])
    before = loss(logits, targets, Recipe(), 7, taught)
    logits[..., 1, 1] += 100.0
    assert torch.equal(loss(logits, targets, Recipe(), 7, taught), before)


def test_shifts_move_images_and_masks_together_and_bring_in_void() -> None:
    images = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).repeat(32, 1, 1, 1)
    masks = images[:, 0].clone()
    moved, answers = augmented(images, masks, Augmentation(shift=0.25), torch.Generator().manual_seed(0), 255, (8, 8))
    inside = answers != 255
    assert inside.any()
    assert (~inside).any()
    torch.testing.assert_close(moved[:, 0][inside], answers[inside].float(), atol=1e-3, rtol=0)
    assert moved[:, 0][~inside].abs().max() < 1e-3


def test_what_moves_in_is_the_image_mirrored_at_its_border_where_asked_for() -> None:
    images = torch.randint(1, 256, (32, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    dice, nothing = torch.Generator().manual_seed(0), torch.zeros(32, dtype=torch.int64)
    moved, _ = augmented(images, nothing, Augmentation(shift=0.25, outside="mirrored"), dice, 255, (8, 8))
    around = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), "symmetric")).float()
    windows = [around[:, :, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    nearest = torch.stack([(moved - window).abs().amax((1, 2, 3)) for window in windows])
    assert nearest.amin(0).max() < 0.1
    assert len(nearest.argmin(0).unique()) > 10


def test_only_photographs_with_classes_are_mirrored_at_their_borders(tmp_path: Path) -> None:
    assert fit_for(open_data(class_folders(tmp_path / "classes"))).outside == "mirrored"
    for others in ("digits", mask_folders(tmp_path / "masks")):
        assert fit_for(open_data(others)).outside == "black"
    assert fit_for(open_data("digits"), outside="mirrored").outside == "mirrored"


def test_flips_mirror_about_half_of_the_images() -> None:
    images = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).repeat(64, 1, 4, 1)
    turned, _ = augmented(
        images,
        torch.zeros(64, dtype=torch.int64),
        Augmentation(flip=True),
        torch.Generator().manual_seed(0),
        255,
        (4, 4),
    )
    mirrored = sum(torch.allclose(image, images[0].float().flip(-1), atol=1e-4) for image in turned)
    same = sum(torch.allclose(image, images[0].float(), atol=1e-4) for image in turned)
    assert mirrored + same == 64
    assert 16 < mirrored < 48


def test_how_images_are_changed_does_not_hang_on_the_name_of_their_folder(tmp_path: Path) -> None:
    changes = [fit_for(open_data(class_folders(tmp_path / name))) for name in ("digits", "mnist", "photos")]
    assert changes[0] == changes[1] == changes[2]
    assert changes[0].flip
    assert not fit_for(open_data("digits")).flip


@pytest.mark.parametrize("other", [{"classes": 3}, {"image_channels": 3}, {"task": "segmentation"}])
def test_a_fabric_for_other_data_is_refused_in_words(other: dict[str, Any]) -> None:
    said = {"size": (8, 8), "image_channels": 1} | other
    with pytest.raises(SettingError, match=r"digits is for classification of 10 classes, images of 1 channels\."):
        train(Fabric(weave("fabric-tiny", **said)), open_data("digits"), Recipe(epochs=1))


def test_images_grow_with_their_masks_and_boxes_to_their_size(tmp_path: Path) -> None:
    for data in (open_data("digits"), open_data(mask_folders(tmp_path / "masks"))):
        size = data.preprocessing.size
        purpose: dict[str, Any] = {"task": data.task, "classes": len(data.classes), "size": size}
        graph = weave("fabric-tiny", image_channels=data.preprocessing.channels, **purpose)
        run = Run(Fabric(graph), data, Recipe(growing=0.5, epochs=4, batch=2))
        seen = []
        for epoch in range(4):
            images, targets = next(run.batches(epoch, 0))
            seen.append(tuple(images[0].shape[2:]))
            assert targets[0].ndim == 1 or targets[0].shape[1:] == images[0].shape[2:]
        assert seen[0] == smaller(size, 0.5) != size == seen[-1]
        assert seen == sorted(seen)
        run.take_step(run.model, *next(run.batches(0, 0)))
    halves = torch.zeros(1, 8, 8, dtype=torch.int64)
    halves[:, 4:] = 255
    images, masks = shrunk(torch.ones(1, 1, 8, 8), halves, (4, 4))
    assert masks.tolist() == [[[0] * 4] * 2 + [[255] * 4] * 2]
    assert images.shape == (1, 1, 4, 4)
    lenet = Fabric(weave("lenet", size=(32, 32), image_channels=1))
    with pytest.raises(SettingError, match=r"growing=0\.1: "):
        Run(lenet, open_data("digits").at((32, 32)), Recipe(growing=0.1))


def test_no_augmentation_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    same, _ = augmented(images, torch.zeros(4, dtype=torch.int64), Augmentation(), torch.Generator(), 255, (8, 8))
    assert torch.equal(same, images.float())


def test_the_score_of_masks_equals_a_three_line_loop(tmp_path: Path) -> None:
    data = open_data(mask_folders(tmp_path), DataOptions(size=(32, 32)))
    torch.manual_seed(0)
    fabric = Fabric(weave("fabric-tiny", size=(32, 32), classes=3, task="segmentation")).eval()
    found = score(fabric, data, "val")
    images, masks = next(data.splits["val"].batches([list(range(4))]))
    with torch.no_grad():
        guess = fabric(data.preprocessing.normalised(images)).argmax(1)
    counted = masks != 255
    iou = [
        float(((guess == k) & (masks == k) & counted).sum() / (((guess == k) | (masks == k)) & counted).sum())
        for k in range(3)
    ]
    assert found.miou == pytest.approx(sum(iou) / 3)
    assert found.accuracy == pytest.approx(float((guess == masks)[counted].float().mean()))


def test_a_class_that_has_the_number_of_void_in_masks_counts() -> None:
    labels = torch.tensor([0, 1, 255, 255, 256])
    split = HeldSplit(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), labels)
    data = replace(few_digits(), classes=tuple(map(str, range(257))), splits={"test": split})
    torch.manual_seed(0)
    fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1, classes=257)).eval()
    guess = fabric(data.preprocessing.normalised(split.images_BCHW)).argmax(1)
    assert score(fabric, data, "test").accuracy == pytest.approx(float((guess == labels).float().mean()))
    always = replace(data, splits={"test": HeldSplit(split.images_BCHW, guess[:1].expand(5))})
    assert score(fabric, replace(always, ignore=int(guess[0])), "test").accuracy == 1


def test_segmentation_trains(tmp_path: Path) -> None:
    data = open_data(mask_folders(tmp_path), DataOptions(size=(32, 32)))
    torch.manual_seed(0)
    fabric = Fabric(weave("fabric-tiny", size=(32, 32), classes=3, task="segmentation"))
    rows = train(fabric, data, Recipe(epochs=24, batch=2, lr=0.05, flip=False, shift=0, zoom=0), device="cpu")
    assert rows[-1]["val_miou"] > 2 * rows[0]["val_miou"] or rows[-1]["val_miou"] > 0.8


def test_loss_change_is_the_squared_effect_of_a_gate_by_differences() -> None:
    """An independent witness: the loss of single images with one edge's result scaled a little up and down."""
    data, fabric = few_digits(8), fresh().double().eval()
    images, targets = next(data.splits["train"].batches([list(range(8))]))
    pixels, name, step = data.preprocessing.normalised(images).double(), "L0S0_L1S1", 1e-5
    losses = []
    for gate in (1 + step, 1 - step):
        handle = fabric.edges[name].register_forward_hook(lambda module, inputs, out, gate=gate: out * gate)
        with torch.no_grad():
            losses.append(torch.nn.functional.cross_entropy(fabric(pixels), targets, reduction="none"))
        handle.remove()
    expected = float(((losses[0] - losses[1]) / (2 * step)).square().mean())
    assert WORTHS["loss-change"](fabric.float(), data)[name] == pytest.approx(expected, rel=1e-3)


def test_refreshed_statistics_are_those_of_the_data() -> None:
    data, fabric = few_digits(128), fresh()
    train(fabric, data, QUICK, device="cpu")
    right = {name: b.clone() for name, b in refresh(fabric, data).named_buffers()}
    for buffer in fabric.buffers():
        buffer.zero_()
    refresh(fabric, data)
    assert all(torch.allclose(b, right[name]) for name, b in fabric.named_buffers())
    assert not fabric.training


def test_statistics_are_refreshed_on_images_changed_as_in_training() -> None:
    data, fabric = few_digits(256), fresh()
    recipe = QUICK.changed(shift=0.4, epochs=3)
    train(fabric, data, recipe, device="cpu")

    def means() -> torch.Tensor:
        return torch.cat([norm.running_mean for norm in fabric.modules() if isinstance(norm, torch.nn.BatchNorm2d)])

    of_weights = refresh(fabric, data, recipe) and means()
    unchanged = refresh(fabric, data, recipe.changed(shift=0.0)) and means()
    usual = refresh(fabric, data) and means()
    train(fabric, data, recipe.changed(epochs=12, lr=1e-9, give_up=0.0), device="cpu")
    assert 3 * (means() - of_weights).norm() < (means() - unchanged).norm()
    assert (means() - of_weights).norm() < (means() - usual).norm()


def test_the_estimate_leaves_the_fabric_as_it_was_and_states_units() -> None:
    fabric, untouched = fresh(), fresh()
    said = str(estimate(fabric, few_digits(), QUICK, device="cpu"))
    assert same_weights(fabric, untouched)
    assert re.match(r"about [\d.]+ (second|seconds|minutes) and \d+ MB: ", said)


def test_the_estimate_times_as_many_steps_where_an_epoch_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, take_step = list[int](), loop.Run.take_step
    monkeypatch.setattr(loop.Run, "take_step", lambda *words: (taken.append(1), take_step(*words)))
    data = few_digits()
    estimate(fresh(), data, QUICK.changed(batch=len(data.splits["train"])), device="cpu")
    assert len(taken) == 3
