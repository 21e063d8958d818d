"""After ENet (Paszke et al. 2016): early halving, a large encoder of narrow blocks, a small decoder.

Wide context comes from dilated and from row-and-column kernels. Two things differ from the published network: the
first block is one convolution, and shortcuts that change the channels do it by a 1×1, up by repetition.
"""

from dataclasses import dataclass

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import (
    Chain,
    Conv,
    Identity,
    Nearest,
    Norm,
    Operator,
    Pool,
    UpConv,
    narrow,
    pointwise,
)
from convfabric.weavers.builder import ACTIVATIONS, Activation, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Enet:
    """The numbers of an ENet-like network."""

    channels: int = 16
    """Of the first convolution and the last stage; 4 and 8 times as many in the stages between."""
    repeats: int = 2
    """Times that the eight blocks at an eighth of the size are gone through."""
    dropout: float = 0.1
    """In each block but those of the first stage, which have a tenth of it."""
    activation: Activation = "prelu"
    """prelu: as published. relu: less than half the milliseconds under ONNX Runtime."""

    def __post_init__(self) -> None:
        if min(self.channels, self.repeats) < 1:
            raise SettingError(f"{self}: channels and repeats are at least 1.")


def weave_enet(numbers: Enet, purpose: Purpose, name: str = "enet") -> Graph:
    """The network with these numbers. Classification reads the encoder's end.

    >>> graph = weave_enet(Enet(), Purpose(task="segmentation"))
    >>> max(node.place.scale for node in graph.nodes), graph.head.reads[0].scale
    (3, 1)
    """
    draft = Draft(name, purpose)
    thin, medium, wide = (numbers.channels * factor for factor in (1, 4, 8))
    plain, row_and_column = (Conv(bias=False),), (Conv(kernel=(5, 1), bias=False), Conv(kernel=(1, 5), bias=False))
    dilated = [(Conv(dilation=2**i, bias=False),) for i in range(1, 5)]
    context = (plain, dilated[0], row_and_column, dilated[1], plain, dilated[2], row_and_column, dilated[3])
    active = ACTIVATIONS[numbers.activation]
    place = draft.enter(Place(0, 1), Conv(stride=2, bias=False), thin, then=Chain((Norm(), active)))
    place = _blocks(draft, place, 1, medium, [plain] * 4, numbers.dropout / 10, active)
    place = _blocks(draft, place, 1, wide, [*context] * numbers.repeats, numbers.dropout, active)
    if purpose.task == "segmentation":
        place = _blocks(draft, place, -1, medium, [plain] * 2, numbers.dropout, active)
        place = _blocks(draft, place, -1, thin, [plain], numbers.dropout, active)
    draft.answer(place)
    return draft.finished()


def _blocks(
    draft: Draft,
    place: Place,
    step: int,
    channels: int,
    kinds: list[tuple[Conv, ...]],
    dropout: float,
    active: Operator,
) -> Place:
    """A block that moves a scale, then one of each kind; every block and its shortcut are edges of their own."""
    moved: tuple[Operator, ...] = (UpConv(bias=False),) if step < 0 else (Conv(stride=2, bias=False),)
    raised = Chain((pointwise(), Norm(), Nearest()))
    shortcut: Operator = raised if step < 0 else Chain((Pool(), pointwise(), Norm()))
    here = Place(place.layer + 1, place.scale + step)
    place = draft.put(
        here, channels, (place, shortcut), (place, narrow(*moved, active=active, dropout=dropout)), then=active
    )
    for kind in kinds:
        arriving = (place, Identity()), (place, narrow(*kind, active=active, dropout=dropout))
        place = draft.put(Place(place.layer + 1, place.scale), channels, *arriving, then=active)
    return place
