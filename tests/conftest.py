"""What several tests share."""

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
import pytest

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
    """Six sub-networks and each file are timed for a hundredth of a second: no test asks how long anything takes."""
    from convfabric.latency import prediction, survey
    from convfabric.pipeline import calibrate as calibrating
    from convfabric.pipeline import steps

    survey.SAMPLE_SECONDS = 0.01
    survey.calibrate = calibrating.calibrate = partial(prediction.calibrate, count=6)
    steps.measure = partial(steps.measure, seconds=0.01)


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
    "test_detection",
    "test_int8",
    "test_anytime",
    "test_trust",
    "test_trial",
)
"""Modules and folders of tests that are about the files themselves."""


@pytest.fixture(autouse=True, scope="module")
def other_files_are_written_sooner(request: pytest.FixtureRequest) -> Iterator[None]:
    """Elsewhere runs have one file, traced by torch's older exporter in a tenth of the time of the two delivered ones.

    It is checked against the network like those.
    """
    from convfabric.exporting.formats import FORMATS

    if {request.path.stem, request.path.parent.name} & set(WRITTEN_IN_FULL):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convfabric.exporting.exporter.program", lambda network, papers: network)
        patch.setattr("convfabric.pipeline.steps.formats_with", lambda _: (replace(FORMATS[0], write=write_traced),))
        yield


def write_traced(network: Any, papers: Any, file: Path) -> None:
    """An ONNX file for batches of any length, with what ``predict.py`` reads in it."""
    import torch

    from convfabric.execution.folding import as_delivered
    from convfabric.exporting.program import carried_facts, on_cpu, quiet
    from convfabric.fabric.deployable import Deployable

    deployable, made = Deployable(as_delivered(on_cpu(network)), papers).eval(), BytesIO()
    example, output = torch.zeros(1, papers.preprocessing.channels, *papers.preprocessing.size), "logits"
    if papers.graph.head.task == "detection":
        output = "boxes"
    names: dict[str, Any] = {"input_names": ["images"], "output_names": [output]}
    free = {"images": {0: "batch"}, output: {0: "batch"}}
    with quiet(), torch.inference_mode():
        torch.onnx.export(deployable, (example,), made, dynamo=False, dynamic_axes=free, opset_version=18, **names)
    model = onnx.load_from_string(made.getvalue())
    model.metadata_props.add(key="convfabric", value=json.dumps(carried_facts(papers)))
    file.write_bytes(model.SerializeToString())
