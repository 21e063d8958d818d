"""U-Net (Ronneberger et al. 2015): a path down, a path up, and at each scale what came down beside what came up."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import NORM_AND_RELU, Graph, Place
from convfabric.operators import Bilinear, Chain, Conv, Operator, Pool, Relu, UpConv, pointwise
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Unet:
    """The numbers of a U-Net."""

    scales: int = 5
    """Rows of the way down, the images' size included."""
    channels: int = 16
    """At the finest scale; each coarser one doubles them. The published net has 64."""
    up: Literal["transposed", "bilinear"] = "transposed"
    """transposed: 2×2 kernels, stride 2. bilinear: interpolated, then 1×1."""
    norm: bool = True
    """Whether each convolution is normalised; the published network was not."""

    def __post_init__(self) -> None:
        if min(self.scales, self.channels) < 1:
            raise SettingError(f"{self}: scales and channels are at least 1.")


def weave_unet(numbers: Unet, purpose: Purpose, name: str = "unet") -> Graph:
    """The U-Net with these numbers; padded, so that maps keep their size. Classification reads the finest map, too.

    >>> len(weave_unet(Unet(scales=3), Purpose(task="segmentation")).nodes)
    14
    """
    draft = Draft(name, purpose)
    conv = Conv(bias=not numbers.norm)
    then: Operator = NORM_AND_RELU if numbers.norm else Relu()
    place = draft.enter(Place(0, 0), conv, numbers.channels, then=then)
    came_down: list[Place] = []
    for scale in range(numbers.scales):
        width = numbers.channels << scale
        if scale:
            place = draft.put(Place(2 * scale, scale), width, (place, Chain((Pool(), conv))), then=then)
        place = draft.put(Place(2 * scale + 1, scale), width, (place, conv), then=then)
        came_down.append(place)
    for skipped in reversed(came_down[:-1]):
        at, scale, width = place.layer + 1, skipped.scale, numbers.channels << skipped.scale
        raised = draft.put(Place(at, scale, 1), width, (place, _up(numbers.up)), then=PLAIN)
        beside = draft.concat(Place(at, scale), skipped, raised)
        place = draft.put(Place(at + 1, scale), width, (beside, conv), then=then)
        place = draft.put(Place(at + 2, scale), width, (place, conv), then=then)
    draft.answer(place)
    return draft.finished()


def _up(kind: str) -> Operator:
    return UpConv(kernel=2) if kind == "transposed" else Chain((pointwise(), Bilinear()))
