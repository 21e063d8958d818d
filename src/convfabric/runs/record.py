"""The record of a run: typed, checked on reading; reports and ``--json`` take everything from it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from convfabric.choice import Budget
from convfabric.data.imageset import ImageSet
from convfabric.errors import ArchiveError
from convfabric.evaluation.baseline import doubts
from convfabric.evaluation.exit_thresholds import Exits
from convfabric.evaluation.scoring import Score, score
from convfabric.exporting.int8 import Int8
from convfabric.fabric.archive import write_atomically
from convfabric.fabric.module import Fabric
from convfabric.graph import Task
from convfabric.graph.costs import costs, peak_bytes
from convfabric.graph.json_format import parsed, read, text_of, written
from convfabric.latency.measurement import Latency
from convfabric.latency.target import Precision
from convfabric.operators import Size
from convfabric.runs.old_records import modernised

RECORD = "record.json"
FORMAT = 1
"""Raised whenever a field changes meaning. Records without a number are of before, and read."""


class _Counted:
    """A record whose numbers count or measure something, so that none is below zero."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number below zero."""
        for part in fields(self):  # type: ignore[arg-type]
            found = getattr(self, part.name)
            numbers = found.values() if isinstance(found, Mapping) and part.name != "worth" else [found]
            if odd := [number for number in numbers if isinstance(number, int | float) and number < 0]:
                raise ValueError(f"{part.name} {odd[0]} is below zero")


@dataclass(frozen=True, kw_only=True)
class DataRecord(_Counted):
    """The data of a run."""

    name: str
    """Of the folder, file or named set."""
    task: Task
    """What the data are for."""
    classes: tuple[str, ...]
    """Their names, in the order in which answers count them."""
    images: Mapping[str, int]
    """Of each split."""
    size: tuple[int, int]
    """Height and width in pixels."""
    channels: int
    """Of images."""
    digest: str
    """Of what was read: the same for the same images, wherever they lie."""
    notes: tuple[str, ...]
    """Notes on what was inferred, drawn and converted."""
    scored_split: str
    """The split that scores are of: test, or val where there is no test."""


@dataclass(frozen=True, kw_only=True)
class NetworkRecord(_Counted):
    """A trained network: its costs for one image, and its scores."""

    edges: int
    """Of its graph."""
    parameters: int
    """Trained values."""
    macs: int
    """Multiply-accumulates."""
    activation_bytes: int
    """Of every float32 response."""
    peak_bytes: int
    """Of parameters and the responses alive at once."""
    score: Score
    """On the scored split."""
    val_score: Score
    """On validation images."""
    seconds: float
    """That its training took, this time."""
    size: Size | None = None
    """Of its images, height and width in pixels; of records of before that of the data."""


@dataclass(frozen=True, kw_only=True)
class CutRecord(_Counted):
    """The cut: the budget, the prediction, and the worth of edges."""

    requested: str
    """The budget as it was asked for."""
    ceilings: Mapping[str, float]
    """The same in numbers: latency_ms, macs, params, memory_mb, edges."""
    predicted_ms: float
    """Predicted latency."""
    prediction_error: float
    """Median of |predicted / measured - 1| over networks that were measured."""
    worth: Mapping[str, float]
    """Of each edge of the fabric."""
    edge_ms: Mapping[str, float] = field(default_factory=dict)
    """The least by which each edge of the network makes it slower, as predicted."""
    precision: Precision = "float32"
    """Numbers that it was chosen for."""
    target: str = ""
    """The device, runtime and conditions whose milliseconds it was chosen by."""

    def __post_init__(self) -> None:
        """Raises ValueError for a ceiling that is none, too."""
        super().__post_init__()
        if odd := sorted(set(self.ceilings) - {part.name for part in fields(Budget)}):
            raise ValueError(f"unknown ceiling {odd[0]}")


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """How the network that was cut came to its final weights."""

    after_pruning: Score
    """With the weights and statistics of the fabric."""
    after_recalibration: Score
    """With the statistics of batch norms taken anew."""
    fine_tuned: bool
    """Whether fine-tuned weights were kept."""


