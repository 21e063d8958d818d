"""Families of networks: each a short function from numbers to a graph."""

from convfabric.weavers.builder import Draft, Purpose
from convfabric.weavers.families import FAMILIES, Family, weave_numbers
from convfabric.weavers.imported import Imported, is_imported
from convfabric.weavers.ladder import bulk, ladder
from convfabric.weavers.presets import AUTO, DEFAULT, PRESETS, Preset, find_preset, weave
from convfabric.weavers.source import Source
from convfabric.weavers.trellis import weave_trellis
from convfabric.weavers.trellis_numbers import Trellis

__all__ = [
    "AUTO",
    "DEFAULT",
    "FAMILIES",
    "PRESETS",
    "Draft",
    "Family",
    "Imported",
    "Preset",
    "Purpose",
    "Source",
    "Trellis",
    "bulk",
    "find_preset",
    "is_imported",
    "ladder",
    "weave",
    "weave_numbers",
    "weave_trellis",
]
