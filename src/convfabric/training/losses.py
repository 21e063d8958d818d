"""Losses.

Legend of the suffixes: B images, K classes; segmentation has a height and a width behind them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.boxes.multibox import box_loss
from convfabric.execution import pixels
from convfabric.training.recipe import Recipe


def summed_loss(
    exits: Sequence[Tensor],
    targets: Tensor,
    recipe: Recipe,
    void: int,
    teacher: Tensor | None = None,
    kernels: bool = False,
    prior_K: Tensor | None = None,
) -> Tensor:
    """The losses of every exit's logits, added; those of all but the last count as ``recipe.early`` says.

    >>> summed_loss([torch.zeros(2, 4)] * 2, torch.tensor([0, 3]), Recipe(), void=-100)
    tensor(2.7726)
    """
    *early, total = [loss(logits.float(), targets, recipe, void, teacher, kernels, prior_K) for logits in exits]
    for other in early:
        total = total + recipe.early * other
    return total


def loss(
    logits: Tensor,
    targets: Tensor,
    recipe: Recipe,
    void: int,
    teacher: Tensor | None = None,
    kernels: bool = False,
    prior_K: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the targets, mixed with the divergence from the teacher's logits where there are some.

    Logits are (B, K) or (B, K, H, W), targets (B,) or (B, H, W); those of the value ``void`` do not count, see
    :attr:`convfabric.data.imageset.ImageSet.void`, and where none counts the loss is 0. The mean is over the others,
    or the hardest of them as ``recipe.hardest`` says. Of boxes it is :func:`convfabric.boxes.multibox.box_loss`.
    What the labels are held against are the logits plus ``prior_K``, see :func:`prior_of`.
    ``kernels``: whether those of this package may be used, see :class:`convfabric.execution.plans.Plan`.

    >>> loss(torch.zeros(2, 4), torch.tensor([0, 3]), Recipe(), void=-100)
    tensor(1.3863)
    """
    if targets.is_floating_point():
        return box_loss(logits, targets, recipe.label_smoothing, teacher, recipe.distil, recipe.temperature)
    expected = logits if prior_K is None else logits + prior_K.to(logits.device).view(-1, *(1,) * (logits.ndim - 2))
    kernels = kernels and pixels.runs(logits)
    labelled = _by_labels(expected, targets, recipe, void, kernels)
    if teacher is None:
        return labelled
    if kernels:
        taking_after = _by_kernel(logits, targets, recipe, void, teacher)
    else:
        counts = targets != void
        taking_after = (_divergence(logits, teacher, recipe.temperature) * counts).sum() / counts.sum().clamp(min=1)
    return (1 - recipe.distil) * labelled + recipe.distil * taking_after


def _by_labels(logits: Tensor, targets: Tensor, recipe: Recipe, void: int, kernels: bool) -> Tensor:
    """Cross-entropy of all images, or of all pixels or the hardest; where masks ask for it mixed with Dice."""
    hardest, dice = (recipe.hardest, recipe.dice) if targets.ndim > 1 else (1.0, 0.0)
    if kernels and hardest == 1:
        found = _by_kernel(logits, targets, recipe, void)
    else:
        spread, counted = recipe.label_smoothing, max(1, int((targets != void).sum()))
        each = F.cross_entropy(logits, targets, ignore_index=void, label_smoothing=spread, reduction="none").flatten()
        found = each.topk(max(1, round(hardest * counted))).values.mean() if hardest < 1 else each.sum() / counted
    return (1 - dice) * found + dice * dice_loss(logits, targets, void) if dice else found


def _by_kernel(logits: Tensor, targets: Tensor, recipe: Recipe, void: int, teacher: Tensor | None = None) -> Tensor:
    """Cross-entropy of pixels, or with a teacher the divergence from it."""
    numbers = recipe.label_smoothing, float(teacher is not None), recipe.temperature
    found: tuple[Tensor, Tensor] = torch.ops.convfabric.pixel_loss(logits, targets, teacher, void, *numbers)
    return found[0]


def dice_loss(logits_BKHW: Tensor, targets_BHW: Tensor, void: int) -> Tensor:
    """1 less the soft Dice coefficient, in the mean over the classes that occur; every class counts alike.

    Of a class it is twice what probabilities and mask share, over what both have (Milletari et al. 2016, section 3,
    with sums in place of squares). Pixels of the value ``void`` do not count.

    >>> masks, logits = torch.tensor([[[0, 1], [1, 255]]]), torch.zeros(1, 2, 2, 2)
    >>> dice_loss(logits, masks, void=255)
    tensor(0.5143)
    """
    counts_BHW = targets_BHW != void
    wanted_BKHW = F.one_hot(targets_BHW * counts_BHW, logits_BKHW.shape[1]).movedim(-1, 1) * counts_BHW[:, None]
    odds_BKHW = logits_BKHW.softmax(1) * counts_BHW[:, None]
    there_K = wanted_BKHW.sum((0, 2, 3))
    alike_K = 2 * (odds_BKHW * wanted_BKHW).sum((0, 2, 3)) / (odds_BKHW.sum((0, 2, 3)) + there_K).clamp(min=1e-6)
    occurs_K = there_K > 0
    return ((1 - alike_K) * occurs_K).sum() / occurs_K.sum().clamp(min=1)


def prior_of(counts: Sequence[int], balance: float) -> Tensor | None:
    """The logarithm (K,) of the share of each class, times the balance; None where nothing was counted.

    A network whose logits are held against the labels with this added learns what speaks for a class beyond its
    frequency (logit adjustment, Menon et al. 2021, section 4.2).

    >>> prior_of((3, 1), 1.0)
    tensor([-0.2877, -1.3863])
    """
    if not (counts and balance):
        return None
    shares_K = torch.tensor(counts).clamp(min=1) / sum(counts)
    return balance * shares_K.log()


def _divergence(logits: Tensor, teacher: Tensor, heat: float) -> Tensor:
    """heat² · KL(teacher ‖ student) of each image or pixel (Hinton et al. 2015, section 2)."""
    student, teacher = F.log_softmax(logits / heat, 1), F.log_softmax(teacher / heat, 1)
    return heat**2 * F.kl_div(student, teacher, log_target=True, reduction="none").sum(1)
