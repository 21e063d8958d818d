"""Modules of the sparse fabric's convolutions: weight (pairs of channels, kernel, kernel), no more.

In training they run as one dense convolution whose kernel is filled in anew, the quickest in torch for the
counts that are trained; in evaluation, and so in exported files, as a few depthwise convolutions, whose work
and weights are those that exist.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import added, constants, cropped, kernels, layer
from convfabric.operators import BandedConv, Size, taps

DENSE_CHANNELS = 256
"""Above so many input channels training, too, runs as depthwise convolutions."""


class _BandedLayer(nn.Module):
    """Kernels for pairs of channels, in the order of outputs, then inputs."""

    def __init__(self, operator: BandedConv, channels_in: int, channels_out: int) -> None:
        super().__init__()
        groups = taps(channels_in, channels_out, operator.distances)
        existing = sorted(pair for group in groups for pair in group)
        number = {pair: i for i, pair in enumerate(existing)}
        self.rises, self.stride = operator.stride < 1, 2 if operator.stride > 1 else 1
        self.channels, self.padding = (channels_out, channels_in), operator.kernel // 2
        self.groups = [_Tap(group, channels_out) for group in groups]
        fan_out = max(1, operator.kernel**2 * len(existing) // channels_in)
        self.weight = kernels(len(existing), operator.kernel, operator.kernel, fan_out=fan_out)
        self.bias = constants(channels_out, operator.bias)
        self.pairs = nn.Buffer(torch.tensor(existing).T.contiguous(), persistent=False)
        for i, group in enumerate(groups):
            self.register_buffer(f"tap{i}", torch.tensor([number[pair] for pair in group]), persistent=False)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if self.training and self.channels[1] <= DENSE_CHANNELS:
            out = self._convolved(x_BCHW, self.dense_weight(), 1)
        else:
            out = self._by_taps(x_BCHW)
        out = out if self.bias is None else out + self.bias[:, None, None]
        return cropped(out, size) if self.rises else out

    def dense_weight(self) -> Tensor:
        """(C_out, C_in, kernel, kernel), zero for pairs that do not exist."""
        dense = self.weight.new_zeros(*self.channels, *self.weight.shape[1:])
        return dense.index_put((self.pairs[0], self.pairs[1]), self.weight)

    def _by_taps(self, x_BCHW: Tensor) -> Tensor:
        parts = []
        for i, tap in enumerate(self.groups):
            weight = self.weight[self.get_buffer(f"tap{i}")][:, None]
            part = self._convolved(x_BCHW[:, tap.inputs], weight, len(weight))
            parts.append(F.pad(part, (0, 0, 0, 0, tap.before, tap.after)) if tap.before or tap.after else part)
        return added(parts)

    def _convolved(self, x_BCHW: Tensor, weight: Tensor, groups: int) -> Tensor:
        if not self.rises:
            return F.conv2d(x_BCHW, weight, None, self.stride, self.padding, groups=groups)
        turned = (weight.transpose(0, 1) if groups == 1 else weight).flip(2, 3)
        return F.conv_transpose2d(x_BCHW, turned, None, stride=2, padding=self.padding, output_padding=1, groups=groups)


class _Tap:
    """One input channel for each of a run of output channels."""

    def __init__(self, pairs: tuple[tuple[int, int], ...], channels_out: int) -> None:
        outputs, inputs = [after for after, _ in pairs], [before for _, before in pairs]
        self.before, self.after = outputs[0], channels_out - outputs[-1] - 1
        steps = {b - a for a, b in pairwise(inputs)} or {1}
        even = len(steps) == 1 and 0 not in steps
        self.inputs: slice | list[int] = slice(inputs[0], inputs[-1] + 1, min(steps)) if even else inputs


@layer.register
def _(operator: BandedConv, channels_in: int, channels_out: int) -> nn.Module:
    return _BandedLayer(operator, channels_in, channels_out)
