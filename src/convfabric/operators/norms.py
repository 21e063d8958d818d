"""Operators that rescale channels: by themselves, or by what all channels of a pixel are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from convfabric.operators.operator import Axes, Ends, Halo, Operator, Size, area, around


class Channelwise(Operator):
    """Common answers of operators that have a few values for each channel, and nothing to multiply by."""

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

    def macs(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return 0

    def values(self, channels_in: int, channels_out: int, size_in: Size, size_out: Size) -> int:
        return channels_out * area(size_out)


@dataclass(frozen=True, kw_only=True)
class Norm(Channelwise):
    """Batch normalisation with trained scale and shift (Ioffe & Szegedy 2015).

    >>> Norm().parameters(8, 8)
    16
    """

    linear = normalises = True

    eps: float = 1e-5
    """Added to the variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self.eps)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 2 * channels_out

    @property
    def axes(self) -> Axes:
        each: Axes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), ("out",))
        return {**each, "num_batches_tracked": ()}

    def affine(self, weights: Mapping[str, Any]) -> tuple[Any, Any]:
        """γ/√(σ²+ε) and β - μγ/√(σ²+ε) (Ioffe & Szegedy 2015, section 3.1)."""
        factor = weights["weight"] / (weights["running_var"] + self.eps).sqrt()
        return factor, weights["bias"] - weights["running_mean"] * factor


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Channelwise):
    """Each pixel's channels brought to mean 0 and variance 1, with trained scale and shift (Ba et al. 2016).

    >>> LayerNorm().parameters(8, 8)
    16
    """

    linear = across_channels = True

    eps: float = 1e-6
    """Added to the variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self.eps)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 2 * channels_out

    @property
    def axes(self) -> Axes:
        return {"weight": ("out",), "bias": ("out",)}


@dataclass(frozen=True, kw_only=True)
class GroupNorm(Channelwise):
    """Groups of neighbouring channels brought to mean 0 and variance 1 over all pixels (Wu & He 2018).

    Trained scale and shift for each channel. Of several groups whole ones are cut.

    >>> GroupNorm(groups=4).granularity(8, 8), GroupNorm(groups=4).narrowed((8, 8), (4, 4)).groups
    ((2, 2), 2)
    """

    linear = across_channels = True

    groups: int = 1
    eps: float = 1e-5
    """Added to the variance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self.eps)
        if self.groups < 1:
            raise ValueError(f"groups={self.groups}: at least 1.")

    @property
    def halo(self) -> Halo:
        return around(math.inf, math.inf)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        if channels_out % self.groups:
            raise ValueError(f"{channels_out} channels are not {self.groups} equal groups")
        return 2 * channels_out

    @property
    def axes(self) -> Axes:
        return {"weight": ("out",), "bias": ("out",)}

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        unit = 1 if self.groups == 1 else max(1, channels_out // self.groups)
        return unit, unit

    def narrowed(self, whole: Ends, smaller: Ends) -> Operator:
        if self.groups == 1:
            return super().narrowed(whole, smaller)
        self.parameters(*whole)
        groups, rest = divmod(smaller[1] * self.groups, whole[1])
        if rest or not groups:
            raise ValueError(f"{smaller[1]} of {whole[1]} channels are no whole groups of {self.groups}")
        return replace(self, groups=groups)


@dataclass(frozen=True, kw_only=True)
class OverChannels(Channelwise):
    """Each value over what all channels of its pixel come to: the root of their mean square, or their mean.

    RMSNorm (Zhang & Sennrich 2019) does the first, global response norms (Woo et al. 2023) the second. No weights.

    >>> OverChannels().parameters(8, 8), OverChannels(kind="average").across_channels
    (0, True)
    """

    across_channels = keeps_zero = True

    kind: Literal["root mean square", "average"] = "root mean square"
    eps: float = 1e-6
    """Added to the mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self.eps)

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Scale(Channelwise):
    """A trained factor for each channel, and a constant where wanted (layer scale: Touvron et al. 2021).

    >>> Scale().parameters(8, 8), Scale(bias=True).parameters(8, 8)
    (8, 16)
    """

    normalises = True

    bias: bool = False

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.bias

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        return not self.bias

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return (1 + self.bias) * channels_out

    @property
    def axes(self) -> Axes:
        return dict.fromkeys(("weight", "bias")[: 1 + self.bias], ("out",))

    def affine(self, weights: Mapping[str, Any]) -> tuple[Any, Any]:
        """The factor and the constant themselves."""
        return weights["weight"], weights["bias"] if self.bias else 0 * weights["weight"]


@dataclass(frozen=True, kw_only=True)
class LocalResponseNorm(Channelwise):
    """x / (k + α/n · Σ x²)^β, the sum over n neighbouring channels (AlexNet, Krizhevsky et al. 2012).

    >>> LocalResponseNorm().granularity(8, 8)
    (8, 8)
    """

    across_channels = keeps_zero = True

    size: int = 5
    """n, channels; those that do not exist are zero."""
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or not self.k > 0:
            raise ValueError(f"size={self.size}, k={self.k}: at least 1, and above 0.")

    def parameters(self, channels_in: int, channels_out: int) -> int:
        return 0

    def granularity(self, channels_in: int, channels_out: int) -> Ends:
        return channels_in, channels_out


def _check_eps(eps: float) -> None:
    if not eps >= 0:
        raise ValueError(f"eps={eps}: a number from 0.")
