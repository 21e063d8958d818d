"""What segmentation spends most of its training in, by kernels: the loss of pixels, and maps enlarged."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.errors import SettingError
from convfabric.execution import enlarging
from convfabric.fabric.module import Fabric
from convfabric.training.loop import train
from convfabric.training.losses import dice_loss, loss, prior_of
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from folders import mask_folders
from nearness import EXACT, SINGLE, apart, kernels

IGNORE = 200


def a_batch(classes: int, size: tuple[int, int], images: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a network and of a teacher, far from even, and targets with some pixels that do not count."""
    torch.manual_seed(0)
    logits, taught = (8 * torch.randn(images, classes, *size, dtype=torch.float64) for _ in range(2))
    targets = torch.randint(0, classes, (images, *size))
    targets[torch.rand(images, *size) < 0.3] = IGNORE
    return logits, taught, targets


@kernels
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize("numbers", [{}, {"label_smoothing": 0.2, "temperature": 1.0}, {"distil": 0.3}])
@pytest.mark.parametrize(("classes", "size"), [(2, (1, 1)), (3, (5, 7)), (11, (8, 8)), (40, (6, 5))])
def test_the_kernel_gives_the_loss_of_pixels_and_its_gradient(
    classes: int, size: tuple[int, int], numbers: dict[str, float], with_teacher: bool, channels_last: bool
) -> None:
    logits, taught, targets = a_batch(classes, size)
    targets[0] = 0
    recipe = Recipe(**numbers)  # type: ignore[arg-type]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    single = logits.float().contiguous(memory_format=layout).requires_grad_()
    logits.requires_grad_()
    wanted = loss(logits, targets, recipe, IGNORE, taught if with_teacher else None)
    found = loss(single, targets, recipe, IGNORE, taught.float() if with_teacher else None, kernels=True)
    assert with_teacher or "convfabric" in type(found.grad_fn).__name__
    assert apart(found, wanted) < SINGLE
    for result in (wanted, found):
        (3 * result).backward()
    assert single.grad is not None
    assert logits.grad is not None
    assert apart(single.grad, logits.grad) < SINGLE
    assert not single.grad[(targets == IGNORE)[:, None].expand_as(single)].any()


@kernels
@pytest.mark.parametrize("with_teacher", [False, True])
def test_rare_classes_are_held_against_by_kernels_as_without(with_teacher: bool) -> None:
    logits, taught, targets = a_batch(4, (5, 7))
    logits, prior_K = logits / 10, prior_of((900, 90, 9, 1), 0.5)
    teacher = taught.float() / 10 if with_teacher else None
    found, wanted = (
        loss(logits.float(), targets, Recipe(), IGNORE, teacher, kernels, prior_K) for kernels in (False, True)
    )
    assert apart(found, wanted) < SINGLE
    assert apart(found, loss(logits.float(), targets, Recipe(), IGNORE, teacher)) > 0.01


def test_pixels_of_each_class_are_counted_and_void_ones_are_not(tmp_path: Path) -> None:
    data = open_data(mask_folders(tmp_path, values=(0, 0, 1, 255)), DataOptions(size=(32, 32)))
    assert data.class_counts == (4 * 32 * 16, 4 * 32 * 8)
    zero_is_void = open_data(
        mask_folders(tmp_path / "other", values=(0, 0, 1, 2)), DataOptions(size=(32, 32), ignore=0)
    )
    assert sum(zero_is_void.class_counts) == 4 * 32 * 16


def test_the_hardest_pixels_alone_count_where_that_is_said() -> None:
    logits, _, targets = a_batch(3, (5, 7))
    each = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")[targets != IGNORE]
    quarter = each.sort(descending=True).values[: round(0.25 * len(each))]
    assert apart(loss(logits, targets, Recipe(hardest=0.25), IGNORE), quarter.mean()) < EXACT
    assert apart(loss(logits, targets, Recipe(), IGNORE), each.mean()) < EXACT


