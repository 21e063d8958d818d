"""Activations that bend once or twice, as sums of rectifiers."""

import torch
from torch import Tensor, nn

from convfabric.operators import Clamp, Operator, PRelu, Relu6
from convfabric.universality.wiring import Response, Value, Wiring, pending


def bent(wiring: Wiring, operator: Operator, module: nn.Module, response: Response) -> Response | None:
    """An activation of a response; None for one that is not linear in pieces.

    >>> from convfabric.universality.wiring import Signal
    >>> image = Signal(-1, 0, (), torch.zeros(2, dtype=torch.float64))
    >>> seen = Value(0, ((image, torch.eye(2, dtype=torch.float64)),))
    >>> bent(Wiring(image), Relu6(), nn.Identity(), seen).channels
    2
    """
    if isinstance(operator, Relu6):
        return _held_between(wiring, response, 0.0, 6.0)
    if isinstance(operator, Clamp):
        return _held_between(wiring, response, operator.least, operator.most)
    if isinstance(operator, PRelu):
        slopes = module.get_parameter("weight").detach()
        return _sloped(wiring, response, slopes.expand(len(pending(response).constant_O)))
    if operator.negative_slope is None:
        return None
    if operator.negative_slope == 0:
        return wiring.settled(response, rectified=True)
    channels = len(pending(response).constant_O)
    return _sloped(wiring, response, torch.full((channels,), operator.negative_slope, dtype=torch.float64))


def _held_between(wiring: Wiring, response: Response, least: float, most: float) -> Response:
    """Least + relu(x - least) - relu(x - most)."""
    found = pending(response)
    eye = torch.eye(len(found.constant_O), dtype=torch.float64)
    bounds = torch.cat([torch.full((len(eye),), bound, dtype=torch.float64) for bound in (least, most)])
    both = wiring.settled(found.mixed(torch.cat([eye, eye]), -bounds), rectified=True)
    held = both.mixed(torch.cat([eye, -eye], 1))
    return pending(held).mixed(eye, bounds[: len(eye)]) if least else held


def _sloped(wiring: Wiring, response: Response, slope_C: Tensor) -> Value:
    """relu(x) - slope · relu(-x)."""
    found = pending(response)
    eye = torch.eye(len(slope_C), dtype=torch.float64)
    both = wiring.settled(found.mixed(torch.cat([eye, -eye]), torch.zeros(2 * len(eye)).double()), rectified=True)
    return both.mixed(torch.cat([eye, -torch.diag(slope_C)], 1))
