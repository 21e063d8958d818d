"""ENet (Paszke et al. 2016): early halving, a large encoder of narrow blocks, a small decoder.

Wide context comes from dilated and from row-and-column kernels; pooled values go back to where they came from.
"""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Conv, Identity, Norm, Operator, Pool, Relu, Times, UpConv, narrow, pointwise
from convfabric.weavers.builder import ACTIVATIONS, PLAIN, Activation, Arrival, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Enet:
    """The numbers of an ENet."""

    channels: int = 16
    """Of the first layer and the last stage; 4 and 8 times as many in the stages between."""
    repeats: int = 2
    """Times that the eight blocks at an eighth of the size are gone through."""
    dropout: float = 0.1
    """In each block of the encoder but those of the first stage, which have a tenth of it."""
    activation: Activation = "prelu"
    """Of the encoder. prelu: as published. relu: less than half the milliseconds under ONNX Runtime."""
    shortcuts: Literal["zeros", "pointwise"] = "zeros"
    """Where channels become more. zeros: as published; all stages are then cut to one share of their widths, if at all.
    pointwise: by a 1×1, so that each stage has widths of its own."""

    def __post_init__(self) -> None:
        if min(self.channels, self.repeats) < 1:
            raise SettingError(f"{self}: channels and repeats are at least 1.")


def weave_enet(numbers: Enet, purpose: Purpose, name: str = "enet") -> Graph:
    """The network with these numbers. Classification reads the encoder's end.

    >>> graph = weave_enet(Enet(), Purpose(task="segmentation"))
    >>> max(node.place.scale for node in graph.nodes), graph.head.reads[0].scale
    (3, 0)
    """
    if numbers.channels <= purpose.image_channels:
        least = purpose.image_channels + 1
        raise SettingError(f"channels={numbers.channels}: the images are among them, so give at least {least}.")
    draft, active = Draft(name, purpose), ACTIVATIONS[numbers.activation]
    half = _first(draft, numbers.channels, active)
    quarter, place = half, half
    for times, middles, dropout in (
        (4, [PLAIN_KERNEL] * 4, numbers.dropout / 10),
        (2, [*_context()] * numbers.repeats, numbers.dropout),
    ):
        quarter, place = place, _halved(draft, place, times, active, dropout, numbers.shortcuts)
        for middle in middles:
            place = _block(draft, place, narrow(*middle, active=active, dropout=dropout), active)
    if purpose.task != "segmentation":
        draft.answer(place)
        return draft.finished()
    for finer, blocks in ((quarter, 2), (half, 1)):
        place = _doubled(draft, place, finer)
        for _ in range(blocks):
            place = _block(draft, place, narrow(*PLAIN_KERNEL), Relu())
    place = draft.put(Place(place.layer + 1, 0), purpose.classes, (place, UpConv(kernel=2)), then=PLAIN)
    draft.answer(place, linear=False)
    return draft.finished()


PLAIN_KERNEL = (Conv(),)
"""In the middle of a block."""


def _context() -> list[tuple[Operator, ...]]:
    """The middles of the eight blocks that see ever farther."""
    rows_and_columns = Conv(kernel=(5, 1), bias=False), Conv(kernel=(1, 5))
    far = [(Conv(dilation=dilation),) for dilation in (2, 4, 8, 16)]
    return [PLAIN_KERNEL, far[0], rows_and_columns, far[1], PLAIN_KERNEL, far[2], rows_and_columns, far[3]]


def _first(draft: Draft, channels: int, active: Operator) -> Place:
    """A convolution beside the pooled images."""
    images = draft.enter(Place(0, 0), Identity(), draft.purpose.image_channels, then=PLAIN)
    seen = draft.put(Place(1, 1), channels - draft.purpose.image_channels, (images, Conv(stride=2)), then=PLAIN)
    beside = (seen, Identity()), (images, Pool())
    return draft.put(Place(2, 1), channels, *beside, then=Chain((Norm(), active)), join="concatenation")


def _halved(draft: Draft, place: Place, times: int, active: Operator, dropout: float, shortcuts: str) -> Place:
    """A block of so many times the channels at half the size; its shortcut is pooled."""
    channels, at, scale = draft.channels(place), place.layer + 1, place.scale + 1
    shortcut: Arrival = place, Chain((Pool(), pointwise(), Norm()))
    if shortcuts == "zeros":
        pooled = draft.put(Place(at, scale, 1), channels, (place, Pool()), then=PLAIN)
        beside: list[Arrival] = [(pooled, PLAIN), *[(pooled, Times(factor=0.0))] * (times - 1)]
        widened = draft.put(Place(at, scale, 2), times * channels, *beside, then=PLAIN, join="concatenation")
        shortcut = widened, Identity()
    first = Conv(kernel=2, stride=2, bias=False)
    branch = narrow(*PLAIN_KERNEL, active=active, dropout=dropout, first=first)
    return draft.put(Place(at, scale), times * channels, shortcut, (place, branch), then=active)


def _doubled(draft: Draft, place: Place, finer: Place) -> Place:
    """A block at the size of a finer map, with its channels; its shortcut is unpooled by that map's pool."""
    channels, at, scale = draft.channels(finer), place.layer + 1, finer.scale
    thinned = draft.put(Place(at, place.scale, 1), channels, (place, pointwise()), then=Norm())
    unpooled = draft.unpool(Place(at, scale, 1), thinned, finer)
    branch = narrow(UpConv())
    return draft.put(Place(at, scale), channels, (unpooled, Identity()), (place, branch), then=Relu())


def _block(draft: Draft, place: Place, branch: Operator, active: Operator) -> Place:
    """A block beside its shortcut, each an edge of its own."""
    here = Place(place.layer + 1, place.scale)
    return draft.put(here, draft.channels(place), (place, Identity()), (place, branch), then=active)
