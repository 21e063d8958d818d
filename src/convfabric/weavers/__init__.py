"""Families of networks: each a short function from numbers to a graph."""

from convfabric.weavers.presets import DEFAULT, PRESETS, Preset, find_preset, weave
from convfabric.weavers.trellis import Trellis, weave_trellis

__all__ = ["DEFAULT", "PRESETS", "Preset", "Trellis", "find_preset", "weave", "weave_trellis"]
