"""Batch normalisation and a ReLU in training as one operator of torch, on a CPU.

``torch.ops.convfabric.norm_relu(x, weight, bias, epsilon, slope)`` gives z = γ(x - μ)/√(σ²+ε) + β where it is above
zero, else slope · z, which is 0 for a plain ReLU; μ and σ² of the batch (Ioffe & Szegedy 2015, algorithm 1), then μ and
σ² themselves, (C,) float32 and without gradients. It reads x (B, C, H, W), float32 or bfloat16, as channels-last, and
keeps x alone for the way back.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.execution.compiler import compiled
from convfabric.execution.sparse import DTYPES, LIBRARY, pointer
from convfabric.operators import Chain, Operator

LIBRARY.define(
    "norm_relu(Tensor x, Tensor weight, Tensor bias, float epsilon, float slope) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "norm_relu_back(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor variance, float epsilon,"
    " float slope) -> (Tensor, Tensor, Tensor)"
)
Three = tuple[Tensor, Tensor, Tensor]
FEWEST_VALUES = 1 << 18
"""Below so many in a response calling the operator costs more than it saves (measured with 2 threads)."""


def norm_relu(norm: nn.BatchNorm2d, x_BCHW: Tensor, slope: float = 0.0) -> Tensor:
    """What a norm in training and a ReLU make of a response; the norm's running statistics, if kept, follow."""
    found: Three = torch.ops.convfabric.norm_relu(x_BCHW, norm.weight, norm.bias, norm.eps, slope)
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


def slope_of(then: Operator) -> float | None:
    """Negative slope of a norm + (leaky) ReLU node; None for any other node.

    >>> from convfabric.operators import LeakyRelu, Norm, Relu
    >>> slope_of(Chain((Norm(), Relu()))), slope_of(Chain((Norm(), LeakyRelu()))), slope_of(Norm())
    (0.0, 0.1, None)
    """
    steps = then.steps if isinstance(then, Chain) else ()
    slope = steps[1].negative_slope if len(steps) == 2 and steps[0].normalises else None
    return None if slope == 1 else slope


def runs(then: Operator, x_BCHW: Tensor) -> bool:
    """Whether the kernel does what a node does to what arrived, in training.

    >>> from convfabric.graph import NORM_AND_RELU
    >>> runs(NORM_AND_RELU, torch.zeros(64, 16, 16, 16)), runs(NORM_AND_RELU, torch.zeros(1, 1, 2, 2))
    (True, False)
    """
    known = x_BCHW.device.type == "cpu" and x_BCHW.dtype in DTYPES
    return known and slope_of(then) is not None and x_BCHW.numel() >= max(FEWEST_VALUES, 2 * x_BCHW.shape[1])


def _facts(x: Tensor, epsilon: float, slope: float) -> tuple[ctypes.c_float | ctypes.c_int64 | int, ...]:
    """ε, the slope below zero, pixels, channels, whether in bfloat16, threads."""
    pixels = ctypes.c_int64(x.numel() // x.shape[1])
    return (
        ctypes.c_float(epsilon),
        ctypes.c_float(slope),
        pixels,
        x.shape[1],
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, slope: float) -> Three:
    x = x.contiguous(memory_format=torch.channels_last)
    made = _shapes(x, weight, bias, epsilon, slope)
    compiled().convfabric_norm_relu(
        pointer(x),
        pointer(weight),
        pointer(bias),
        *_facts(x, epsilon, slope),
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
) -> Three:
    gradient, x = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (gradient, x))
    made = _shapes(x, weight, bias, epsilon, slope)
    compiled().convfabric_norm_relu_back(
        *(pointer(tensor) for tensor in (gradient, x, weight, bias, mean, variance)),
        *_facts(x, epsilon, slope),
        *(pointer(tensor) for tensor in made),
    )
    return made


def _shapes(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, slope: float) -> Three:
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
) -> Three:
    return _shapes(x, weight, bias, epsilon, slope)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    x, weight, bias, ctx.epsilon, ctx.slope = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, gradient: Tensor, *others: Any) -> tuple[Any, ...]:
    return (*torch.ops.convfabric.norm_relu_back(gradient, *ctx.saved_tensors, ctx.epsilon, ctx.slope), None, None)


LIBRARY.impl("norm_relu", _forward, "CPU")
LIBRARY.impl("norm_relu_back", _back, "CPU")
torch.library.register_fake("convfabric::norm_relu", _shapes, lib=LIBRARY)
torch.library.register_fake("convfabric::norm_relu_back", _shapes_back, lib=LIBRARY)
torch.library.register_autograd("convfabric::norm_relu", _backward, setup_context=_keep, lib=LIBRARY)
