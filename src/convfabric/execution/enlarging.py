"""Maps enlarged by bilinear interpolation as one operator of torch, on a CPU.

``torch.ops.convfabric.enlarged(x, height, width)`` gives what ``torch.nn.functional.interpolate`` does without aligned
corners, for x (B, C, H, W) float32, read as channels-last.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.execution.compiler import compiled
from convfabric.execution.sparse import LIBRARY, pointer
from convfabric.fabric import module
from convfabric.operators import Size

LIBRARY.define("enlarged(Tensor x, int height, int width) -> Tensor")
LIBRARY.define("enlarged_back(Tensor gradient, int height, int width) -> Tensor")


def enlarged(x_BCHW: Tensor, size: Size) -> Tensor:
    """The maps at a size, by the kernel where it knows them.

    >>> enlarged(torch.ones(1, 1, 2, 2, dtype=torch.float64), (3, 5)).shape
    torch.Size([1, 1, 3, 5])
    """
    known = x_BCHW.device.type == "cpu" and x_BCHW.dtype == torch.float32
    if not known or x_BCHW.shape[2:] == size:
        return module.enlarged(x_BCHW, size)
    found: Tensor = torch.ops.convfabric.enlarged(x_BCHW, *size)
    return found


@lru_cache(maxsize=256)
def _taps(given: int, made: int, back: bool) -> tuple[int, Tensor, Tensor]:
    """How many values each result of an axis weighs, the first of them (int32), and their weights."""
    of, to = (made, given) if back else (given, made)
    matrix = F.interpolate(torch.eye(of)[None], size=to, mode="linear", align_corners=False)[0]
    weights = matrix if back else matrix.T
    used = weights != 0
    first = used.int().argmax(1)
    count = int((used.shape[1] - used.flip(1).int().argmax(1) - first).max())
    first = first.clamp(max=weights.shape[1] - count)
    taken = weights.gather(1, first[:, None] + torch.arange(count))
    return count, first.int(), taken.contiguous()


def _weighed(x: Tensor, size: Size, back: bool) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    made = _shape(x, *size)
    images, channels, *given = x.shape
    axes: list[Any] = []
    for one, other in zip(given, size, strict=True):
        count, first, weights = _taps(one, other, back)
        axes += [other, count, pointer(first), pointer(weights)]
    threads = torch.get_num_threads()
    compiled().convfabric_weighed(pointer(x), images, *given, channels, *axes, threads, pointer(made))
    return made


def _shape(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty((x.shape[0], height, width, x.shape[1])).permute(0, 3, 1, 2)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.size = inputs[0].shape[2:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    return torch.ops.convfabric.enlarged_back(gradient, *ctx.size), None, None


LIBRARY.impl("enlarged", lambda x, height, width: _weighed(x, (height, width), False), "CPU")
LIBRARY.impl("enlarged_back", lambda x, height, width: _weighed(x, (height, width), True), "CPU")
torch.library.register_fake("convfabric::enlarged", _shape, lib=LIBRARY)
torch.library.register_fake("convfabric::enlarged_back", _shape, lib=LIBRARY)
torch.library.register_autograd("convfabric::enlarged", _backward, setup_context=_keep, lib=LIBRARY)
