"""Fabrics from small to large, of which a budget picks one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from convfabric.graph import Task
from convfabric.operators import Size
from convfabric.weavers.presets import AUTO, find_preset, numbers_for
from convfabric.weavers.trellis_numbers import Trellis

RUNGS = (
    *((1, 8), (2, 8), (3, 8), (2, 16), (3, 16), (4, 16), (3, 24), (4, 24), (4, 32)),
    *((6, 32), (5, 48), (6, 48), (6, 64), (8, 64), (8, 96)),
)
"""Layers and channels for masks; from the second on each has 1.2 to 2.3 times the multiply-accumulates of the one
before."""
WIDTHS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)
"""Channels for classes, in two layers; of the MACs each has 1.4 to 2.3 times those of the one before."""


def ladder(size: Size, numbers: Mapping[str, Any] | None = None, task: Task = "classification") -> tuple[Trellis, ...]:
    """The fabrics for images of a size, the smallest first; ``numbers`` that are given hold for all of them.

    >>> [(rung.layers, rung.channels, rung.finest) for rung in ladder((224, 224), {"channels": 16}, "segmentation")]
    [(1, 16, 2), (2, 16, 2), (3, 16, 2), (4, 16, 2), (5, 16, 2), (6, 16, 2), (8, 16, 2)]
    """
    usual = numbers_for(find_preset(AUTO), task, size)
    given = {name: value for name, value in (numbers or {}).items() if name != "prior"}
    pairs = RUNGS if task == "segmentation" else [(usual.layers, channels) for channels in WIDTHS]
    rungs = {replace(usual, **({"layers": layers, "channels": channels} | given)) for layers, channels in pairs}
    return tuple(sorted(rungs, key=lambda rung: (bulk(rung), rung.layers)))


def bulk(fabric: Trellis) -> int:
    """What multiply-accumulates of fabrics of the same scales go with.

    >>> bulk(Trellis(layers=2, channels=16))
    512
    """
    return fabric.layers * fabric.channels**2
