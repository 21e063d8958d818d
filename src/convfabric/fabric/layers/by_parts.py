"""Module of an operator done for each part of the channels: parts are images of their own to the module inside."""

from torch import Tensor, nn

from convfabric.fabric.layers.dispatch import layer
from convfabric.operators import ByParts, Size


class _ByPartsLayer(nn.Module):
    """One module, run on every part at once."""

    def __init__(self, operator: ByParts, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.each = layer(operator.each, *operator.part(channels_in, channels_out))
        self.width = operator.width

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        parts = x_BCHW.shape[1] // self.width
        apart = x_BCHW.reshape(-1, self.width, *x_BCHW.shape[2:])
        found: Tensor = self.each(apart, size)
        return found.reshape(-1, parts * found.shape[1], *found.shape[2:])


@layer.register
def _(operator: ByParts, channels_in: int, channels_out: int) -> nn.Module:
    return _ByPartsLayer(operator, channels_in, channels_out)
