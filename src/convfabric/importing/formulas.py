"""Functions of single values, which a trace spells out in several steps, and the operators that they are."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from convfabric.importing.responses import Seen, changed_by
from convfabric.operators import (
    Clamp,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mish,
    Operator,
    OverChannels,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
    Times,
)

FORMULAS: Mapping[str, Operator] = MappingProxyType(
    {
        "relu(x)": Relu(),
        "sigmoid(x)": Sigmoid(),
        "tanh(x)": Tanh(),
        "hardtanh(x, 0, 6)": Relu6(),
        "clamp(x, 0, 6)": Relu6(),
        "clamp(clamp(x, 0), None, 6)": Relu6(),
        "clamp_min(x, 0)": Relu(),
        "gelu(x)": Gelu(),
        "gelu(x, tanh)": Gelu(tanh=True),
        "leaky_relu(x)": LeakyRelu(slope=0.01),
        "silu(x)": Silu(),
        "hardswish(x)": HardSwish(),
        "hardsigmoid(x)": HardSigmoid(),
        "relu6(x)": Relu6(),
        "hardtanh(x)": Clamp(),
        "elu(x)": Elu(),
        "mish(x)": Mish(),
        "softplus(x)": Softplus(),
        "softplus(x, 1, 20)": Softplus(),
        "mul(x, 1)": Identity(),
        "add(x, 0)": Identity(),
        "mul(x, sigmoid(x))": Silu(),
        "mul(x, hardsigmoid(x))": HardSwish(),
        "mul(x, tanh(softplus(x)))": Mish(),
        "div(clamp(clamp(add(x, 3), 0), None, 6), 6)": HardSigmoid(),
        "div(mul(x, clamp(clamp(add(x, 3), 0), None, 6)), 6)": HardSwish(),
        "mul(x, div(clamp(clamp(add(x, 3), 0), None, 6), 6))": HardSwish(),
    }
)
"""What a trace makes of x, to the operator; numbers are written as short as they can be."""
NUMBERED: Mapping[str, Callable[..., Operator]] = MappingProxyType(
    {
        "leaky_relu(x, #)": lambda slope: LeakyRelu(slope=slope),
        "elu(x, #)": lambda alpha: Elu(alpha=alpha),
        "elu(x, #, #)": lambda alpha, scale: Elu(alpha=alpha, scale=scale),
        "hardtanh(x, #, #)": lambda least, most: Clamp(least=least, most=most),
        "clamp(x, #, #)": lambda least, most: Clamp(least=least, most=most),
        "sub(x, #)": lambda minus: Times(plus=-minus),
        "rsub(x, #)": lambda plus: Times(factor=-1.0, plus=plus),
        "div(x, #)": lambda divisor: Times(factor=1 / divisor),
        "mul(x, #)": lambda factor: Times(factor=factor),
        "add(x, #)": lambda plus: Times(plus=plus),
        "mul(x, rsqrt(add(mean(pow(x, 2)), #)))": lambda eps: OverChannels(eps=eps),
        "mul(mul(x, add(erf(div(x, #)), 1)), #)": lambda root, half: Gelu(),
        "mul(mul(x, #), add(erf(div(x, #)), 1))": lambda half, root: Gelu(),
        "div(x, add(mean(x), #))": lambda eps: OverChannels(kind="average", eps=eps),
    }
)
"""The same where numbers, #, may be any; a mean is that of a pixel's channels."""
NUMBER = r"(?<![a-z\d])[-+]?\d[\d.]*(?:e[-+]?\d+)?"


def is_known(text: str) -> bool:
    """Whether a function is known, or part of a longer one that is.

    >>> is_known("add(mean(x), 0.001)"), is_known("mul(x, rsqrt(x))")
    (True, False)
    """
    bare = re.sub(NUMBER, "#", text)
    return any(text in known for known in FORMULAS) or any(bare in re.sub(NUMBER, "#", known) for known in NUMBERED)


@dataclass(eq=False)
class Formula:
    """A function of each value of a tensor, that may yet become part of a longer one."""

    of: Seen
    text: str
    """In x, which stands for a value."""
    found: Seen | None = field(default=None, repr=False)
    """The response that it was made, once somebody asked for it."""

    def operator(self) -> Operator | None:
        """The operator that it is; None where it is none that is known."""
        if self.text in FORMULAS:
            return FORMULAS[self.text]
        matches = ((re.fullmatch(_pattern(known), self.text), make) for known, make in NUMBERED.items())
        return next((make(*map(float, match.groups())) for match, make in matches if match), None)

    def seen(self) -> Seen | None:
        """The tensor, of a response of its own; None where the function is no operator that is known."""
        if self.found is None and (operator := self.operator()):
            self.found = Seen(changed_by(self.of.response, operator, {}), self.of.dims)
        return self.found

    def begins_another(self) -> bool:
        """Whether a longer known function has this one inside."""
        return any(self.text in longer and self.text != longer for longer in FORMULAS)


def _pattern(known: str) -> str:
    """What a function with its number matches."""
    return re.escape(known).replace(r"\#", f"({NUMBER})")


def written(function: str, *parts: object) -> str:
    """A call of a function as formulas have it.

    >>> written("clamp", "x", 0.0, 6), written("mul", "sigmoid(x)", "x")
    ('clamp(x, 0, 6)', 'mul(x, sigmoid(x))')
    """
    whole = [int(part) if isinstance(part, float) and part.is_integer() else part for part in parts]
    if function in ("mul", "add"):
        whole.sort(key=lambda part: (not isinstance(part, str), len(str(part))))
    return f"{function}({', '.join(map(str, whole))})"
