"""Networks by name, under the names that users of timm know."""

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.errors import SettingError
from convfabric.fabric.archive import GRAPH_FILE, load_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph.rewrites import with_features
from convfabric.importing.earlier_run import for_purpose, with_weights_of
from convfabric.importing.sources import as_it_is, network_of, original
from convfabric.operators import Size
from convfabric.setting_values import accepted, parsed_size
from convfabric.weavers import DEFAULT, Purpose, Source, Trellis, find_preset, is_imported, weave
from convfabric.weavers.imported import Imported


def create_model(
    name: str = DEFAULT,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | int | None = None,
    size: Size | int | str | None = None,
    seed: int | None = None,
    **numbers: Any,
) -> nn.Module:
    """A network by name, or with ``features_only`` its last response at each scale, the finest first.

    ``name`` is a preset or a family, with fresh weights; torchvision:NAME, timm:NAME or file:FILE.pt2 with theirs; or
    the folder of a run with what was trained there. ``num_classes`` replaces the classifier of the last two by fresh
    heads. ``out_indices`` says which responses; a single one comes as a tensor, several as a list. ``size`` is the
    height and width in pixels, one number for both or "WIDTHxHEIGHT", that the network is fitted to; other sizes run
    as well. Raises SettingError for an unknown name or number, and ArchiveError for a folder that is no run.

    >>> encoder = create_model("fabric-tiny", features_only=True, size=(32, 32)).eval()
    >>> [tuple(response.shape) for response in encoder(torch.zeros(1, 3, 32, 32))]
    [(1, 12, 32, 32), (1, 24, 16, 16), (1, 48, 8, 8)]
    >>> encoder.feature_info.channels(), encoder.feature_info.reduction()
    ([12, 24, 48], [1, 2, 4])
    >>> coarsest = create_model("fabric-tiny", features_only=True, out_indices=-1, size=(32, 32)).eval()
    >>> coarsest.out_channels, coarsest(torch.zeros(1, 3, 32, 32)).shape
    (48, torch.Size([1, 48, 8, 8]))
    """
    if seed is not None:
        torch.manual_seed(seed)
    size = parsed_size(size) if isinstance(size, int | str) else size
    run = Path(name) if (Path(name) / GRAPH_FILE).is_file() else None
    if run:
        fabric = _of_run(run, num_classes, in_chans, numbers)
    elif is_imported(name):
        fabric = _of_others(Source(network=name, numbers=numbers), num_classes, in_chans, size)
    else:
        if features_only and isinstance(find_preset(name).numbers, Trellis):
            numbers = {"head": "all"} | numbers
        fabric = Fabric(weave(name, size=size, image_channels=in_chans or 3, classes=num_classes, **numbers))
    if not features_only:
        return fabric
    return FeatureFabric(with_weights_of(fabric, with_features(fabric.graph)), out_indices)


def _of_run(run: Path, classes: int | None, channels: int | None, numbers: dict[str, Any]) -> Fabric:
    """The network of a run, with fresh heads where classes are given."""
    fabric, papers = load_fabric(run)
    entry = fabric.graph.entry
    if numbers or channels not in (None, entry.image_channels):
        given = ", ".join([*numbers, *([f"in_chans={channels}"] if channels != entry.image_channels else [])])
        raise SettingError(f"{run}: {given}: a run's network is as it was trained, on {entry.image_channels} channels.")
    if classes is None:
        return fabric
    head = fabric.graph.head
    wanted = Purpose(
        task=head.task, classes=classes, image_channels=entry.image_channels, size=papers.preprocessing.size
    )
    return with_weights_of(fabric, for_purpose(fabric.graph, wanted))


def _of_others(source: Source, classes: int | None, channels: int | None, size: Size | None) -> Fabric:
    """A network of others with its own classifier, or with fresh heads where classes are given."""
    known = [field.name for field in fields(Imported)]
    if unknown := sorted(set(source.numbers) - set(known)):
        raise SettingError(f"{', '.join(unknown)}: {source.network} has {', '.join(known)}.")
    source = replace(source, numbers=accepted(Imported, dict(source.numbers)))
    if classes is None:
        return as_it_is(source, size, channels)
    first = original(source.network, **source.numbers)
    purpose = Purpose(classes=classes, image_channels=channels or first.channels, size=size or first.size)
    return copy.deepcopy(network_of(source, purpose).fabric)


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
    """A fabric that returns the responses its head would read, or some of them, the finest first."""

    out_channels: int | tuple[int, ...]
    """Channels of each response, or of the single one."""

    def __init__(self, fabric: Fabric, out_indices: Sequence[int] | int | None = None) -> None:
        super().__init__()
        self.fabric = fabric
        self.single = isinstance(out_indices, int)
        every = sorted(fabric.graph.head.reads, key=lambda place: place.scale)
        at = (
            range(len(every)) if out_indices is None else [out_indices] if isinstance(out_indices, int) else out_indices
        )
        if odd := [index for index in at if not -len(every) <= index < len(every)]:
            raise SettingError(f"out_indices={odd[0]}: there are {len(every)} responses, from 0.")
        self.places = [every[index] for index in at]
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

        channels = tuple(self.feature_info.channels())
        self.out_channels = channels[0] if self.single else channels

    def forward(self, images: Tensor) -> list[Tensor] | Tensor:
        """Responses (B, C, H, W) of float images (B, C, H, W)."""
        responses = self.fabric.forward_features(images)
        found = [responses[str(place)] for place in self.places]
        return found[0] if self.single else found
