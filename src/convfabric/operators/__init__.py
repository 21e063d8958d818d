"""The catalogue: what an edge can do, with its shape of work and its cost, and no tensor."""

from collections.abc import Mapping
from types import MappingProxyType

from convfabric.operators.composites import Chain, Sum, pointwise_up, residual, strided_stem
from convfabric.operators.operator import Operator, Size, area, halved
from convfabric.operators.primitives import Conv, Identity, Nearest, Norm, Relu, UpConv

CATALOGUE: Mapping[str, Operator] = MappingProxyType(
    {
        "conv": Conv(),
        "conv 1×1": Conv(kernel=1),
        "conv 5×5": Conv(kernel=5, bias=False),
        "strided conv": Conv(stride=2),
        "upconv": UpConv(),
        "upconv 5×5": UpConv(kernel=5, bias=False),
        "identity": Identity(),
        "nearest": Nearest(),
        "norm": Norm(),
        "relu": Relu(),
        "residual": residual(),
        "pointwise up": pointwise_up(),
        "stem of stride 4": strided_stem(2),
    }
)
"""One specimen of each operator, by name; the contract suite runs over every row."""

__all__ = [
    "CATALOGUE",
    "Chain",
    "Conv",
    "Identity",
    "Nearest",
    "Norm",
    "Operator",
    "Relu",
    "Size",
    "Sum",
    "UpConv",
    "area",
    "halved",
    "pointwise_up",
    "residual",
    "strided_stem",
]
