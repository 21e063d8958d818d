"""Residual branches of wide context, by dilation instead of pooling (Yu et al., Dilated Residual Networks, 2017)."""

from convfabric.operators.activations import Identity
from convfabric.operators.blocks import normed
from convfabric.operators.composites import Chain, Sum
from convfabric.operators.convolutions import Conv


def dilated_residual(dilation: int = 2, kernel: int = 3) -> Sum:
    """Identity beside a dilated convolution and a plain one, a norm and a ReLU between them.

    >>> dilated_residual(dilation=4).halo, dilated_residual().parameters(16, 16)
    ((5.0, 5.0, 5.0, 5.0), 4640)
    """
    wide, plain = Conv(kernel=kernel, dilation=dilation, bias=False), Conv(kernel=kernel, bias=False)
    return Sum((Identity(), Chain((*normed(wide), plain))))
