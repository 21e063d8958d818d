"""Well-known blocks, by composition alone. None of them is a class."""

from convfabric.operators.activations import Identity, Relu, Shuffle
from convfabric.operators.composites import Chain, Concat, Sum, Width
from convfabric.operators.convolutions import Conv, Depthwise, Kernel
from convfabric.operators.norms import Norm
from convfabric.operators.operator import Operator
from convfabric.operators.resampling import Nearest


def pointwise(stride: int = 1, bias: bool = False, groups: int = 1) -> Conv:
    """A 1×1 convolution.

    >>> pointwise().parameters(16, 32)
    512
    """
    return Conv(kernel=1, stride=stride, bias=bias, groups=groups)


def normed(operator: Operator) -> tuple[Operator, ...]:
    """An operator, a norm and a ReLU, as steps of a chain.

    >>> [type(step).__name__ for step in normed(pointwise())]
    ['Conv', 'Norm', 'Relu']
    """
    return operator, Norm(), Relu()


def residual(kernel: int = 3) -> Sum:
    """Identity beside two convolutions with a norm and a ReLU between them (He et al. 2016, without the last ReLU).

    >>> residual().keeps_channels, residual().parameters(16, 16)
    (True, 4640)
    """
    conv = Conv(kernel=kernel, bias=False)
    return Sum((Identity(), Chain((*normed(conv), conv))))


def basic_block(stride: int = 1) -> Chain:
    """The branch beside a shortcut in ResNet v1: two 3×3 convolutions, each with a norm, a ReLU between (2015).

    >>> basic_block(stride=2).parameters(16, 32)
    13952
    """
    return Chain((*normed(Conv(stride=stride, bias=False)), Conv(bias=False), Norm()))


def preactivated_block(stride: int = 1) -> Chain:
    """The branch beside a shortcut in ResNet v2: norm and ReLU before each 3×3 convolution (He et al. 2016).

    >>> preactivated_block().parameters(16, 16)
    4672
    """
    return Chain((Norm(), Relu(), Conv(stride=stride, bias=False), Norm(), Relu(), Conv(bias=False)))


def bottleneck(stride: int = 1, narrowing: int = 4, groups: int = 1, stride_first: bool = False) -> Chain:
    """The branch beside a shortcut in deep ResNets and ResNeXt: 1×1 to a part of the channels, 3×3, 1×1 back.

    ``stride_first`` strides in the first 1×1, as the networks of 2015 did, not in the 3×3.

    >>> bottleneck().parameters(256, 256)
    70400
    """
    first, second = (stride, 1) if stride_first else (1, stride)
    spatial = Conv(stride=second, groups=groups, bias=False)
    steps = (*normed(pointwise(first)), *normed(spatial), pointwise(), Norm())
    return Chain(steps, inner=Width(over=narrowing))


def projection(stride: int = 1) -> Chain:
    """A shortcut between unequal channels: a 1×1 convolution and a norm.

    >>> projection().parameters(16, 32)
    576
    """
    return Chain((pointwise(stride), Norm()))


def dense_block_layer(widening: int = 4) -> Chain:
    """A layer's new channels in DenseNet: norm, ReLU, 1×1 to some times as many, norm, ReLU, 3×3 (2017).

    >>> dense_block_layer().parameters(24, 12)
    6480
    """
    steps = (Norm(), Relu(), pointwise(), Norm(), Relu(), Conv(bias=False))
    return Chain(steps, inner=Width(times=widening))


def separable(kernel: Kernel = 3, stride: int = 1) -> Chain:
    """A convolution of each channel by itself, then a 1×1 over all of them (MobileNet, Xception, 2017).

    >>> separable().parameters(16, 32)
    656
    """
    return Chain((Depthwise(kernel=kernel, stride=stride, bias=False), pointwise()))


def inverted_residual(stride: int = 1, expansion: int = 6) -> Chain:
    """The branch beside a shortcut in MobileNet v2: 1×1 to more channels, depthwise, 1×1 back without ReLU (2018).

    >>> inverted_residual().parameters(16, 16)
    4352
    """
    steps = (*normed(pointwise()), *normed(Depthwise(stride=stride, bias=False)), pointwise(), Norm())
    return Chain(steps, inner=Width(of="in", times=expansion))


def shuffled(groups: int, narrowing: int = 4) -> Chain:
    """The branch beside a shortcut in ShuffleNet: grouped 1×1, shuffle, depthwise, grouped 1×1 (2018).

    >>> shuffled(2).parameters(16, 16)
    148
    """
    grouped = pointwise(groups=groups)
    steps = (*normed(grouped), Shuffle(groups=groups), Depthwise(bias=False), Norm(), grouped, Norm())
    return Chain(steps, inner=Width(over=narrowing))


def low_rank(
    kernel: int = 3, stride: int = 1, bias: bool = False, shares: tuple[int, int, int] = (0, 1, 1), mixed: bool = False
) -> Operator:
    """Square, column and row kernels side by side, and where ``mixed`` a 1×1 over them (Ioannou et al. 2016).

    ``shares`` are those of k×k, k×1 and 1×k; none for zero.

    >>> low_rank().parameters(16, 16), low_rank(shares=(2, 3, 3), mixed=True).parameters(16, 16)
    (768, 1408)
    """
    kernels: tuple[Kernel, ...] = (kernel, (kernel, 1), (1, kernel))
    kept = [(k, share) for k, share in zip(kernels, shares, strict=True) if share]
    branches = tuple(Conv(kernel=k, stride=stride, bias=bias) for k, _ in kept)
    side_by_side = Concat(branches, shares=tuple(share for _, share in kept)) if len(kept) > 1 else branches[0]
    return Chain((side_by_side, pointwise(bias=bias))) if mixed else side_by_side


def in_two(kernel: int = 3, stride: int = 1, bias: bool = False) -> Chain:
    """A row kernel, then a column kernel: one square kernel of rank one for each pair (Jaderberg et al. 2014).

    >>> in_two().parameters(16, 16)
    1536
    """
    row = Conv(kernel=(1, kernel), bias=bias, stride=stride)
    return Chain((row, Conv(kernel=(kernel, 1), bias=bias)))


def root_module(groups: int, kernel: Kernel = 3, stride: int = 1) -> Chain:
    """A convolution in filter groups, norm, ReLU, and a 1×1 that mixes them (Deep Roots, Ioannou et al. 2017).

    >>> root_module(4).parameters(16, 16)
    864
    """
    return Chain((*normed(Conv(kernel=kernel, stride=stride, groups=groups, bias=False)), pointwise()))


def pointwise_up() -> Chain:
    """A 1×1 convolution at the coarse scale, then nearest-neighbour doubling.

    >>> pointwise_up().macs(16, 8, (4, 4), (8, 8))
    2048
    """
    return Chain((pointwise(), Nearest()))


def strided_stem(halvings: int) -> Chain:
    """3×3 convolutions that take images to the scale where a fabric starts, one stride 2 for each halving.

    >>> strided_stem(2).scales_moved
    2
    """
    if halvings == 0:
        return Chain((Conv(bias=False),))
    conv = Conv(stride=2, bias=False)
    return Chain((*(step for _ in range(halvings - 1) for step in normed(conv)), conv))
