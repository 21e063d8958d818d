"""The loss of segmentation as one operator of torch, on a CPU: its value and its gradient in one pass.

``torch.ops.convfabric.pixel_loss(logits, targets, taught, ignore, smoothing, distil, heat)`` reads logits
(B, K, H, W) float32 as channels-last, targets (B, H, W) int64, and a teacher's logits like the own, or None. It gives

    (1 - distil) · cross-entropy with smoothed labels + distil · heat² · KL(teacher ‖ own), both at 1/heat,

the mean over pixels whose target is not ``ignore``, 0 where there are none; without a teacher the cross-entropy alone.
Then the gradient by the logits, which autograd takes from there. Raises IndexError where a target is none of the K
classes.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from convfabric.execution.compiler import compiled
from convfabric.execution.sparse import LIBRARY, pointer

LIBRARY.define(
    "pixel_loss(Tensor logits, Tensor targets, Tensor? taught, int ignore, float smoothing, float distil, float heat)"
    " -> (Tensor, Tensor)"
)
Two = tuple[Tensor, Tensor]


def runs(logits: Tensor) -> bool:
    """Whether the kernel knows such logits.

    >>> runs(torch.zeros(2, 3, 4, 4)), runs(torch.zeros(2, 3))
    (True, False)
    """
    return logits.ndim == 4 and logits.device.type == "cpu" and logits.dtype == torch.float32


def _forward(
    logits: Tensor, targets: Tensor, taught: Tensor | None, ignore: int, smoothing: float, distil: float, heat: float
) -> Two:
    logits = logits.contiguous(memory_format=torch.channels_last)
    taught = None if taught is None else taught.contiguous(memory_format=torch.channels_last)
    targets = targets.contiguous()
    made = _shapes(logits, targets, taught, ignore, smoothing, distil, heat)
    refused = compiled().convfabric_pixel_loss(
        pointer(logits),
        None if taught is None else pointer(taught),
        pointer(targets),
        ctypes.c_int64(targets.numel()),
        logits.shape[1],
        ctypes.c_int64(ignore),
        *(ctypes.c_float(number) for number in (smoothing, distil, heat)),
        torch.get_num_threads(),
        *(pointer(tensor) for tensor in made),
    )
    if refused:
        wrong = sorted(set(targets.flatten().tolist()) - {ignore, *range(logits.shape[1])})
        raise IndexError(
            f"targets hold {wrong}: of {logits.shape[1]} classes, 0 to {logits.shape[1] - 1} and {ignore}."
        )
    return made


def _shapes(
    logits: Tensor, targets: Tensor, taught: Tensor | None, ignore: int, smoothing: float, distil: float, heat: float
) -> Two:
    images, classes, *size = logits.shape
    return logits.new_empty(()), logits.new_empty((images, *size, classes)).permute(0, 3, 1, 2)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Two) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, wanted: Tensor, *others: Any) -> tuple[Any, ...]:
    (gradient,) = ctx.saved_tensors
    return (wanted * gradient, *(None,) * 6)


LIBRARY.impl("pixel_loss", _forward, "CPU")
torch.library.register_fake("convfabric::pixel_loss", _shapes, lib=LIBRARY)
torch.library.register_autograd("convfabric::pixel_loss", _backward, setup_context=_keep, lib=LIBRARY)
