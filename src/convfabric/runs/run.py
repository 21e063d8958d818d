"""A finished run, by its folder."""

from dataclasses import dataclass
from pathlib import Path

from convfabric.exporting.int8 import INT8_FILE
from convfabric.fabric.archive import load_fabric
from convfabric.fabric.module import Fabric
from convfabric.runs.record import RunRecord, parts_of, read_record


@dataclass(frozen=True)
class Run:
    """What a ``fit`` made: ``Run("runs/photos").network``; ArchiveError where something is not there yet.

    >>> Run("nowhere").onnx_path
    PosixPath('nowhere/model.onnx')
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def record(self) -> RunRecord:
        """Everything that was recorded, see docs/record.md."""
        return read_record(self.folder)

    @property
    def network(self) -> Fabric:
        """The network that was cut and fine-tuned, in evaluation mode; it takes normalised images."""
        return load_fabric(self.folder)[0].eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the logits."""
        return load_fabric(self.folder)[1].classes

    @property
    def onnx_path(self) -> Path:
        """The delivered file, of pixels from 0 to 255: in int8 where that was accepted."""
        small = self.folder / INT8_FILE
        return small if small.is_file() else self.folder / "model.onnx"

    @property
    def report_path(self) -> Path:
        """The page of the run."""
        return self.folder / "report.html"

    @property
    def score(self) -> float:
        """Accuracy, mIoU or AP50 of the delivered file on the scored split, from 0 to 1."""
        _, _, _, network, _, _ = parts_of(self.record)
        return (self.record.delivered or network.score).headline

    @property
    def milliseconds(self) -> float:
        """The median that the delivered file took on the target."""
        return parts_of(self.record)[-1].latency.median_ms

    @property
    def budget_met(self) -> bool:
        """Whether that is within the budget; one without milliseconds is met."""
        return self.record.budget_met is not False
