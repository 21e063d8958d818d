"""Where networks are timed: one row each."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from convfabric.errors import SettingError
from convfabric.latency import timing
from convfabric.latency.devices.board import RUNTIMES as OF_BOARDS
from convfabric.latency.devices.board import Board, OnBoard
from convfabric.latency.devices.device import Device, TimeOf
from convfabric.latency.devices.here import Here
from convfabric.latency.devices.in_folder import InFolder
from convfabric.latency.devices.over_ssh import OverSsh
from convfabric.latency.devices.torch_here import TorchHere
from convfabric.latency.measurement import LEAST_SECONDS, Latency
from convfabric.latency.target import HERE, Target

__all__ = ["BOARDS", "RUNTIMES", "Device", "TimeOf", "device_of", "measure", "times_by_kind"]

BOARDS: Mapping[str, Callable[[str], Board]] = MappingProxyType({"ssh": OverSsh, "kit": InFolder})
"""By what stands before the colon in a target's device."""
RUNTIMES = (*OF_BOARDS, "torch")
"""torch times nowhere but here."""


def device_of(target: Target) -> Device:
    """The device of a target; SettingError for a device or a runtime that is not known.

    >>> device_of(Target(runtime="abacus"))
    Traceback (most recent call last):
        ...
    convfabric.errors.SettingError: runtime=abacus: onnxruntime, openvino, torch are known.
    """
    if target.runtime not in RUNTIMES:
        raise SettingError(f"runtime={target.runtime}: {', '.join(RUNTIMES)} are known.")
    if target.runtime == "torch":
        if target.device != HERE:
            raise SettingError(f"runtime=torch, device={target.device}: torch is timed on this machine alone.")
        if target.precision != "float32":
            raise SettingError(f"runtime=torch, precision={target.precision}: torch is timed in float32 alone.")
        return TorchHere()
    return _on(target.device)


def times_by_kind(file: Path, image: tuple[int, int, int], target: Target) -> Mapping[str, float]:
    """Milliseconds of each kind of operation in an ONNX file for images of (channels, height, width), on this machine.

    Empty for targets elsewhere.
    """
    if target.device != HERE:
        return {}
    return timing.by_kind(str(file), (target.batch, *image), target.threads, target.runtime)


@cache
def _on(name: str) -> OnBoard:
    """The device of a name, its connection kept."""
    kind, _, where = name.partition(":")
    if name == HERE:
        return OnBoard(Here())
    return OnBoard(BOARDS[kind](where))


def measure(
    model: Path | bytes, image: tuple[int, int, int], target: Target | None = None, seconds: float = LEAST_SECONDS
) -> Latency:
    """The latency of an ONNX model for float32 images of (channels, height, width), by default here, one at a time.

    >>> import torch
    >>> from convfabric.latency.drafts import drafted
    >>> measure(drafted(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)), (1, 2, 2), seconds=0.0).batch
    1
    """
    target = target or Target()
    return device_of(target).time_file(model, image, target, seconds)