@pytest.mark.parametrize("changes", [{"dice": 0.5}, {"hardest": 0.5}])
def test_what_masks_are_learnt_by_is_refused_for_images(changes: dict[str, float]) -> None:
    fabric = Fabric(weave("nin", channels=4, size=(8, 8), image_channels=1))
    with pytest.raises(SettingError, match=f"{next(iter(changes))}=0.5: of masks alone, and this is classification"):
        train(fabric, open_data("digits"), Recipe(epochs=1, **changes), device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_dice_is_what_masks_share_with_answers_class_by_class(share: float) -> None:
    logits, _, targets = a_batch(4, (5, 7))
    targets[targets == 3] = 0  # a class that does not occur
    odds, counts = logits.softmax(1), targets != IGNORE
    alike = []
    for k in range(3):
        told, there = odds[:, k][counts], (targets[counts] == k).double()
        alike.append(2 * (told * there).sum() / (told.sum() + there.sum()))
    wanted = share * (1 - torch.stack(alike).mean()) + (1 - share) * loss(logits, targets, Recipe(), IGNORE)
    assert apart(loss(logits, targets, Recipe(dice=share), IGNORE), wanted) < EXACT
    right = 50.0 * F.one_hot(targets * counts, 4).movedim(-1, 1).double()
    assert dice_loss(right, targets, IGNORE) < 1e-6
    assert dice_loss(right.roll(1, 1), targets, IGNORE) > 0.99


@kernels
def test_the_loss_does_not_overflow_where_logits_are_large() -> None:
    logits = torch.tensor([1000.0, -1000.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    found = loss(logits, torch.ones(1, 1, 1, dtype=torch.int64), Recipe(), IGNORE, kernels=True)
    assert float(found.detach()) == pytest.approx(2000)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([1, -1, 0])


@kernels
@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_target_that_is_no_class_is_refused_by_its_value(wrong: int) -> None:
    logits, _, targets = a_batch(4, (3, 3))
    targets[1, 1, 1] = wrong
    with pytest.raises(IndexError, match=rf"targets hold \[{wrong}\]: of 4 classes, 0 to 3 and 200"):
        loss(logits.float(), targets, Recipe(), IGNORE, kernels=True)


@pytest.mark.parametrize("by_kernel", [False, pytest.param(True, marks=kernels)])
def test_masks_that_are_void_altogether_teach_nothing_and_end_no_training(by_kernel: bool) -> None:
    logits, taught, targets = a_batch(4, (3, 3))
    targets.fill_(IGNORE)
    single = logits.float().detach().requires_grad_()
    found = loss(single, targets, Recipe(), IGNORE, taught.float(), kernels=by_kernel)
    assert found == 0
    assert torch.equal(torch.autograd.grad(found, single)[0], torch.zeros_like(single))


@kernels
@pytest.mark.parametrize("channels", [1, 11, 16, 40])
@pytest.mark.parametrize(
    ("small", "large"), [((1, 1), (5, 4)), ((4, 6), (8, 12)), ((5, 3), (13, 3)), ((7, 9), (8, 31)), ((8, 8), (4, 3))]
)
def test_enlarging_is_bilinear_interpolation_and_its_transpose(
    channels: int, small: tuple[int, int], large: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    exact = torch.randn(2, channels, *small, dtype=torch.float64, requires_grad=True)
    single = exact.detach().float().requires_grad_()
    wanted = F.interpolate(exact, size=large, mode="bilinear", align_corners=False)
    found = enlarging.enlarged(single, large)
    gradient = torch.randn_like(wanted)
    assert apart(found, wanted) < SINGLE
    (back,) = torch.autograd.grad(found, single, gradient.float())
    (wanted_back,) = torch.autograd.grad(wanted, exact, gradient)
    assert apart(back, wanted_back) < SINGLE


@kernels
def test_neither_depends_on_the_number_of_threads() -> None:
    logits, taught, targets = (one.float() if one.is_floating_point() else one for one in a_batch(5, (17, 9)))
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            lost = torch.ops.convfabric.pixel_loss(logits, targets, taught, IGNORE, 0.1, 0.5, 2.0)
            found.append((*lost, enlarging.enlarged(logits, (40, 40))))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert float(other[0]) == pytest.approx(float(found[0][0]), rel=1e-6)
        assert torch.equal(other[1], found[0][1])
        assert torch.equal(other[2], found[0][2])


@kernels
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_the_operators_keep_torch_s_rules() -> None:
    logits, taught, targets = a_batch(3, (4, 5))
    single = logits.float().contiguous(memory_format=torch.channels_last).requires_grad_()
    operators = torch.ops.convfabric
    for found in (
        torch.library.opcheck(operators.pixel_loss.default, (single, targets, taught.float(), IGNORE, 0.1, 0.9, 2.0)),
        torch.library.opcheck(operators.pixel_loss.default, (single, targets, None, IGNORE, 0.0, 0.9, 2.0)),
        torch.library.opcheck(operators.enlarged.default, (single, 9, 7)),
    ):
        assert set(found.values()) == {"SUCCESS"}


@kernels
@pytest.mark.parametrize("taught", [False, True])
def test_training_by_the_kernels_is_that_of_the_readable_executor(tmp_path: Path, taught: bool) -> None:
    data = open_data(mask_folders(tmp_path), DataOptions(size=(32, 32)))
    losses = []
    for execution in ("readable", "auto"):
        torch.manual_seed(0)
        student, teacher = (
            Fabric(weave("fabric-tiny", size=(32, 32), classes=3, task="segmentation")) for _ in range(2)
        )
        recipe = Recipe(epochs=2, batch=2, subnetworks=0 if taught else 1, execution=execution)  # type: ignore[arg-type]
        rows = train(student, data, recipe, teacher=teacher if taught else None, device="cpu")
        losses.append([row["train_loss"] for row in rows])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
