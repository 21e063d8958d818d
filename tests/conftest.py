"""What several tests share."""

import importlib
import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from traced_files import files_are_traced

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that share the cores, each with threads that wait by spinning, would slow each other tenfold.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def shared_data() -> Path:
    """A folder that holds MNIST/raw and CamVid/, named by CONVFABRIC_DATA or beside the checkout."""
    folder = Path(os.environ.get("CONVFABRIC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("no MNIST here: set CONVFABRIC_DATA to a folder that holds MNIST/raw")
    return folder


@pytest.fixture(autouse=True, scope="session")
def samples_are_short_and_few() -> None:
    """Four sub-networks and each file are timed by a few runs: no test asks how long anything takes."""
    from convfabric.latency import prediction, survey, timing
    from convfabric.pipeline import calibrate as calibrating
    from convfabric.pipeline import steps

    survey.SAMPLE_SECONDS = 0.01
    survey.calibrate = calibrating.calibrate = partial(prediction.calibrate, count=4)
    steps.measure = partial(steps.measure, seconds=0.01)
    timing.WARM_UP_RUNS, timing.FEWEST_RUNS, timing.LEAST_RUNS, timing.OPERATION_RUNS = 1, 3, 5, 8


@pytest.fixture(autouse=True, scope="session")
def the_exporter_s_table_is_made_once() -> None:
    """Torch makes its table of ONNX functions anew for every export, which takes a second."""
    registration = importlib.import_module("torch.onnx._internal.exporter._registration")
    if made := getattr(getattr(registration, "ONNXRegistry", None), "from_torchlib", None):
        registration.ONNXRegistry.from_torchlib = staticmethod(cache(made))


WRITTEN_IN_FULL = (
    "contracts",
    "test_importing",
    "test_pipeline",
    "test_int8",
    "test_trust",
    "test_trial",
)
"""Modules and folders of tests that are about the files themselves."""


@pytest.fixture(autouse=True, scope="module")
def other_files_are_traced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs of other modules have one file each, written in a tenth of the time."""
    if {request.path.stem, request.path.parent.name} & set(WRITTEN_IN_FULL):
        yield
        return
    with files_are_traced():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests go first, so that none of them is left for the end, when the other worker has nothing."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
