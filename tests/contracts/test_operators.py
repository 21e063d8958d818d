"""What every operator of the catalogue keeps to. A new one is covered by its row there."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convfabric.layers import layer
from convfabric.notation import read, written
from convfabric.operators import CATALOGUE, Operator, Size, halved

SIZES: tuple[Size, ...] = ((8, 8), (7, 5))


def ends(operator: Operator, fine: Size) -> tuple[int, int, Size, Size]:
    """Channels in and out, and sizes in and out, between the fine size and the scales the operator moves."""
    coarse = fine
    for _ in range(abs(operator.step)):
        coarse = halved(coarse)
    before, after = (fine, coarse) if operator.step >= 0 else (coarse, fine)
    return 4, (4 if operator.keeps_channels else 6), before, after


every_operator = pytest.mark.parametrize("operator", CATALOGUE.values(), ids=CATALOGUE.keys())
every_size = pytest.mark.parametrize("fine", SIZES, ids=str)


@every_operator
@every_size
def test_output_has_the_channels_and_size_of_the_target(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    out = layer(operator, channels_in, channels_out)(torch.randn(2, channels_in, *before), after)
    assert out.shape == (2, channels_out, *after)


@every_operator
@every_size
def test_macs_and_parameters_equal_torchs(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    module = layer(operator, channels_in, channels_out).eval()
    with FlopCounterMode(display=False) as counted:
        module(torch.randn(1, channels_in, *before), after)
    assert 2 * operator.macs(channels_in, channels_out, before, after) == counted.get_total_flops()
    assert operator.parameters(channels_in, channels_out) == sum(p.numel() for p in module.parameters())


@every_operator
@every_size
def test_every_parameter_and_the_input_receive_a_gradient(operator: Operator, fine: Size) -> None:
    channels_in, channels_out, before, after = ends(operator, fine)
    module = layer(operator, channels_in, channels_out)
    x = torch.randn(2, channels_in, *before, requires_grad=True)
    (module(x, after) * torch.randn(2, channels_out, *after)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@every_operator
def test_the_input_is_left_as_it_was(operator: Operator) -> None:
    channels_in, channels_out, before, after = ends(operator, (8, 8))
    x = torch.randn(2, channels_in, *before)
    kept = x.clone()
    layer(operator, channels_in, channels_out)(x, after)
    assert torch.equal(x, kept)


@every_operator
def test_json_round_trip(operator: Operator) -> None:
    assert read(Operator, written(operator), "operator") == operator
