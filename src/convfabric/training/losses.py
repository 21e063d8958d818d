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

    Logits are (B, K) or (B, K, H, W), targets (B,) or (B, H, W); those of the value ``void`` do not count, and where
    none counts the loss is 0. The mean is over the others, see :attr:`convfabric.data.imageset.ImageSet.void`. Of boxes
    it is :func:`convfabric.boxes.multibox.box_loss`.
    What the labels are held against are the logits plus ``prior_K``, see :func:`prior_of`.
    ``kernels``: whether those of this package may be used, see :class:`convfabric.execution.plans.Plan`.

    >>> loss(torch.zeros(2, 4), torch.tensor([0, 3]), Recipe(), void=-100)
    tensor(1.3863)
    """
    if targets.is_floating_point():
        return box_loss(logits, targets, recipe.label_smoothing, teacher, recipe.distil, recipe.temperature)
    if kernels and pixels.runs(logits):
        numbers = recipe.label_smoothing, recipe.distil, recipe.temperature
        found: tuple[Tensor, Tensor] = torch.ops.convfabric.pixel_loss(logits, targets, teacher, void, *numbers)
        return found[0]
    counts = targets != void
    smoothing, counted = recipe.label_smoothing, counts.sum().clamp(min=1)
    expected = logits if prior_K is None else logits + prior_K.to(logits.device)
    labelled = F.cross_entropy(expected, targets, ignore_index=void, label_smoothing=smoothing, reduction="sum")
    if teacher is None:
        return labelled / counted
    taking_after = (_divergence(logits, teacher, recipe.temperature) * counts).sum()
    return ((1 - recipe.distil) * labelled + recipe.distil * taking_after) / counted


def prior_of(counts: Sequence[int], balance: float) -> Tensor | None:
    """The logarithm (K,) of the share of each class, times the balance; None where images of masks are not counted.

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
