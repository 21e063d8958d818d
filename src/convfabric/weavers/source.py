"""Where a graph comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convfabric.graph import Graph
from convfabric.weavers.builder import Purpose
from convfabric.weavers.presets import DEFAULT, weave


@dataclass(frozen=True, kw_only=True)
class Source:
    """A preset or a family by name, with numbers that replace its own.

    >>> Source(network="unet", numbers={"scales": 2}).woven(Purpose(task="segmentation", size=(16, 16))).name
    'unet'
    """

    network: str = DEFAULT
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def woven(self, purpose: Purpose) -> Graph:
        """The graph for a purpose; SettingError where the numbers make none."""
        return weave(
            self.network,
            size=purpose.size,
            image_channels=purpose.image_channels,
            classes=purpose.classes,
            task=purpose.task,
            **self.numbers,
        )
