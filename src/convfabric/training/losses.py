"""What training makes small.

Legend of the suffixes: B images, K classes; segmentation has a height and a width behind them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.execution import pixels
from convfabric.training.recipe import Recipe


def summed_loss(
    exits: Sequence[Tensor],
    targets: Tensor,
    recipe: Recipe,
    ignore: int,
    taught: Tensor | None = None,
    kernels: bool = False,
) -> Tensor:
    """The losses of every exit's logits, added with equal weight (MSDNet, Huang et al. 2018, section 4)."""
    losses = [loss(logits.float(), targets, recipe, ignore, taught, kernels) for logits in exits]
    total = losses[0]
    for other in losses[1:]:
        total = total + other
    return total


def loss(
    logits: Tensor,
    targets: Tensor,
    recipe: Recipe,
    ignore: int,
    taught: Tensor | None = None,
    kernels: bool = False,
) -> Tensor:
    """Cross-entropy with the targets, mixed with the divergence from the teacher's logits where there are some.

    Logits are (B, K) or (B, K, H, W), targets (B,) or (B, H, W); pixels of the value ``ignore`` do not count.
    ``kernels``: whether those of this package may be used, see :class:`convfabric.execution.plans.Plan`.
    """
    if kernels and pixels.runs(logits):
        numbers = recipe.label_smoothing, recipe.distil, recipe.temperature
        found: tuple[Tensor, Tensor] = torch.ops.convfabric.pixel_loss(logits, targets, taught, ignore, *numbers)
        return found[0]
    labelled = F.cross_entropy(
        logits, targets, ignore_index=ignore if logits.ndim == 4 else -100, label_smoothing=recipe.label_smoothing
    )
    if taught is None:
        return labelled
    return (1 - recipe.distil) * labelled + recipe.distil * _divergence(logits, taught, targets, recipe, ignore)


def _divergence(logits: Tensor, taught: Tensor, targets: Tensor, recipe: Recipe, ignore: int) -> Tensor:
    """T² · KL(teacher ‖ student), mean over images or counted pixels (Hinton et al. 2015, section 2)."""
    heat = recipe.temperature
    student, teacher = F.log_softmax(logits / heat, 1), F.log_softmax(taught / heat, 1)
    apart = F.kl_div(student, teacher, log_target=True, reduction="none").sum(1)
    if logits.ndim == 4:
        apart = apart[targets != ignore]
    return heat**2 * apart.mean()
