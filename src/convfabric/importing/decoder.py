"""A small decoder over the stages of a network, for segmentation and detection."""

from collections.abc import Sequence

from convfabric.importing.responses import Arrival, Response, Tensors
from convfabric.operators import (
    Bilinear,
    Chain,
    Depthwise,
    Identity,
    Norm,
    Operator,
    Relu,
    Resize,
    Size,
    doubled,
    halved,
    pointwise,
)


def decoded_from(stages: Sequence[Response], channels: int, image: Size) -> list[Response]:
    """For each stage, the coarsest first, two responses without weights; a head reads every second one.

    As in feature pyramids (Lin et al. 2017) each stage by a 1×1 and the coarser sum are added; then comes a residual
    separable 3×3. So every arrow but the identities may be left out by the choice.

    >>> stages = [Response(8, (16, 16), []), Response(16, (8, 8), [])]
    >>> [(one.channels, one.size, len(one.arriving)) for one in decoded_from(stages, 4, (32, 32))]
    [(4, (8, 8), 1), (4, (8, 8), 2), (4, (16, 16), 2), (4, (16, 16), 2)]
    """
    made: list[Response] = []
    for stage in sorted(stages, key=lambda one: one.size):
        arriving = [Arrival(stage, pointwise())]
        if made:
            arriving.append(Arrival(made[-1], _raised(made[-1].size, stage.size, image)))
        joined = Response(channels, stage.size, arriving, then=_rectified())
        mixed = [Arrival(joined, Identity()), Arrival(joined, Chain((Depthwise(bias=False), pointwise())))]
        made += [joined, Response(channels, stage.size, mixed, then=_rectified())]
    return made


def _raised(size: Size, wanted: Size, image: Size) -> Operator:
    """What brings a map to a larger size: twice its own, cropped to halves of the image, else to just that one."""
    halves = image
    while halves > wanted:
        halves = halved(halves)
    return Bilinear() if halves == wanted == doubled(size, wanted) else Resize(size=wanted)


def _rectified() -> list[tuple[Operator, Tensors]]:
    return [(Norm(), {}), (Relu(), {})]
