"""The torch module for each operator; importing this room registers them all."""

from convfabric.fabric.layers import (
    activations,
    banded,
    by_parts,
    composites,
    convolutions,
    norms,
    opaque,
    pools,
    resampling,
    tabled,
)
from convfabric.fabric.layers.dispatch import added, layer, multiplied

__all__ = [
    "activations",
    "added",
    "banded",
    "by_parts",
    "composites",
    "convolutions",
    "layer",
    "multiplied",
    "norms",
    "opaque",
    "pools",
    "resampling",
    "tabled",
]
