"""Graphs by name: the paper's own, and the ones a user gets by default."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from math import log2
from types import MappingProxyType
from typing import Any, Literal

from convfabric.errors import SettingError
from convfabric.graph import Graph, Task
from convfabric.operators import Size
from convfabric.weavers.trellis import Trellis, weave_trellis


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A trellis by name, with the images it is for unless told otherwise."""

    about: str
    numbers: Trellis
    size: Size = (32, 32)
    image_channels: int = 3
    classes: int = 10
    task: Task = "classification"
    follows_size: bool = False
    """Whether the finest scale and the number of scales are fitted to the size of the images."""


def _block(layers: int, scales: int, channels: int) -> Trellis:
    return Trellis(layers=layers, scales=scales, channels=channels, doubling=True, operators="block", head="all")


def _paper(layers: int, channels: int, scales: int = 6, operators: Literal["plain", "banded"] = "plain") -> Trellis:
    return Trellis(layers=layers, scales=scales, channels=channels, operators=operators)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "fabric-tiny": Preset(
            about="minutes on a CPU, images of 8 to 32 pixels", numbers=_block(4, 3, 12), follows_size=True
        ),
        "fabric-small": Preset(about="the default", numbers=_block(6, 3, 16), follows_size=True),
        "fabric-medium": Preset(about="when a GPU is at hand", numbers=_block(8, 4, 24), follows_size=True),
        "paper-mnist-dense": Preset(about="NIPS 2016, MNIST 0.33 % error", numbers=_paper(8, 64), image_channels=1),
        "paper-mnist-narrow": Preset(
            about="the same wiring with 32 channels, for a CPU", numbers=_paper(8, 32), image_channels=1
        ),
        "paper-mnist-sparse": Preset(
            about="NIPS 2016, MNIST 0.48 % error", numbers=_paper(16, 32, operators="banded"), image_channels=1
        ),
        "paper-cifar10-dense": Preset(about="NIPS 2016, CIFAR-10 7.43 % error", numbers=_paper(8, 128)),
        "paper-part-labels-dense": Preset(
            about="NIPS 2016, Part Labels 95.63 % of super-pixels",
            numbers=_paper(8, 64, scales=9),
            size=(256, 256),
            classes=3,
            task="segmentation",
        ),
    }
)
DEFAULT = "fabric-small"


def find_preset(name: str) -> Preset:
    """The preset of a name; SettingError names the nearest ones.

    >>> find_preset("fabric-small").numbers.layers
    6
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise SettingError(f"network={name}: known are {', '.join(PRESETS)}.{meant}")
    return PRESETS[name]


def weave(
    name: str = DEFAULT,
    *,
    size: Size | None = None,
    image_channels: int | None = None,
    classes: int | None = None,
    task: Task | None = None,
    **numbers: Any,
) -> Graph:
    """The graph of a preset, fitted to images of a size (pixels) and to a task.

    Further keywords replace single numbers of the :class:`Trellis`. Raises SettingError for an
    unknown name or number, and for more scales than the images carry.

    >>> weave("fabric-small", size=(224, 224), classes=3).entry.place
    Place(layer=0, scale=2, lane=0)
    """
    preset = find_preset(name)
    size = size or preset.size
    trellis = fitted(preset.numbers, size) if preset.follows_size else preset.numbers
    if unknown := sorted(set(numbers) - set(asdict(trellis))):
        raise SettingError(f"{', '.join(unknown)}: a trellis has {', '.join(asdict(trellis))}.")
    trellis = replace(trellis, **numbers)
    check_scales(trellis, size)
    return weave_trellis(
        trellis,
        image_channels=image_channels or preset.image_channels,
        classes=classes or preset.classes,
        task=task or preset.task,
        name=name,
    )


def fitted(numbers: Trellis, size: Size) -> Trellis:
    """The trellis that starts where images of this size have some 48 pixels, with no scale below one pixel.

    >>> fitted(Trellis(scales=4), (240, 180)).finest, fitted(Trellis(scales=4), (4, 4)).scales
    (2, 3)
    """
    finest = max(0, round(log2(min(size) / 48)))
    return replace(numbers, finest=finest, scales=min(numbers.scales, most_scales(size) - finest))


def most_scales(size: Size) -> int:
    """Scales that images of this size carry before a side falls below one pixel.

    >>> most_scales((32, 32)), most_scales((8, 9))
    (6, 4)
    """
    return int(log2(min(size))) + 1


def check_scales(trellis: Trellis, size: Size) -> None:
    """Raises SettingError where a trellis has more scales than images of a size carry."""
    if trellis.finest + trellis.scales > most_scales(size):
        raise SettingError(
            f"scales={trellis.scales} from scale {trellis.finest} would shrink {size[0]}×{size[1]} images below one "
            f"pixel. Images of {min(size)} pixels carry at most {most_scales(size)} scales."
        )
