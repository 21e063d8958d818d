"""The torch module for each operator; importing this room registers them all."""

from convfabric.fabric.layers import banded, composites, convolutions, parameterless
from convfabric.fabric.layers.dispatch import added, layer

__all__ = ["added", "banded", "composites", "convolutions", "layer", "parameterless"]
