"""Activations that bend once or twice, as sums of rectifiers."""

import torch
from torch import Tensor, nn

from convfabric.operators import Clamp, Operator, PRelu, Relu6
from convfabric.universality.wiring import Response, Value, Wiring, pending


def bent(wiring: Wiring, operator: Operator, module: nn.Module, response: Response) -> Value | None:
    """An activation of a response; None for one that is not linear in pieces.

    >>> from convfabric.universality.wiring import Signal
    >>> image = Signal(-1, 0, (), torch.zeros(2, dtype=torch.float64))
    >>> seen = Value(0, ((image, torch.eye(2, dtype=torch.float64)),))
    >>> bent(Wiring(image), Relu6(), nn.Identity(), seen).parts[0][1].shape
    torch.Size([2, 4])
    """
    if isinstance(operator, Relu6):
        return _held_below(wiring, response, 6.0)
    if isinstance(operator, Clamp) and operator.least == 0:
        return _held_below(wiring, response, operator.most)
    if isinstance(operator, PRelu):
        return _sloped(wiring, response, module.get_parameter("weight").detach())
    if operator.negative_slope is None:
        return None
    if operator.negative_slope == 0:
        return wiring.settled(response, rectified=True)
    channels = len(pending(response).constant_O)
    return _sloped(wiring, response, torch.full((channels,), operator.negative_slope, dtype=torch.float64))


def _held_below(wiring: Wiring, response: Response, most: float) -> Value:
    """relu(x) - relu(x - most)."""
    found = pending(response)
    eye = torch.eye(len(found.constant_O), dtype=torch.float64)
    less = torch.cat([torch.zeros(len(eye)), torch.full((len(eye),), most)]).double()
    both = wiring.settled(found.mixed(torch.cat([eye, eye]), -less), rectified=True)
    return both.mixed(torch.cat([eye, -eye], 1))


def _sloped(wiring: Wiring, response: Response, slope_C: Tensor) -> Value:
    """relu(x) - slope · relu(-x)."""
    found = pending(response)
    eye = torch.eye(len(slope_C), dtype=torch.float64)
    both = wiring.settled(found.mixed(torch.cat([eye, -eye]), torch.zeros(2 * len(eye)).double()), rectified=True)
    return both.mixed(torch.cat([eye, -torch.diag(slope_C)], 1))
