"""Module of convolutions over the pairs of channels in a table: weight (pairs, kernel, kernel), no more."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers.dispatch import constants, kernels, layer
from convfabric.operators import Size, TabledConv, padding_of


class _TabledLayer(nn.Module):
    """One convolution of each pair's input channel alone, summed by output channel."""

    def __init__(self, operator: TabledConv, channels_in: int, channels_out: int) -> None:
        super().__init__()
        operator.parameters(channels_in, channels_out)
        pairs, kernel = operator.pairs, operator.kernel
        above, below, left, right = padding_of(kernel, 1, operator.padding)
        self.frame, self.counts = (left, right, above, below), [len(reads) for reads in operator.table]
        fan_out = max(1, kernel**2 * len(pairs) // channels_in)
        self.weight = kernels(len(pairs), kernel, kernel, fan_out=fan_out)
        self.bias = constants(channels_out, operator.bias)
        self.inputs = nn.Buffer(torch.tensor([before for _, before in pairs]), persistent=False)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        each = F.conv2d(F.pad(x_BCHW, self.frame)[:, self.inputs], self.weight[:, None], groups=len(self.weight))
        summed = torch.stack([part.sum(1) for part in torch.split(each, self.counts, 1)], 1)
        return summed if self.bias is None else summed + self.bias[:, None, None]


@layer.register
def _(operator: TabledConv, channels_in: int, channels_out: int) -> nn.Module:
    return _TabledLayer(operator, channels_in, channels_out)
