"""The torch module for each operator; importing this room registers them all."""

from convfabric.layers import banded, composites, convolutions, parameterless
from convfabric.layers.dispatch import added, layer

__all__ = ["added", "banded", "composites", "convolutions", "layer", "parameterless"]
