"""The layers against their definitions, written differently."""

import pytest
import torch
from torch.nn import functional as F

from convfabric.errors import GraphError
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.operators import (
    AdaptivePool,
    Bilinear,
    Conv,
    Depthwise,
    Dropout,
    FullyConnected,
    GlobalPool,
    LayerNorm,
    LocallyConnected,
    LocalResponseNorm,
    Maxout,
    Nearest,
    Operator,
    Pool,
    Shuffle,
    TotalDropout,
    UpConv,
    ZeroInsertion,
    halved,
    pointwise,
)
from convfabric.weavers import weave
from nearness import apart


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
        stride = 1
        size_after = None  # type: ignore[assignment]
        keeps_channels = False
        halo = (0, 0)
        parameters = macs = values = None  # type: ignore[assignment]

    assert layer(Strange(), 1, 1) is not None
    with pytest.raises(TypeError, match=r"Unknown has no layer: register one"):
        layer(Unknown(), 1, 1)


def windowed(x: torch.Tensor, kernel: int, stride: int, kind: str) -> torch.Tensor:
    """A pool, window by window: what lies outside the map does not count."""
    before, after = (kernel - 1) // 2, kernel // 2
    rows, columns = (range(0, side, stride) for side in x.shape[-2:])
    how = {"max": torch.amax, "average": torch.mean, "sum": torch.sum}[kind]
    out = [
        [
            how(x[..., max(0, i - before) : i + after + 1, max(0, j - before) : j + after + 1], dim=(-2, -1))
            for j in columns
        ]
        for i in rows
    ]
    return torch.stack([torch.stack(row, -1) for row in out], -2)


