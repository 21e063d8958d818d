"""Values of settings, held against the kind that a record's field is annotated with."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convfabric.errors import SettingError

LARGEST_SIDE = 4096
OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "learning_rate": "lr",
        "max_lr": "lr",
        "batch_size": "batch",
        "num_epochs": "epochs",
        "max_epochs": "epochs",
        "image_size": "size",
        "img_size": "size",
        "resolution": "size",
        "wd": "weight_decay",
        "decay": "weight_decay",
        "lr_schedule": "schedule",
        "scheduler": "schedule",
        "optimizer": "optimiser",
        "smoothing": "label_smoothing",
        "random_seed": "seed",
        "width": "channels",
        "depth": "layers",
        "num_workers": "workers",
        "latency": "latency_ms",
        "flops": "macs",
        "parameters": "params",
        "memory": "memory_mb",
        "dropout_rate": "dropout",
        "color": "colour",
        "colors": "colours",
        "gpu": "accelerator",
        "amp": "autocast",
        "ignore_index": "ignore",
    }
)
"""What other libraries call settings, and ours."""


def accepted(kind: type, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are fields of a record, each of the field's kind; SettingError where one is not.

    Whole numbers may stand for fractions, lists for tuples.

    >>> from convfabric.weavers import Trellis
    >>> accepted(Trellis, {"layers": 3, "other": 1})
    {'layers': 3}
    """
    hints = get_type_hints(kind)
    return {f.name: accepted_value(f.name, hints[f.name], settings[f.name]) for f in fields(kind) if f.name in settings}


def accepted_value(name: str, hint: Any, value: Any) -> Any:
    """The value if it is of the kind that the hint says; SettingError names both otherwise.

    >>> accepted_value("blocks", tuple[int, ...], [1, 2])
    (1, 2)
    """
    if isinstance(value, float) and not isfinite(value):
        raise SettingError(f"{name}={value}: give a finite number.")
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(accepted_value(name, get_args(kind)[0], item) for item in value)
        if get_origin(kind) is Literal and value in get_args(kind) and type(value) is not bool:
            return value
        if isinstance(kind, type) and type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
    raise SettingError(f"{name}={value}: expected {' or '.join(map(_said, kinds))}.")


def parsed_size(said: Any) -> tuple[int, int]:
    """Height and width of "WIDTHxHEIGHT", or of one number for both.

    >>> parsed_size("240x180"), parsed_size(32)
    ((180, 240), (32, 32))
    """
    sides = str(said).lower().split("x")
    digits = all(side.isascii() and side.isdigit() and len(side) < 7 for side in sides)
    if not digits or len(sides) > 2 or not all(map(int, sides)):
        raise SettingError(f"size={said}: give WIDTHxHEIGHT in pixels, such as 240x180, or one number for both.")
    size = int(sides[-1]), int(sides[0])
    if max(size) > LARGEST_SIDE:
        raise SettingError(f"size={said}: at most {LARGEST_SIDE} pixels on a side.")
    return size


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list such as [1, 2, 3]"
    return "null" if kind is NoneType else str(kind.__name__)
