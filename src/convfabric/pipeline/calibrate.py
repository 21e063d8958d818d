"""Calibration: time of each operation of a network on a target, and how well their sum predicts sub-networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convfabric.data.imageset import Preprocessing
from convfabric.errors import SettingError
from convfabric.fabric.archive import Passport, load_fabric
from convfabric.graph.subnetworks import Sampler
from convfabric.latency import survey
from convfabric.latency.asked import key_of
from convfabric.latency.devices import device_of
from convfabric.latency.prediction import calibrate, every_operation, measured_graphs, simplified
from convfabric.latency.table import Table
from convfabric.latency.target import HERE, Target
from convfabric.runs.job import network_from
from convfabric.training.recipe import Recipe

SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Times of a network's operations on a target, and how well their sum predicts."""

    network: str
    size: tuple[int, int]
    """Height and width of the images in pixels."""
    target: str
    file: str | None
    """Where the table is kept; None where it cannot be."""
    measured_now: int
    operations: Mapping[str, float]
    """Milliseconds of each."""
    whole_ms: float
    predicted_ms: float
    errors: tuple[float, ...]
    """|predicted / measured - 1| of each measured sub-network, left out of the fit in turn."""
    median_error: float
    rank_correlation: float


def calibrated(
    network: str,
    size: str | None = None,
    changes: Sequence[str] = (),
    *,
    device: str = HERE,
    threads: int = 1,
    batch: int = 1,
    runtime: str = "onnxruntime",
    say: Callable[[str], None] = print,
) -> Calibration:
    """The table of a network's operations on a device, measured where it was not before, and the prediction.

    ``network`` is a preset, a family or the folder of a run. Raises SettingError for what is not known.
    """
    target = Target(device=device, runtime=runtime, threads=threads, batch=batch)
    where = device_of(target)
    papers = _papers(network, size, changes)
    graph, image = papers.graph, papers.preprocessing.size
    sampler, table = Sampler.of(graph, Recipe().narrowest, image), Table.opened(target)
    works = every_operation(sampler, simplified(graph), image)
    where.expect(table.missing(works), measured_graphs(sampler, image), papers, target, survey.SAMPLE_SECONDS)
    say(f"{graph.name} at {image[0]}×{image[1]} on {where.identity(target)}")
    fresh = table.measure(works, lambda done, of: say(f"{done} of {of} operations") if done % 100 == 0 else None)
    time_of = where.times_networks(papers, target, survey.SAMPLE_SECONDS)
    prediction = calibrate(sampler, image, table, lambda part: time_of(part).fastest_block_ms)
    return Calibration(
        network=graph.name,
        size=image,
        target=where.identity(target),
        file=str(table.file) if table.is_kept else None,
        measured_now=fresh,
        operations={key_of(work): table.milliseconds(work) for work in works},
        whole_ms=time_of(graph).fastest_block_ms,
        predicted_ms=prediction.milliseconds(graph),
        errors=prediction.errors,
        median_error=prediction.median_error,
        rank_correlation=prediction.rank,
    )


def calibrated_lines(found: Calibration) -> list[str]:
    """The calibration for people: the slowest operations first."""
    slowest = sorted(found.operations.items(), key=lambda item: -item[1])
    lines = [f"{milliseconds:9.4f} ms  {name}" for name, milliseconds in slowest[:SHOWN]]
    rest = [f"... and {len(slowest) - SHOWN} faster ones"] if len(slowest) > SHOWN else []
    kept = f"kept in {found.file}" if found.file else "not kept: the user's cache cannot be written"
    return [
        f"{len(slowest)} operations, {found.measured_now} of them measured now; {kept}",
        *lines,
        *rest,
        f"whole network {found.whole_ms:.3f} ms, predicted {found.predicted_ms:.3f} ms",
        f"predictions are off by {found.median_error:.0%} (median of {len(found.errors)} measured sub-networks, each "
        f"left out of the fit), rank correlation {found.rank_correlation:.2f}",
        "next: convfabric fit DATA --latency-ms 2",
    ]


def _papers(network: str, size: str | None, changes: Sequence[str]) -> Passport:
    if Path(network).is_dir():
        if size or changes:
            raise SettingError(f"{network}: a run is taken as it is; --set and --size are for networks by name.")
        trained = Path(network) / "fabric"
        return load_fabric(trained if trained.is_dir() else Path(network))[1]
    graph, image = network_from(network, size, changes)
    channels = graph.entry.image_channels
    neutral = Preprocessing(
        size=image, channels=channels, fitting="stretch", mean=(0.5,) * channels, std=(0.25,) * channels
    )
    classes = tuple(str(number) for number in range(graph.head.classes))
    return Passport(graph=graph, classes=classes, preprocessing=neutral)
