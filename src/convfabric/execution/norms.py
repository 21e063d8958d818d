"""Batch normalisation and a ReLU in training as one operator of torch, on a CPU.

``torch.ops.convfabric.norm_relu(x, weight, bias, epsilon, slope, ceiling)`` gives z = γ(x - μ)/√(σ²+ε) + β where it is
above zero, the ceiling at most, else slope · z: slope 0 is a plain ReLU, 1 none; μ and σ² of the batch (Ioffe & Szegedy
2015, algorithm 1), then μ and σ² themselves, (C,) float32 and without gradients. It reads x (B, C, H, W), float32 or
bfloat16, as channels-last, and keeps x alone for the way back.
"""

import ctypes
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.execution.compiler import compiled
from convfabric.execution.sparse import DTYPES, LIBRARY, pointer
from convfabric.operators import Chain, Norm, Operator, Relu6

LIBRARY.define(
    "norm_relu(Tensor x, Tensor weight, Tensor bias, float epsilon, float slope, float ceiling)"
    " -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "norm_relu_back(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor variance, float epsilon,"
    " float slope, float ceiling) -> (Tensor, Tensor, Tensor)"
)
Three = tuple[Tensor, Tensor, Tensor]
FEWEST_VALUES = 1 << 18
"""Below so many in a response calling the operator costs more than it saves (measured with 2 threads)."""


def norm_relu(norm: nn.BatchNorm2d, x_BCHW: Tensor, slope: float = 0.0, ceiling: float = inf) -> Tensor:
    """What a norm in training and a ReLU make of a response; the norm's running statistics, if kept, follow."""
    found: Three = torch.ops.convfabric.norm_relu(x_BCHW, norm.weight, norm.bias, norm.eps, slope, ceiling)
    activated, mean, variance = found
    if not norm.track_running_stats:
        return activated
    count = x_BCHW.numel() // x_BCHW.shape[1]
    momentum = norm.momentum
    assert momentum is not None
    for running, of_batch in ((norm.running_mean, mean), (norm.running_var, variance * (count / (count - 1)))):
        assert running is not None
        running.lerp_(of_batch, momentum)
    norm.get_buffer("num_batches_tracked").add_(1)
    return activated


def bounds_of(then: Operator) -> tuple[float, float] | None:
    """Of a norm, followed by a ReLU of any kind or not, the slope below zero and the ceiling; None for any other node.

    >>> from convfabric.operators import LeakyRelu, Relu
    >>> bounds_of(Chain((Norm(), Relu()))), bounds_of(Chain((Norm(), LeakyRelu()))), bounds_of(Norm())
    ((0.0, inf), (0.1, inf), (1.0, inf))
    >>> bounds_of(Chain((Norm(), Relu6()))), bounds_of(Relu())
    ((0.0, 6.0), None)
    """
    norm, *others = then.steps if isinstance(then, Chain) else (then,)
    if not isinstance(norm, Norm) or len(others) > 1:
        return None
    if others and isinstance(others[0], Relu6):
        return 0.0, 6.0
    slope = others[0].negative_slope if others else 1.0
    return None if slope is None else (slope, inf)


def runs(then: Operator, x_BCHW: Tensor) -> bool:
    """Whether the kernel does what a node does to what arrived, in training.

    >>> from convfabric.graph import NORM_AND_RELU
    >>> runs(NORM_AND_RELU, torch.zeros(64, 16, 16, 16)), runs(NORM_AND_RELU, torch.zeros(1, 1, 2, 2))
    (True, False)
    """
    known = x_BCHW.device.type == "cpu" and x_BCHW.dtype in DTYPES
    return known and bounds_of(then) is not None and x_BCHW.numel() >= max(FEWEST_VALUES, 2 * x_BCHW.shape[1])


def _facts(
    x: Tensor, epsilon: float, slope: float, ceiling: float
) -> tuple[ctypes.c_float | ctypes.c_int64 | int, ...]:
    """ε, the slope below zero, the ceiling, pixels, channels, whether in bfloat16, threads."""
    pixels = ctypes.c_int64(x.numel() // x.shape[1])
    return (
        ctypes.c_float(epsilon),
        ctypes.c_float(slope),
        ctypes.c_float(ceiling),
        pixels,
        x.shape[1],
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, slope: float, ceiling: float) -> Three:
    x = x.contiguous(memory_format=torch.channels_last)
    made = _shapes(x, weight, bias, epsilon, slope, ceiling)
    compiled().convfabric_norm_relu(
        pointer(x),
        pointer(weight),
        pointer(bias),
        *_facts(x, epsilon, slope, ceiling),
        *(pointer(tensor) for tensor in made),
    )
    return made


def _back(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    slope: float,
    ceiling: float,
) -> Three:
    gradient, x = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (gradient, x))
    made = _shapes(x, weight, bias, epsilon, slope, ceiling)
    compiled().convfabric_norm_relu_back(
        *(pointer(tensor) for tensor in (gradient, x, weight, bias, mean, variance)),
        *_facts(x, epsilon, slope, ceiling),
        *(pointer(tensor) for tensor in made),
    )
    return made


def _shapes(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, slope: float, ceiling: float) -> Three:
    empty = x.new_empty((x.shape[0], x.shape[2], x.shape[3], x.shape[1])).permute(0, 3, 1, 2)
    return empty, torch.empty_like(weight), torch.empty_like(weight)


def _shapes_back(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    slope: float,
    ceiling: float,
) -> Three:
    return _shapes(x, weight, bias, epsilon, slope, ceiling)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    x, weight, bias, ctx.epsilon, ctx.slope, ctx.ceiling = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, gradient: Tensor, *others: Any) -> tuple[Any, ...]:
    facts = ctx.epsilon, ctx.slope, ctx.ceiling
    return (*torch.ops.convfabric.norm_relu_back(gradient, *ctx.saved_tensors, *facts), None, None, None)


LIBRARY.impl("norm_relu", _forward, "CPU")
LIBRARY.impl("norm_relu_back", _back, "CPU")
torch.library.register_fake("convfabric::norm_relu", _shapes, lib=LIBRARY)
torch.library.register_fake("convfabric::norm_relu_back", _shapes_back, lib=LIBRARY)
torch.library.register_autograd("convfabric::norm_relu", _backward, setup_context=_keep, lib=LIBRARY)
