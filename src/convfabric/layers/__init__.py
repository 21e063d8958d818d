"""The torch module for each operator; importing this room registers them all."""

from convfabric.layers import banded, composites, convolutions, parameterless
from convfabric.layers.dispatch import layer

__all__ = ["banded", "composites", "convolutions", "layer", "parameterless"]