@pytest.mark.parametrize("kind", ["max", "average", "sum"])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
def test_pools_are_their_windows(kind: str, kernel: int, stride: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    found = layer(Pool(kind=kind, kernel=kernel, stride=stride), 3, 3)(x, size)  # type: ignore[arg-type]
    torch.testing.assert_close(found, windowed(x, kernel, stride, kind))


@pytest.mark.parametrize(("kind", "how"), [("max", torch.amax), ("average", torch.mean), ("sum", torch.sum)])
def test_global_pools_are_over_all_pixels(kind: str, how) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    x = torch.randn(2, 3, 5, 4)
    found = layer(GlobalPool(kind=kind), 3, 3)(x, (1, 1))  # type: ignore[arg-type]
    torch.testing.assert_close(found[..., 0, 0], how(x, dim=(2, 3)))


@pytest.mark.parametrize("kernel", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_even_upconvs_are_zero_insertion_then_a_convolution(kernel: int, size: tuple[int, int]) -> None:
    coarse = tuple((side + 1) // 2 for side in size)
    x, module = torch.randn(2, 3, *coarse, dtype=torch.float64), layer(UpConv(kernel=kernel), 3, 4).double()
    before, after = kernel // 2, (kernel - 1) // 2
    wide = F.pad(zeros_inserted(x, (2 * coarse[0], 2 * coarse[1])), (before, after, before, after))
    expected = F.conv2d(wide, module.weight, module.bias)[..., : size[0], : size[1]]
    torch.testing.assert_close(module(x, size), expected, rtol=0, atol=1e-12)


def test_groups_are_a_dense_kernel_with_zeros_between_them() -> None:
    module = layer(Conv(groups=3, bias=False), 6, 9)
    dense = torch.zeros(9, 6, 3, 3)
    for group in range(3):
        dense[3 * group : 3 * group + 3, 2 * group : 2 * group + 2] = module.weight.detach()[3 * group : 3 * group + 3]
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(module(x, (5, 5)), F.conv2d(x, dense, padding=1), atol=1e-5, rtol=1e-5)


def test_depthwise_is_a_dense_kernel_with_zeros_off_the_diagonal() -> None:
    module = layer(Depthwise(stride=2), 4, 4)
    dense = torch.diag_embed(module.weight.detach()[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    x = torch.randn(2, 4, 7, 6)
    torch.testing.assert_close(module(x, (4, 3)), F.conv2d(x, dense, module.bias, 2, 1), atol=1e-5, rtol=1e-5)


def test_dilation_is_a_kernel_with_zeros_between_its_taps() -> None:
    module = layer(Conv(dilation=2, bias=False), 2, 3)
    wide = torch.zeros(3, 2, 5, 5)
    wide[..., ::2, ::2] = module.weight.detach()
    x = torch.randn(1, 2, 9, 8)
    torch.testing.assert_close(module(x, (9, 8)), F.conv2d(x, wide, padding=2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("channels", [16, 18, 40])
def test_gradients_of_kernels_in_bfloat16_are_those_of_float32(channels: int, dilation: int) -> None:
    convolved = layer(Conv(dilation=dilation, bias=False), channels, channels)
    images = torch.randn(2, channels, 23, 30).contiguous(memory_format=torch.channels_last)
    wanted = torch.randn(2, channels, 23, 30).contiguous(memory_format=torch.channels_last)
    gradients = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            answer = convolved(images, (23, 30))
        assert answer.dtype == (torch.bfloat16 if half else torch.float32)
        gradients.append(*torch.autograd.grad((answer.float() * wanted).sum(), [*convolved.parameters()]))
    assert apart(gradients[1], gradients[0]) < 0.05


def test_untied_kernels_are_one_convolution_for_each_pixel() -> None:
    module = layer(LocallyConnected(size=(3, 4)), 2, 5)
    x = torch.randn(2, 2, 3, 4)
    found = module(x, (3, 4))
    for i in range(3):
        for j in range(4):
            alone = F.conv2d(x, module.weight[..., i, j], padding=1)[..., i, j] + module.bias[:, i, j]
            torch.testing.assert_close(found[..., i, j], alone, atol=1e-5, rtol=1e-5)


def test_fully_connected_is_one_product_with_all_values() -> None:
    module, x = layer(FullyConnected(size=(3, 4)), 2, 5), torch.randn(2, 2, 3, 4)
    expected = torch.einsum("bchw,ochw->bo", x, module.weight) + module.bias
    torch.testing.assert_close(module(x, (1, 1))[..., 0, 0], expected, atol=1e-5, rtol=1e-5)


def test_maxout_takes_the_largest_of_each_run_and_shuffle_deals_channels_out() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 2, 2)
    assert layer(Maxout(pieces=3), 6, 2)(x, (2, 2))[0, :, 0, 0].tolist() == [2, 5]
    assert layer(Shuffle(groups=2), 6, 6)(x, (2, 2))[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]


def test_zero_insertion_puts_each_value_to_the_top_left_of_its_cell() -> None:
    x = torch.randn(1, 2, 3, 2)
    found = layer(ZeroInsertion(), 2, 2)(x, (5, 4))
    assert torch.equal(found, zeros_inserted(x, (5, 4)))


def test_bilinear_is_linear_between_pixel_centres() -> None:
    x = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 3, 6)
    found = layer(Bilinear(), 1, 1)(x, (6, 12))[0, 0, 2]
    torch.testing.assert_close(found[1:-1], (torch.arange(1, 11) + 0.5) / 2 - 0.5)


def test_total_dropout_leaves_a_whole_batch_out_or_as_it_is() -> None:
    torch.manual_seed(0)
    module, x = layer(TotalDropout(p=0.3), 2, 2), torch.ones(4, 2, 3, 3)
    seen = [module(x, (3, 3)) for _ in range(400)]
    assert all(out.unique().numel() == 1 for out in seen)
    assert 0.62 < sum(float(out.mean()) for out in seen) / 400 < 0.78
    assert torch.equal(module.eval()(x, (3, 3)), x)


def test_dropout_is_off_in_evaluation() -> None:
    module, x = layer(Dropout(p=0.5), 2, 2), torch.ones(4, 2, 8, 8)
    assert set(module(x, (8, 8)).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(module.eval()(x, (8, 8)), x)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (10, 9)])
def test_pools_with_padding_and_ceiling_are_torch_s(
    ceil: bool, padding: int, stride: int, size: tuple[int, int]
) -> None:
    x, around = torch.randn(2, 3, *size, dtype=torch.float64), (padding,) * 4
    numbers = {"kernel": 3, "stride": stride, "padding": around, "ceil": ceil}
    wanted = F.max_pool2d(x, 3, stride, padding, ceil_mode=ceil)
    torch.testing.assert_close(layer(Pool(**numbers), 3, 3)(x, size), wanted)  # type: ignore[arg-type]
    for counts in (False, True):
        mean = layer(Pool(kind="average", counts_padding=counts, **numbers), 3, 3)  # type: ignore[arg-type]
        wanted = F.avg_pool2d(x, 3, stride, padding, ceil_mode=ceil, count_include_pad=counts)
        torch.testing.assert_close(mean(x, size), wanted)
        assert Pool(**numbers).size_after(size) == wanted.shape[-2:]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(5, 1, 0, 1), (11, 4, 2, 1), (3, 3, 1, 2)])
def test_convolutions_with_padding_and_any_stride_are_torch_s(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    operator = Conv(kernel=kernel, stride=stride, padding=(padding,) * 4, dilation=dilation)
    x, module = torch.randn(1, 2, 23, 19, dtype=torch.float64), layer(operator, 2, 3).double()
    wanted = F.conv2d(x, module.weight, module.bias, stride, padding, dilation)
    torch.testing.assert_close(module(x, (0, 0)), wanted)
    assert operator.size_after((23, 19)) == wanted.shape[-2:]


def test_an_uneven_padding_is_a_frame_around_the_map() -> None:
    x, module = torch.randn(1, 2, 6, 6), layer(Conv(stride=2, padding=(0, 1, 2, 0)), 2, 3)
    torch.testing.assert_close(module(x, (0, 0)), F.conv2d(F.pad(x, (2, 0, 0, 1)), module.weight, module.bias, 2))


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (6, 6)])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_adaptive_pools_are_torch_s(kind: str, grid: tuple[int, int]) -> None:
    x, pool = torch.randn(2, 3, 13, 9), {"max": F.adaptive_max_pool2d, "average": F.adaptive_avg_pool2d}[kind]
    found = layer(AdaptivePool(kind=kind, size=grid), 3, 3)(x, grid)  # type: ignore[arg-type]
    torch.testing.assert_close(found, pool(x, grid))


def test_layer_norm_and_local_response_norm_are_torch_s() -> None:
    x, norm = torch.randn(2, 6, 4, 4), layer(LayerNorm(eps=1e-3), 6, 6)
    torch.nn.init.normal_(norm.weight)
    wanted = F.layer_norm(x.movedim(1, -1), (6,), norm.weight, norm.bias, 1e-3).movedim(-1, 1)
    torch.testing.assert_close(norm(x, (4, 4)), wanted)
    theirs = torch.nn.LocalResponseNorm(3, alpha=0.1, beta=0.5, k=2.0)
    torch.testing.assert_close(layer(LocalResponseNorm(size=3, alpha=0.1, beta=0.5, k=2.0), 6, 6)(x, (4, 4)), theirs(x))


@pytest.mark.parametrize("channels", [3, 4, 8, 16])
@pytest.mark.parametrize("side", [8, 9, 16])
def test_gradients_of_pointwise_kernels_with_a_stride_are_those_of_the_formula(channels: int, side: int) -> None:
    """Of few channels oneDNN's own overwrite memory that is not theirs (oneDNN#6035)."""
    torch.manual_seed(0)
    strided = layer(pointwise(stride=2), channels, 8).to(memory_format=torch.channels_last)
    images = torch.randn(4, channels, side, side, requires_grad=True)
    answers = strided(images.contiguous(memory_format=torch.channels_last), halved((side, side)))
    wanted = torch.randn_like(answers)
    answers.backward(wanted)
    read = images.detach()[..., ::2, ::2]
    gradient = torch.einsum("bohw,bihw->oi", wanted.double(), read.double())[..., None, None]
    torch.testing.assert_close(strided.get_parameter("weight").grad.double(), gradient, rtol=1e-4, atol=1e-4)
    assert images.grad is not None
    assert not images.grad[..., 1::2, :].any()
