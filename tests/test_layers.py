"""The layers against their definitions, written differently."""

import pytest
import torch
from torch.nn import functional as F

from convfabric.errors import GraphError
from convfabric.fabric import Fabric
from convfabric.layers import layer
from convfabric.operators import Conv, Nearest, Operator, UpConv
from convfabric.weavers import weave


def zeros_inserted(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[..., ::2, ::2] = x
    return wide[..., : size[0], : size[1]]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (1, 1), (2, 5), (3, 8)])
def test_upconv_is_zero_insertion_then_a_convolution(kernel: int, size: tuple[int, int]) -> None:
    coarse = tuple((side + 1) // 2 for side in size)
    x = torch.randn(2, 3, *coarse, dtype=torch.float64)
    module = layer(UpConv(kernel=kernel), 3, 4).double()
    expected = F.conv2d(zeros_inserted(x, size), module.weight, module.bias, padding=kernel // 2)
    torch.testing.assert_close(module(x, size), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", range(1, 10))
def test_strided_convolution_gives_half_rounded_up(side: int) -> None:
    out = layer(Conv(stride=2), 1, 1)(torch.zeros(1, 1, side, side), (0, 0))
    assert out.shape[-1] == (side + 1) // 2


def test_down_is_the_adjoint_of_up_with_the_transposed_flipped_kernel() -> None:
    up, down = layer(UpConv(bias=False), 3, 2).double(), layer(Conv(stride=2, bias=False), 2, 3).double()
    down.weight.data = up.weight.data.transpose(0, 1).flip(2, 3)
    x, y = torch.randn(1, 3, 4, 4, dtype=torch.float64), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close((up(x, (8, 8)) * y).sum(), (x * down(y, (4, 4))).sum())


def test_nearest_repeats_each_pixel_and_crops() -> None:
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert layer(Nearest(), 1, 1)(x, (1, 3)).tolist() == [[[[1.0, 1.0, 2.0]]]]


def test_a_layer_for_one_size_says_which_it_met() -> None:
    vgg = Fabric(weave("vgg", channels=2, top="full", hidden=4, size=(32, 32))).eval()
    with pytest.raises(GraphError, match="for maps of 1×1 pixels met one of 2×2: networks with fully"):
        vgg(torch.zeros(1, 3, 64, 64))


def test_an_operator_without_a_layer_is_named() -> None:
    class Strange(Conv):
        pass

    class Unknown(Operator):
        step = 0
        keeps_channels = False
        halo = (0, 0)
        parameters = macs = values = None  # type: ignore[assignment]

    assert layer(Strange(), 1, 1) is not None
    with pytest.raises(TypeError, match=r"Unknown has no layer: register one"):
        layer(Unknown(), 1, 1)
