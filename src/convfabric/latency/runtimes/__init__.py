"""Runtimes, which can time networks and their operations: one row each."""

from collections.abc import Mapping
from types import MappingProxyType

from convfabric.latency.runtimes.onnx_runtime import OnnxRuntime
from convfabric.latency.runtimes.runtime import Runtime
from convfabric.latency.runtimes.torch_runtime import TorchRuntime

__all__ = ["RUNTIMES", "OnnxRuntime", "Runtime", "TorchRuntime"]

RUNTIMES: Mapping[str, Runtime] = MappingProxyType({"onnxruntime": OnnxRuntime(), "torch": TorchRuntime()})
"""By the name that targets have."""
