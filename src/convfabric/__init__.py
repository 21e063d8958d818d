"""Give it images and a budget; get back the most accurate small CNN that meets it, as a checked ONNX file.

The half without torch is here at once; names that need torch are imported when first used.
"""

from importlib import import_module
from typing import Any

from convfabric.choice import Budget, choose
from convfabric.errors import ConvfabricError
from convfabric.graph import Edge, Graph, Node, Place
from convfabric.graph.costs import Costs, costs
from convfabric.weavers import Draft, Purpose, Trellis, weave, weave_numbers, weave_trellis

_WITH_TORCH = {
    "Fabric": "convfabric.fabric.module",
    "Job": "convfabric.runs.job",
    "Recipe": "convfabric.training.recipe",
    "Run": "convfabric.runs.run",
    "answer_early": "convfabric.evaluation.early_exit",
    "create_model": "convfabric.importing.create_model",
    "export": "convfabric.exporting.exporter",
    "extract": "convfabric.cutting.surgery",
    "fit": "convfabric.pipeline.fit",
    "import_network": "convfabric.importing.network",
    "job_from": "convfabric.runs.job",
    "load_fabric": "convfabric.fabric.archive",
    "open_data": "convfabric.data.opening",
    "save_fabric": "convfabric.fabric.archive",
    "save_network": "convfabric.importing.own_module",
    "score": "convfabric.evaluation.scoring",
    "train": "convfabric.training.loop",
}

__all__ = [
    "Budget",
    "ConvfabricError",
    "Costs",
    "Draft",
    "Edge",
    "Fabric",
    "Graph",
    "Job",
    "Node",
    "Place",
    "Purpose",
    "Recipe",
    "Run",
    "Trellis",
    "answer_early",
    "choose",
    "costs",
    "create_model",
    "export",
    "extract",
    "fit",
    "import_network",
    "job_from",
    "load_fabric",
    "open_data",
    "save_fabric",
    "save_network",
    "score",
    "train",
    "weave",
    "weave_numbers",
    "weave_trellis",
]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
