"""Residual branches of wide context, by dilation instead of pooling."""

from convfabric.operators.activations import Dropout, Identity, Relu
from convfabric.operators.blocks import normed, pointwise
from convfabric.operators.composites import Chain, Sum, Width
from convfabric.operators.convolutions import Conv, Depthwise
from convfabric.operators.norms import Norm
from convfabric.operators.operator import Operator


def dilated_residual(dilation: int = 2, kernel: int = 3) -> Sum:
    """Identity beside a dilated convolution and a plain one, a norm and a ReLU between (Yu et al. 2017).

    >>> dilated_residual(dilation=4).halo, dilated_residual().parameters(16, 16)
    ((5.0, 5.0, 5.0, 5.0), 4640)
    """
    wide, plain = Conv(kernel=kernel, dilation=dilation, bias=False), Conv(kernel=kernel, bias=False)
    return Sum((Identity(), Chain((*normed(wide), plain))))


def narrow(
    *middle: Operator,
    narrowing: int = 4,
    active: Operator | None = None,
    dropout: float = 0.0,
    first: Operator | None = None,
) -> Chain:
    """1×1 to a part of the channels, what is in the middle, 1×1 back; norms between (ENet's, Paszke et al. 2016).

    Without a middle it is a 3×3 convolution; the activation is a ReLU and what is first a 1×1 unless others are given.

    >>> narrow().parameters(16, 16), narrow(Conv(dilation=4, bias=False)).halo
    (320, (4.0, 4.0, 4.0, 4.0))
    """
    active, middle = active or Relu(), middle or (Conv(bias=False),)
    steps = (first or pointwise(), Norm(), active, *middle, Norm(), active, pointwise(), Norm())
    return Chain(_thinned(steps, dropout), inner=Width(over=narrowing))


def factorised(dilation: int = 1, active: Operator | None = None, dropout: float = 0.0) -> Chain:
    """Columns and rows of three, plain and then dilated, in full width (ERFNet's, Romera et al. 2018).

    >>> factorised(dilation=4).halo, factorised().parameters(16, 16)
    ((5.0, 5.0, 5.0, 5.0), 3136)
    """
    active = active or Relu()
    (column, row), (far_column, far_row) = _column_and_row(Conv), _column_and_row(Conv, dilation)
    return Chain(_thinned((column, active, row, Norm(), active, far_column, active, far_row, Norm()), dropout))


def depthwise_dilated(dilation: int = 2, active: Operator | None = None, dropout: float = 0.0) -> Chain:
    """3×3 to half the channels, single channels by near and far columns and rows, added, 1×1 back (DABNet, Li 2019).

    >>> depthwise_dilated(dilation=4).halo, depthwise_dilated().parameters(16, 16)
    ((5.0, 5.0, 5.0, 5.0), 1440)
    """
    active = active or Relu()
    both = Sum((Chain(_column_and_row(Depthwise)), Chain(_column_and_row(Depthwise, dilation))))
    steps = (Conv(bias=False), Norm(), active, both, Norm(), active, pointwise(), Norm())
    return Chain(_thinned(steps, dropout), inner=Width(over=2))


def _column_and_row(kind: type[Conv] | type[Depthwise], dilation: int = 1) -> tuple[Operator, Operator]:
    return kind(kernel=(3, 1), dilation=dilation, bias=False), kind(kernel=(1, 3), dilation=dilation, bias=False)


def _thinned(steps: tuple[Operator, ...], dropout: float) -> tuple[Operator, ...]:
    return (*steps, Dropout(p=dropout)) if dropout else steps
