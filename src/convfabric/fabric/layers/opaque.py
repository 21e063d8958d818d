"""The module of a part of somebody else's network that was kept as its calls."""

import operator as python
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.fabric.layers.dispatch import layer
from convfabric.operators import Opaque, Size
from convfabric.operators.opaque import TRAINED, program_of

FLOAT = "float32"
ON_NUMBERS: Mapping[str, Any] = MappingProxyType(
    {name: getattr(python, name) for name in ("add", "floordiv", "getitem", "mul", "sub")}
)
"""Of Python's operators those that are called on the lengths of dimensions, or take one result of several."""
CALLED = torch.Tag.core, torch.Tag.pointwise
"""Tags of operators of ATen that are called: they do no more than answer."""
WHOLE = ("aten.scaled_dot_product_attention.default", "aten.sym_size.int", "aten.reshape.default")
"""Others that are called."""
SPREAD = 0.1
"""Standard deviation of weights that nothing was carried to."""


def aten(name: str) -> Any:
    """An operator of ATen by its name with overload; ValueError for all else, and what does more than answer.

    >>> aten("aten.relu.default")
    <OpOverload(op='aten.relu', overload='default')>
    >>> aten("aten.from_file.default")
    Traceback (most recent call last):
    ...
    ValueError: aten.from_file.default is not called: it is none of ATen's operators that only answer
    """
    parts = name.split(".")
    known = len(parts) == 3 and parts[0] == "aten"
    found: Any = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None) if known else None
    if not isinstance(found, torch._ops.OpOverload) or not (name in WHOLE or set(CALLED) & set(found.tags)):
        raise ValueError(f"{name} is not called: it is none of ATen's operators that only answer")
    if found._schema.is_mutable:
        raise ValueError(f"{name} is not called: it changes what it reads")
    return found


class _OpaqueLayer(nn.Module):
    def __init__(self, operator: Opaque) -> None:
        super().__init__()
        self.text = operator.program
        for name, (shape, kind) in program_of(self.text).weights.items():
            if kind == TRAINED:
                self.register_parameter(name, nn.Parameter(SPREAD * torch.randn(shape)))
            else:
                self.register_buffer(name, torch.zeros(shape, dtype=None if kind == FLOAT else torch.int64))
        _functions(self.text)

    def forward(self, x_BCHW: Tensor, size: Size) -> Tensor:
        if not torch.is_autocast_enabled(x_BCHW.device.type):
            return self._answer(x_BCHW)
        with torch.autocast(x_BCHW.device.type, enabled=False):  # it knows torch's functions, not what they call
            return self._answer(x_BCHW.float()).to(x_BCHW.dtype)

    def _answer(self, x_BCHW: Tensor) -> Tensor:
        program = program_of(self.text)
        values: dict[str, Any] = {program.reads: x_BCHW}
        for name, (_, kind) in program.weights.items():
            held = getattr(self, name)
            values[name] = held if kind in (TRAINED, FLOAT) else held.to(getattr(torch, kind))
        for call, function in zip(program.calls, _functions(self.text), strict=True):
            args = [_given(one, values, x_BCHW) for one in call.args]
            named = {name: _given(one, values, x_BCHW) for name, one in call.named.items()}
            values[call.gives] = function(*args, **named)
        answer: Tensor = values[program.answers]
        return answer


@lru_cache(maxsize=1024)
def _functions(text: str) -> list[Any]:
    """What each call of a program calls."""
    return [ON_NUMBERS.get(call.called) or aten(call.called) for call in program_of(text).calls]


def _given(part: Any, values: Mapping[str, Any], like: Tensor) -> Any:
    """An argument with the values that it names; float32 is whatever kind of numbers the map has."""
    if isinstance(part, list):
        return [_given(one, values, like) for one in part]
    if not isinstance(part, dict):
        return part
    [(kind, name)] = part.items()
    if kind == "value":
        return values[name]
    if kind == "device":
        return like.device
    return like.dtype if name == FLOAT else getattr(torch, name)


@layer.register
def _(operator: Opaque, channels_in: int, channels_out: int) -> nn.Module:
    operator.parameters(channels_in, channels_out)
    return _OpaqueLayer(operator)
