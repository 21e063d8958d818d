"""The target of milliseconds. A plain record that imports no torch."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError

HERE = "local"
"""The device that is the machine this program runs on."""
ELSEWHERE = ("ssh", "kit")
"""Rows of :data:`convfabric.latency.devices.BOARDS`, which stand before the colon of a device."""
Precision = Literal["float32", "int8"]
FORMATS: tuple[Precision, ...] = ("float32", "int8")
"""Number formats that networks are timed in."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device, what runs networks on it, and how; times of one target are never used for another.

    >>> Target(threads=2)
    Target(device='local', runtime='onnxruntime', precision='float32', threads=2, batch=1)
    """

    device: str = HERE
    """local; ssh:user@host[:python], a board with numpy and onnxruntime; kit:FOLDER, a folder carried to one."""
    runtime: str = "onnxruntime"
    """One of :data:`convfabric.latency.devices.RUNTIMES`."""
    precision: Precision = "float32"
    threads: int = 1
    batch: int = 1
    """Images at once."""

    def __post_init__(self) -> None:
        kind, _, where = self.device.partition(":")
        if self.device != HERE and (kind not in ELSEWHERE or not where):
            raise SettingError(f"device={self.device}: {HERE}, ssh:user@host[:python] and kit:FOLDER are known.")
        if self.threads < 1 or self.batch < 1:
            raise SettingError(f"threads={self.threads}, batch={self.batch}: give at least 1.")
