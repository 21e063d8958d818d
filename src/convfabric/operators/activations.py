"""Operators that change each value by itself, or deal channels out: activations, dropout, shuffling, maxout."""

import math
from dataclasses import dataclass

from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size, area, around


class Pixelwise(Operator):
    """Common answers of operators that change each pixel by itself, without a copy."""

    keeps_zero = True

    @property
    def stride(self) -> float:
        return 1

    @property
    def keeps_channels(self) -> bool:
        return True

    @property
    def halo(self) -> Halo:
        return around(0, 0)

    def size_after(self, size: Size, fitting: Size | None = None) -> Size:
        return size

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Identity(Pixelwise):
    """The response as it is.

    >>> Identity().values(8, 8, (4, 4), (4, 4)), Identity().free
    (0, True)
    """

    free = transparent = absorbed = True
    negative_slope = 1.0


@dataclass(frozen=True, kw_only=True)
class Times(Pixelwise):
    """A number times x, plus another; neither is trained (scaled activations: Brock et al. 2021).

    >>> Times(factor=2.0).parameters(8, 8), Times(plus=1.0).keeps_zero
    (0, False)
    """

    factor: float = 1.0
    plus: float = 0.0

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return self.plus == 0


@dataclass(frozen=True, kw_only=True)
class PixelSoftmax(Pixelwise):
    """Each channel as shares of its pixels, e to the x over the sum of those (global context: Cao et al. 2019).

    >>> PixelSoftmax().halo
    (inf, inf, inf, inf)
    """

    keeps_zero = False

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Relu(Pixelwise):
    """max(0, x)."""

    rectifies = absorbed = True
    negative_slope = 0.0


@dataclass(frozen=True, kw_only=True)
class Relu6(Pixelwise):
    """min(6, max(0, x)) (Krizhevsky 2010)."""

    rectifies = absorbed = True


@dataclass(frozen=True, kw_only=True)
class LeakyRelu(Pixelwise):
    """max(0, x) + slope · min(0, x) (Maas et al. 2013)."""

    slope: float = 0.1
    """From 0, a ReLU, to below 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.slope < 1:
            raise ValueError(f"slope={self.slope}: from 0 to below 1.")

    @property
    def negative_slope(self) -> float:  # type: ignore[override]
        return self.slope


@dataclass(frozen=True, kw_only=True)
class PRelu(Pixelwise):
    """max(0, x) + slope · min(0, x) with a trained slope for each channel, or one for all (He et al. 2015).

    >>> PRelu().parameters(8, 8), PRelu(single=True).parameters(8, 8)
    (8, 1)
    """

    single: bool = False
    """Whether all channels have one slope."""

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 1 if self.single else channels_out

    def weighted(self, channels_in: int, channels_out: int) -> tuple[Ends, ...]:
        return ((1, 1),) if self.single else super().weighted(channels_in, channels_out)

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    @property
    def axes(self) -> Axes:
        return {"weight": (None if self.single else "out",)}


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Pixelwise):
    """1 / (1 + exp(-x))."""

    keeps_zero = False


@dataclass(frozen=True, kw_only=True)
class HardSigmoid(Pixelwise):
    """min(1, max(0, x / 6 + 1 / 2)) (MobileNetV3, Howard et al. 2019)."""

    keeps_zero = False


@dataclass(frozen=True, kw_only=True)
class Silu(Pixelwise):
    """x · sigmoid(x), also called Swish (Elfwing et al. 2017)."""


@dataclass(frozen=True, kw_only=True)
class HardSwish(Pixelwise):
    """x · hard-sigmoid(x) (MobileNetV3, Howard et al. 2019)."""


@dataclass(frozen=True, kw_only=True)
class Gelu(Pixelwise):
    """x · Φ(x), Φ the normal distribution function (Hendrycks & Gimpel 2016)."""

    tanh: bool = False
    """Whether Φ is approximated by a tanh."""


@dataclass(frozen=True, kw_only=True)
class Elu(Pixelwise):
    """scale · (max(0, x) + min(0, alpha · (exp(x) - 1))) (Clevert et al. 2016; SELU, Klambauer et al. 2017)."""

    alpha: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Mish(Pixelwise):
    """x · tanh(softplus(x)) (Misra 2020)."""


@dataclass(frozen=True, kw_only=True)
class Softplus(Pixelwise):
    """log(1 + exp(x))."""

    keeps_zero = False


@dataclass(frozen=True, kw_only=True)
class Clamp(Pixelwise):
    """No less than one number and no more than another.

    >>> Clamp().keeps_zero, Clamp(least=0.5).keeps_zero
    (True, False)
    """

    least: float = -1.0
    most: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.least < self.most:
            raise ValueError(f"least={self.least}, most={self.most}: the lower first.")

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return self.least <= 0 <= self.most


@dataclass(frozen=True, kw_only=True)
class Tanh(Pixelwise):
    """The hyperbolic tangent."""


@dataclass(frozen=True, kw_only=True)
class Dropout(Pixelwise):
    """In training each value is set to zero with a probability, the others enlarged (Srivastava et al. 2014)."""

    transparent = True

    p: float = 0.5
    """Probability of zero, below 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.p < 1:
            raise ValueError(f"p={self.p}: a probability from 0 to below 1.")


@dataclass(frozen=True, kw_only=True)
class TotalDropout(Pixelwise):
    """In training the whole response of a batch is set to zero with a probability, never enlarged.

    One draw for each pass (GridNet, Fourure et al. 2017).
    """

    transparent = True

    p: float = 0.1
    """Probability of zero, below 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Dropout(p=self.p)


@dataclass(frozen=True, kw_only=True)
class Shuffle(Pixelwise):
    """Channels dealt out anew, so that each of the next groups has some of every group (ShuffleNet, 2018).

    >>> Shuffle(groups=3).parameters(6, 6), Shuffle(groups=3).granularity(6, 6)
    (0, (6, 6))
    """

    groups: int
    """Divides the channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1:
            raise ValueError(f"groups={self.groups}: at least 1.")

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_in % self.groups:
            raise ValueError(f"groups={self.groups} does not divide {channels_in} channels")
        return 0

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out


@dataclass(frozen=True, kw_only=True)
class Maxout(Pixelwise):
    """The largest of so many neighbouring channels (Goodfellow et al. 2013): the only one here that makes fewer.

    >>> Maxout(pieces=2).values(8, 4, (2, 2), (2, 2)), Maxout(pieces=2).granularity(8, 4)
    (16, (2, 1))
    """

    pieces: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pieces < 1:
            raise ValueError(f"pieces={self.pieces}: at least 1.")

    @property
    def keeps_channels(self) -> bool:
        return False

    @property
    def ties(self) -> bool:
        return True

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_in != self.pieces * channels_out:
            raise ValueError(f"maxout of {self.pieces} makes {channels_in} channels {channels_in / self.pieces:g}")
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return self.pieces, 1


@dataclass(frozen=True, kw_only=True)
class Slice(Pixelwise):
    """Some neighbouring channels, the others left out.

    >>> Slice(start=2, stop=5).granularity(6, 3)
    (6, 3)
    """

    transparent = False

    start: int
    stop: int
    """The first channel behind them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.start < self.stop:
            raise ValueError(f"start={self.start}, stop={self.stop}: channels from 0, at least one.")

    @property
    def keeps_channels(self) -> bool:
        return False

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_in < self.stop or channels_out != self.stop - self.start:
            raise ValueError(f"channels {self.start} to {self.stop - 1} of {channels_in} are not {channels_out}")
        return 0

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out
