"""A fabric for masks: narrow scales seen early, wide context at an eighth of the size, all of them read by the head.

After what small networks for street scenes share: early halving (ENet, Paszke et al. 2016), residual blocks of rising
dilation (ERFNet, Romera et al. 2018; DABNet, Li et al. 2019), one 3×3 convolution after scales are added (RegSeg, Gao
2021), and what the whole image says (Hu et al. 2018). Every block and every shortcut is an edge, so that depth, widths,
the detail branch and the context are what a budget chooses from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from convfabric.errors import SettingError
from convfabric.graph import POINT, Graph, Place
from convfabric.operators import (
    Chain,
    Conv,
    GlobalPool,
    Identity,
    Nearest,
    Norm,
    Operator,
    Sigmoid,
    depthwise_dilated,
    factorised,
    narrow,
    pointwise,
)
from convfabric.weavers.builder import ACTIVATIONS, PLAIN, Activation, Draft, Purpose

Block = Literal["narrow", "factorised", "depthwise"]
Branch = Callable[[int, Operator, float], Operator]
"""From dilation, activation and dropout to an operator."""
BLOCKS: Mapping[Block, Branch] = MappingProxyType(
    {
        "narrow": lambda far, active, out: narrow(Conv(dilation=far, bias=False), active=active, dropout=out),
        "factorised": factorised,
        "depthwise": depthwise_dilated,
    }
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """The numbers of a context fabric."""

    channels: int = 8
    """At half the size; 3 times as many at a quarter, 7 times at an eighth."""
    early: int = 3
    """Blocks at a quarter of the size."""
    dilations: tuple[int, ...] = (1, 2, 4, 1, 8, 2, 16)
    """Of the blocks at an eighth of the size, one after another."""
    repeats: int = 2
    """Times that those are gone through."""
    block: Block = "narrow"
    """narrow: a 3×3 convolution in a quarter of the channels. factorised: columns and rows in all of them. depthwise:
    columns and rows of single channels, near and far, in half of them."""
    detail: bool = True
    """Whether the head reads half the size, too."""
    surround: bool = False
    """Whether channels are multiplied by what the whole image says."""
    activation: Activation = "relu"
    """After each norm: relu, leaky (a tenth of what is below zero is kept) or prelu (each channel learns how much)."""
    dropout: float = 0.1
    """Behind each block at an eighth of the size."""

    def __post_init__(self) -> None:
        if min(self.channels, self.repeats, *self.dilations) < 1 or self.early < 0 or not self.dilations:
            raise SettingError(f"{self}: every number is at least 1; early may be 0.")


def weave_context(numbers: Context, purpose: Purpose, name: str = "context") -> Graph:
    """The fabric with these numbers. Classification reads the end of the way down.

    >>> graph = weave_context(Context(), Purpose(task="segmentation", size=(64, 64)))
    >>> [place.scale for place in graph.head.reads], len(graph.edges)
    ([1, 2, 3], 39)
    """
    draft, active = Draft(name, purpose), ACTIVATIONS[numbers.activation]
    thin, medium, wide = (numbers.channels * times for times in (1, 3, 7))
    then, halving = Chain((Norm(), active)), Conv(stride=2, bias=False)
    half = draft.enter(Place(0, 1), halving, thin, then=then)
    quarter = draft.put(Place(1, 2), medium, (half, halving), then=then)
    for _ in range(numbers.early):
        quarter = _with_block(draft, quarter, narrow(active=active), active)
    place = draft.put(Place(quarter.layer + 1, 3), wide, (quarter, halving), then=then)
    for dilation in numbers.dilations * numbers.repeats:
        place = _with_block(draft, place, BLOCKS[numbers.block](dilation, active, numbers.dropout), active)
    if numbers.surround:
        place = _surrounded(draft, place)
    if purpose.task != "segmentation":
        draft.answer(place)
        return draft.finished()
    raised = Chain((pointwise(), Norm(), Nearest()))
    fused = draft.put(Place(place.layer + 1, 2), medium, (place, raised), (quarter, pointwise()), then=then)
    fused = draft.put(Place(fused.layer + 1, 2), medium, (fused, Conv(bias=False)), then=then)
    draft.answer(*([half] if numbers.detail else []), fused, place)
    return draft.finished()


def _with_block(draft: Draft, place: Place, branch: Operator, active: Operator) -> Place:
    here = Place(place.layer + 1, place.scale)
    return draft.put(here, draft.channels(place), (place, Identity()), (place, branch), then=active)


def _surrounded(draft: Draft, place: Place) -> Place:
    """The channels of a place times factors from 0 to 1, which the mean of the whole map says."""
    channels, at = draft.channels(place), place.layer + 1
    said = Chain((GlobalPool(), Conv(kernel=1)))
    factors = draft.put(Place(at, POINT), channels, (place, said), then=Sigmoid())
    arriving = (place, Identity()), (factors, Identity())
    return draft.put(Place(at, place.scale), channels, *arriving, then=PLAIN, join="product")
