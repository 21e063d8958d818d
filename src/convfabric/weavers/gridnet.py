"""GridNet (Fourure et al. 2017): streams of several sizes; the first columns lead down, the others up."""

from dataclasses import dataclass

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Conv, Identity, Norm, Operator, Relu, TotalDropout, UpConv
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Gridnet:
    """The numbers of a GridNet."""

    streams: int = 5
    """Rows, one scale each."""
    channels: int = 16
    """Of the finest stream; each coarser one doubles them."""
    down: int = 3
    """Columns that read the next finer stream."""
    up: int = 3
    """Columns that read the next coarser stream."""
    dropout: float = 0.1
    """Probability that the residual branch of a horizontal block is left out for a whole batch."""

    def __post_init__(self) -> None:
        if min(self.streams, self.channels, self.down, self.up) < 1:
            raise SettingError(f"{self}: streams, channels, down and up are at least 1.")


def weave_gridnet(numbers: Gridnet, purpose: Purpose, name: str = "gridnet") -> Graph:
    """The GridNet with these numbers; nothing is normalised or activated at nodes, the edges do it first.

    For classification the head reads the coarsest stream of the last column that leads down.

    >>> graph = weave_gridnet(Gridnet(), Purpose(task="segmentation", classes=19))
    >>> steps = [edge.target.scale - edge.source.scale for edge in graph.edges if edge.target.layer < 6]
    >>> steps.count(1), steps.count(-1)
    (12, 12)
    """
    draft = Draft(name, purpose)
    rows = range(numbers.streams)
    stem = Chain((Norm(), Conv(), Norm(), Relu(), Conv(), Norm(), Relu()))
    draft.enter(Place(0, 0), stem, numbers.channels, then=PLAIN)
    columns = numbers.down + (numbers.up if purpose.task == "segmentation" else 0)
    across = Chain((*_twice(Conv()), TotalDropout(p=numbers.dropout)))
    for column in range(columns):
        rising = column >= numbers.down
        for s in reversed(rows) if rising else rows:
            near = s + 1 if rising else s - 1
            arriving: list[tuple[Place, Operator]] = []
            if column > 0:
                arriving += [(Place(column - 1, s), Identity()), (Place(column - 1, s), across)]
            if near in rows:
                arriving.append((Place(column, near), Chain(_twice(UpConv() if rising else Conv(stride=2)))))
            if arriving:
                draft.put(Place(column, s), numbers.channels << s, *arriving, then=PLAIN)
    _end(draft, numbers, columns, purpose)
    return draft.finished()


def _twice(first: Operator) -> tuple[Operator, ...]:
    """Norm, ReLU and a convolution, twice; the first one may change the scale."""
    return Norm(), Relu(), first, Norm(), Relu(), Conv()


def _end(draft: Draft, numbers: Gridnet, columns: int, purpose: Purpose) -> None:
    if purpose.task == "classification":
        draft.answer(Place(columns - 1, numbers.streams - 1))
        return
    last = Chain((Conv(), Norm(), Relu(), Conv()))
    draft.answer(
        draft.put(Place(columns, 0), purpose.classes, (Place(columns - 1, 0), last), then=Norm()), linear=False
    )
