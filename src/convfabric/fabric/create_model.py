"""Fabrics by name, under the names that users of timm know."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.errors import SettingError
from convfabric.fabric.archive import GRAPH_FILE
from convfabric.fabric.module import Fabric
from convfabric.graph import POINT, Graph
from convfabric.operators import Size
from convfabric.setting_values import parsed_size
from convfabric.weavers import DEFAULT, Trellis, find_preset, weave


def create_model(
    name: str = DEFAULT,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    size: Size | int | str | None = None,
    seed: int | None = None,
    **numbers: Any,
) -> nn.Module:
    """A fabric with fresh weights, or with ``features_only`` its last response at each scale, the finest first.

    Raises SettingError for an unknown name or number. ``size`` is the height and width in pixels, one number for both
    or "WIDTHxHEIGHT", that the number of scales is fitted to; other sizes run as well.

    >>> encoder = create_model("fabric-tiny", features_only=True, size=(32, 32)).eval()
    >>> [tuple(response.shape) for response in encoder(torch.zeros(1, 3, 32, 32))]
    [(1, 12, 32, 32), (1, 24, 16, 16), (1, 48, 8, 8)]
    >>> encoder.feature_info.channels(), encoder.feature_info.reduction()
    ([12, 24, 48], [1, 2, 4])
    """
    if (Path(name) / GRAPH_FILE).is_file():
        raise SettingError(f"{name}: the folder of a run; convfabric.load_fabric gives its network.")
    size = parsed_size(size) if isinstance(size, int | str) else size
    if seed is not None:
        torch.manual_seed(seed)
    if features_only and isinstance(find_preset(name).numbers, Trellis):
        numbers = {"head": "all"} | numbers
    graph = weave(name, size=size, image_channels=in_chans, classes=num_classes, **numbers)
    return FeatureFabric(Fabric(with_features(graph))) if features_only else Fabric(graph)


def with_features(graph: Graph) -> Graph:
    """The graph with one head that reads the last response at each scale, less what only other heads needed.

    >>> [str(place) for place in with_features(weave("vgg", size=(32, 32))).head.reads]
    ['L0S0', 'L1S1', 'L3S2', 'L5S3', 'L7S4']
    """
    scores = {place for head in graph.heads if not head.linear for place in head.reads}
    last = {place.scale: place for place in graph.order if place.scale < POINT and place not in scores}
    reads = tuple(last[scale] for scale in sorted(last))
    head = replace(graph.head, reads=reads, linear=True, name="head")
    return replace(graph, heads=(head,)).restrict(graph.edge_names)


class FeatureInfo:
    """Channels, reduction and place of each response of a :class:`FeatureFabric`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def channels(self) -> list[int]:
        """Channels of each response."""
        return [row["num_chs"] for row in self.rows]

    def reduction(self) -> list[int]:
        """Pixels of the image for each pixel of each response, along one side."""
        return [row["reduction"] for row in self.rows]

    def module_name(self) -> list[str]:
        """The node of each response."""
        return [row["module"] for row in self.rows]


class FeatureFabric(nn.Module):
    """A fabric that returns the responses its head would read, the finest first."""

    def __init__(self, fabric: Fabric) -> None:
        super().__init__()
        self.fabric = fabric
        self.places = sorted(fabric.graph.head.reads, key=lambda place: place.scale)
        self.feature_info = FeatureInfo(
            [
                {
                    "num_chs": fabric.graph.node(place).channels,
                    "reduction": 2**place.scale,
                    "module": f"nodes.{place}",
                }
                for place in self.places
            ]
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Responses (B, C, H, W) of float images (B, C, H, W)."""
        responses = self.fabric.forward_features(images)
        return [responses[str(place)] for place in self.places]
