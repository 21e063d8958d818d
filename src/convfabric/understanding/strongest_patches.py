"""The patches of images that a channel responds to most, and what in them it responds to.

Legend of the suffixes: B images, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convfabric.data.imageset import ImageSet, in_order
from convfabric.fabric.module import Fabric, evaluating
from convfabric.graph import Place
from convfabric.graph.receptive_fields import receptive_fields


@dataclass(frozen=True, eq=False, kw_only=True)
class Patch:
    """Where a channel responded strongly, and the part of the image that it saw."""

    image: int
    """Position in the split."""
    row: int
    column: int
    """Of the response's pixel."""
    response: float
    box: tuple[int, int, int, int]
    """Rows from and to, columns from and to, of the image; what lies outside it is left out."""


def strongest_patches(
    fabric: Fabric, data: ImageSet, place: Place, count: int = 6, split: str = "val", images: int = 2048
) -> list[list[Patch]]:
    """For each channel of a place its strongest responses, one an image, the strongest first."""
    part, batch = data.splits[split], 64 if data.task == "classification" else 4
    best: list[Tensor] = []
    where: list[Tensor] = []
    device = next(fabric.parameters()).device
    for pixels, _ in part.batches(in_order(min(images, len(part)), batch)):
        with evaluating(fabric), torch.inference_mode():
            found = fabric.forward_features(data.preprocessing.normalised(pixels.to(device)), (place,))[str(place)]
        width = found.shape[-1]
        largest = found.flatten(2).max(2)
        best.append(largest.values.cpu())
        where.append(largest.indices.cpu())
    values_NC, spots_NC = torch.cat(best), torch.cat(where)
    top = values_NC.topk(min(count, len(values_NC)), dim=0).indices
    return [
        [
            _patch(
                fabric,
                data,
                place,
                int(image),
                int(spots_NC[image, c]) // width,
                int(spots_NC[image, c]) % width,
                float(values_NC[image, c]),
            )
            for image in top[:, c]
        ]
        for c in range(values_NC.shape[1])
    ]


def _patch(fabric: Fabric, data: ImageSet, place: Place, image: int, row: int, column: int, response: float) -> Patch:
    field, (height, width) = receptive_fields(fabric.graph)[place], data.preprocessing.size
    centre = row * field.stride, column * field.stride
    box = (
        int(max(0, centre[0] - field.above)),
        int(min(height, centre[0] + field.below + 1)),
        int(max(0, centre[1] - field.left)),
        int(min(width, centre[1] + field.right + 1)),
    )
    return Patch(image=image, row=row, column=column, response=response, box=box)


def deconvolved(fabric: Fabric, image_CHW: Tensor, place: Place, channel: int, patch: Patch) -> Tensor:
    """The part of a normalised image that made a channel respond at one pixel, float32 (C, H, W) like the image.

    The response is led back through the network by transposed convolutions, pools to where their largest value came
    from, and rectified wherever a ReLU stands (Zeiler & Fergus 2014).
    """
    image = image_CHW[None].clone().requires_grad_()
    with evaluating(fabric), _RectifiedBackward(), torch.enable_grad():
        response = fabric.forward_features(image, (place,))[str(place)]
    (found,) = torch.autograd.grad(response[0, channel, patch.row, patch.column], image)
    return found[0].detach()


class _BackwardRelu(torch.autograd.Function):
    """ReLU whose backward pass rectifies what comes back, whatever went through."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clamp_min(0)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp_min(0)


class _RectifiedBackward(TorchFunctionMode):
    """Replaces every ReLU that is called inside."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.relu:
            return _BackwardRelu.apply(args[0])
        return func(*args, **(kwargs or {}))