@dataclass(frozen=True, kw_only=True)
class ExportRecord(_Counted):
    """The exported files."""

    latency: Latency
    """Of the delivered file, on the target."""
    largest_difference: float
    """Between logits of a file and of the network, over the images compared."""
    onnx_bytes: int
    """Size of model.onnx."""
    precision: Precision = "float32"
    """Numbers that the delivered file works in: int8 of model.int8.onnx, else model.onnx."""
    int8: Int8 | None = None
    """How model.int8.onnx answers, where there is one."""
    operations: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each kind of operation in the delivered file; empty where it was timed elsewhere."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of a run so far; parts that have not happened yet are None."""

    data: DataRecord | None = None
    """Known once the data were opened."""
    fabric: NetworkRecord | None = None
    """Known once the fabric was trained."""
    begun_with: Mapping[str, str] = field(default_factory=dict)
    """The network of others that training began with, its weights and their licence; nothing for one that is woven."""
    given_up: tuple[str, ...] = ()
    """Trainings of the fabric that were given up, as their answers were no better than chance, and what came after."""
    plan: str = "unknown"
    """How the fabric was trained: number format, layout, kernels."""
    cut: CutRecord | None = None
    """Known once a network was cut."""
    network: NetworkRecord | None = None
    """The network that was cut and fine-tuned."""
    tuning: TuningRecord | None = None
    """How it came to its weights."""
    exported: ExportRecord | None = None
    """Known once files were written and checked."""
    exits: Exits | None = None
    """Of networks with several exits, scores and costs of each."""

    @property
    def budget_met(self) -> bool | None:
        """Whether the exported file is within the milliseconds allowed; None where there is none yet."""
        if self.exported is None or self.cut is None:
            return None
        most = self.cut.ceilings.get("latency_ms")
        return most is None or self.exported.latency.median_ms <= most

    @property
    def delivered(self) -> Score | None:
        """How the delivered file answers on the scored split; None where there is none yet."""
        if self.exported is not None and self.exported.int8 is not None:
            return self.exported.int8.score
        return None if self.network is None else self.network.score

    @property
    def doubts(self) -> list[str]:
        """Why the network's score is not to be trusted, see :func:`convfabric.evaluation.baseline.doubts`."""
        found = self.delivered
        return [] if found is None or self.data is None else doubts(found, self.data.classes)

    def done(self, *names: str) -> "RunRecord":
        """The record itself; ArchiveError where one of these parts is not there yet."""
        if missing := [name for name in names if getattr(self, name) is None]:
            raise ArchiveError(f"this run has no {missing[0]} yet: convfabric fit goes on with --resume.")
        return self

    def as_json(self, folder: Path) -> dict[str, Any]:
        """Plain values for ``--json``, with whether the budget was met and where the files are."""
        names = {"onnx": "model.onnx", "int8": "model.int8.onnx", "report": "report.html"}
        names |= {"predictor": "predict.py", "record": RECORD}
        paths = {name: str(folder / file) for name, file in names.items() if (folder / file).is_file()}
        return {
            "format": FORMAT,
            **written(self),
            "budget_met": self.budget_met,
            "balanced_accuracy": self.delivered.balanced_accuracy if self.delivered else None,
            "doubts": self.doubts,
            "paths": {"run": str(folder), **paths},
        }


Parts = tuple[DataRecord, NetworkRecord, CutRecord, NetworkRecord, TuningRecord, ExportRecord]


def parts_of(record: RunRecord) -> Parts:
    """Data, fabric, cut, network, tuning and exported files of a finished run; ArchiveError where one is missing."""
    record.done("data", "fabric", "cut", "network", "tuning", "exported")
    parts: Any = (record.data, record.fabric, record.cut, record.network, record.tuning, record.exported)
    found: Parts = parts
    return found


def data_record(data: ImageSet) -> DataRecord:
    """The record of a data set.

    >>> from convfabric.data.opening import open_data
    >>> data_record(open_data("digits")).images
    {'train': 1259, 'val': 269, 'test': 269}
    """
    return DataRecord(
        name=data.name,
        task=data.task,
        classes=data.classes,
        images={name: len(split) for name, split in data.splits.items()},
        size=data.preprocessing.size,
        channels=data.preprocessing.channels,
        digest=data.digest,
        notes=data.notes,
        scored_split=data.scored_split,
    )


def network_record(network: Fabric, data: ImageSet, seconds: float) -> NetworkRecord:
    """Edges, costs and scores of a network whose training took so many seconds."""
    image = data.preprocessing.size
    return NetworkRecord(
        edges=len(network.graph.edges),
        **asdict(costs(network.graph, image)),
        peak_bytes=peak_bytes(network.graph, image),
        score=score(network, data, data.scored_split),
        val_score=score(network, data, "val"),
        seconds=seconds,
        size=image,
    )


def read_record(folder: Path) -> RunRecord:
    """The record of a run so far, empty where there is none; ArchiveError names the field that does not fit.

    >>> read_record(Path("nowhere")).network is None
    True
    """
    file = folder / RECORD
    if not file.is_file():
        return RunRecord()
    document = parsed(text_of(file), str(file))
    if not isinstance(document, dict):
        raise ArchiveError(f"{file}: found {document!r}, expected the fields of a run's record.")
    if "format" not in document:
        document = modernised(document, str(file))
    elif type(found := document.pop("format")) is not int or found != FORMAT:
        raise ArchiveError(f"{file}: found format {found!r}, this version reads records of format {FORMAT}.")
    record: RunRecord = read(RunRecord, document, str(file))
    return record


def update_record(folder: Path, **parts: Any) -> RunRecord:
    """The record of a run with some parts replaced, written whole or not at all.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> update_record(Path(folder.name), plan="float32").plan, read_record(Path(folder.name)).plan
    ('float32', 'float32')
    >>> folder.cleanup()
    """
    record = replace(read_record(folder), **parts)
    write_atomically(folder / RECORD, json.dumps({"format": FORMAT, **written(record)}, indent=1))
    return record
