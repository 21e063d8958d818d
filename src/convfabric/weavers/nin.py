"""Network in Network (Lin et al. 2014) for small images: spatial convolutions, each followed by 1×1 ones."""

from dataclasses import dataclass

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import Chain, Conv, Pool
from convfabric.weavers.builder import PLAIN, Draft, Purpose


@dataclass(frozen=True, kw_only=True)
class Nin:
    """The numbers of a NiN."""

    channels: int = 192
    """Of every convolution but the second and third, which have 5/6 and 1/2 of them."""
    all_three: bool = False
    """Whether the first 5×5 kernel is one 3×3 and the second two 3×3 ("nin-c3", Ioannou et al. 2016)."""

    def __post_init__(self) -> None:
        if self.channels < 2:
            raise SettingError(f"channels={self.channels}: a NiN has at least 2.")


def weave_nin(numbers: Nin, purpose: Purpose, name: str = "nin") -> Graph:
    """The NiN with these numbers; its last convolution gives the classes.

    >>> graph = weave_nin(Nin(), Purpose())
    >>> len(graph.edges), graph.head.linear
    (8, False)
    """
    draft = Draft(name, purpose)
    wide = numbers.channels
    first, second = (3, [3, 3]) if numbers.all_three else (5, [5])
    place = draft.enter(Place(0, 0), Conv(kernel=first), wide)
    pool = Pool(kernel=3), Pool(kind="average", kernel=3)
    stages: tuple[tuple[int, list[int], tuple[int, ...]], ...] = (
        (0, [], (max(1, wide * 5 // 6), wide // 2)),
        (1, second, (wide, wide)),
        (2, [3], (wide,)),
    )
    for scale, kernels, pointwise in stages:
        for i, kernel in enumerate(kernels):
            conv = Conv(kernel=kernel)
            step = Chain((pool[scale - 1], conv)) if i == 0 else conv
            place = draft.put(Place(place.layer + 1, scale), wide, (place, step))
        for channels in pointwise:
            place = draft.put(Place(place.layer + 1, scale), channels, (place, Conv(kernel=1)))
    last = draft.put(Place(place.layer + 1, 2), purpose.classes, (place, Conv(kernel=1)), then=PLAIN)
    draft.answer(last, linear=False)
    return draft.finished()
