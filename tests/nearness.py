"""How near plans and kernels come to the readable executor, and where there are kernels."""

import pytest
from torch import Tensor

from convfabric.execution import compiler

kernels = pytest.mark.skipif(isinstance(compiler.library(), str), reason=f"no kernels here: {compiler.library()}")
"""For tests that need a C++ compiler."""
EXACT, SINGLE = 1e-10, 1e-5
"""Largest differences let pass, of the largest value: in float64, and for kernels that know float32 alone."""


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    largest = float(wanted.detach().abs().max())
    return float((found.detach().double() - wanted.detach().double()).abs().max()) / max(largest, 1e-3)
