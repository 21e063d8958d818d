"""Files of runs, written in a tenth of the time, for tests that are not about files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
import pytest


@contextmanager
def files_are_traced() -> Iterator[None]:
    """Runs have one file, traced by torch's older exporter, and checked against the network like the two delivered."""
    from convfabric.exporting.formats import FORMATS

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
