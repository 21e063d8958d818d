"""What goes with a budget where nothing says it: the size of images, and how large a fabric is woven."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from itertools import product

from convfabric.choice import Budget, ceiling, measures, said_amount
from convfabric.data.image_sizes import SHARES, smaller
from convfabric.data.imageset import ImageSet, Preprocessing
from convfabric.data.opening import Outlook, outlook, seen_in, task_of
from convfabric.errors import GraphError, ImportingError, UntimedError
from convfabric.fabric.archive import Passport
from convfabric.graph import Graph
from convfabric.importing.sources import as_it_is
from convfabric.latency.devices import device_of
from convfabric.operators import Size
from convfabric.pipeline.inputs import original_of
from convfabric.progress import Say
from convfabric.runs.job import Job
from convfabric.weavers import AUTO, Purpose, Source, Trellis, bulk, is_imported, ladder

LEAST_SIDE = 64
"""Images that are smaller are taken as they are for fabrics."""
MOST_OF_IMPORTED = 2.0
"""Times the budget that the whole network may take, so that about half of it stays."""
MOST = 3.0
"""Times the budget that a whole fabric may take."""
USUAL = Trellis(layers=2, channels=16)
"""A fabric that is smaller than this is woven for smaller images instead."""
SECONDS = 0.1


def sized(job: Job, say: Say, data: ImageSet | None = None) -> Job:
    """The job with a size of images and a fabric that its budget asks for, where it says neither.

    Of networks of others that are cut to milliseconds the images are as large as the budget bears. A fabric is woven
    whose whole takes up to three times the budget, for the largest images at which that is no smaller than the usual
    one. Images that are open already, and those of segmentation, stay as they are. A job that names a woven network,
    whose ceilings are shares, or whose classifier is kept is left as it is.

    >>> from convfabric.runs.job import job_from
    >>> job = job_from({"data": "digits", "macs": 2e6})
    >>> chosen = sized(job, lambda text: None)
    >>> chosen.source.network, chosen.numbers["layers"], chosen.numbers["channels"]
    ('trellis', 2, 48)
    """
    if is_imported(job.source.network):
        return job if data else _with_images(job, say)
    if job.source.network != AUTO or not _numbers_in(job.budget):
        return job
    return _with_fabric(job, say, seen_in(data) if data else outlook(job.data, job.options), free=data is None)


def _with_images(job: Job, say: Say) -> Job:
    """The job with the largest size at which the network takes at most twice its milliseconds, or the smallest."""
    allowed, kept = job.budget.latency_ms, job.numbers.get("classifier") == "kept"
    if (
        kept
        or job.options.size
        or not isinstance(allowed, int | float)
        or task_of(job.data, job.options) != "classification"
    ):
        return job
    native = original_of(job).size
    _expect(job, _whole_at(job, [native, *(smaller(native, share) for share in SHARES)]))
    chosen, took = native, _milliseconds(job, native)
    for share in SHARES:
        if took <= MOST_OF_IMPORTED * allowed:
            break
        try:
            took = _milliseconds(job, smaller(native, share))
            chosen = smaller(native, share)
        except (ImportingError, GraphError):
            break
    said = f"images of {chosen[1]}×{chosen[0]} pixels, where the whole network takes {took:.3g} ms"
    if chosen != native:
        said += f" (at {native[1]}×{native[0]} it would be cut to less than half); --size says another"
    say(said)
    return replace(job, options=replace(job.options, size=chosen))


def _milliseconds(job: Job, size: Size) -> float:
    """Of the whole network with its own classifier, for images of a size."""
    return _time(job, as_it_is(job.source, size).graph, size)


def _whole_at(job: Job, sizes: Iterable[Size]) -> Iterator[tuple[Graph, Size]]:
    """The whole network for images of each size that it can read."""
    for size in sizes:
        with suppress(ImportingError, GraphError):
            yield as_it_is(job.source, size).graph, size


def _time(job: Job, graph: Graph, size: Size) -> float:
    """Milliseconds of a graph on the quicker of the job's targets, while neighbours disturbed it least."""
    papers = _papers(graph, size)
    times = [device_of(target).times_networks(papers, target, SECONDS)(graph) for target in job.targets]
    return min(found.fastest_block_ms for found in times)


def _expect(job: Job, wholes: Iterable[tuple[Graph, Size]]) -> None:
    """Tells a device whose times come later of all graphs, each for images of a size, that may be timed."""
    device, waiting = device_of(job.target), None
    for (graph, size), target in product(wholes, job.targets) if device.waits else ():
        try:
            device.expect((), (graph,), _papers(graph, size), target, SECONDS)
        except UntimedError as fault:
            waiting = fault
    if waiting:
        raise waiting


def _papers(graph: Graph, size: Size) -> Passport:
    channels = graph.entry.image_channels
    half = (0.5,) * channels
    names = tuple(map(str, range(graph.head.classes)))
    prepared = Preprocessing(size=size, channels=channels, fitting="cover", mean=half, std=half)
    return Passport(graph=graph, classes=names, preprocessing=prepared)


class _Rungs:
    """The ladder of fabrics for images of a size, held against the budget of a job."""

    def __init__(self, job: Job, seen: Outlook, size: Size) -> None:
        self.job, self.size = job, size
        self.purpose = Purpose(task=seen.task, classes=seen.classes or 10, image_channels=seen.channels, size=size)
        self.fabrics = ladder(size, job.numbers, seen.task)
        self.tightest = cache(self._tightest)

    def woven(self, fabric: Trellis) -> Graph:
        """The graph of a rung."""
        return Source(network="trellis", numbers=asdict(fabric)).woven(self.purpose)

    def _tightest(self, fabric: Trellis) -> tuple[float, str]:
        """How many times the tightest ceiling a fabric takes, and the amount in words."""
        graph = self.woven(fabric)
        how = measures(self.size, lambda graph: _time(self.job, graph, self.size))
        taken = {name: how[name](graph) for name in _numbers_in(self.job.budget)}
        return max(
            (amount / ceiling(self.job.budget, name), said_amount(name, amount)) for name, amount in taken.items()
        )

    @property
    def best(self) -> int:
        """Where the largest stands that takes no more than is useful, or the smallest."""
        return max(0, bisect_right(self.fabrics, MOST, key=lambda fabric: self.tightest(fabric)[0]) - 1)

    def said(self, at: int) -> str:
        """What the fabric of a rung takes."""
        times, amount = self.tightest(self.fabrics[at])
        return f"{amount}, {times:{'.2g' if times < 100 else ',.0f'}} times the budget"


def _numbers_in(budget: Budget) -> list[str]:
    """The ceilings that are no shares."""
    return [name for name, value in budget.ceilings.items() if isinstance(value, int | float)]


def _with_fabric(job: Job, say: Say, seen: Outlook, free: bool) -> Job:
    """The job with the fabric of the ladder for its budget, and the size of images for that where it is ``free``."""
    free = free and not (job.options.size or seen.task != "classification" or min(seen.size) < LEAST_SIDE)
    every = [_Rungs(job, seen, size) for size in (seen.size, *(smaller(seen.size, share) for share in SHARES if free))]
    if job.budget.latency_ms is not None:
        _expect(job, ((rungs.woven(fabric), rungs.size) for rungs in every for fabric in rungs.fabrics))
    for rungs in every:
        if bulk(rungs.fabrics[rungs.best]) >= bulk(USUAL):
            break
    say(_said(rungs, rungs.best, seen))
    numbers = asdict(rungs.fabrics[rungs.best]) | {
        name: job.numbers[name] for name in ("prior",) if name in job.numbers
    }
    options = job.options if rungs.size == seen.size else replace(job.options, size=rungs.size)
    return replace(job, numbers=numbers, options=options, procedure=replace(job.procedure, network="trellis"))


def _said(rungs: _Rungs, at: int, seen: Outlook) -> str:
    (height, width), shape = rungs.size, said_shape(rungs.fabrics[at])
    said = f"no network was named: a fabric of {shape} for images of {width}×{height} pixels takes {rungs.said(at)}"
    if rungs.size != seen.size:
        said += f" (of {seen.size[1]}×{seen.size[0]} pixels it would have to be too small; --size says another)"
    if at + 1 < len(rungs.fabrics):
        said += f"; the next larger, of {said_shape(rungs.fabrics[at + 1])}, {rungs.said(at + 1)}"
    return said


def said_shape(fabric: Trellis) -> str:
    """Layers, scales and channels of a fabric, in words.

    >>> said_shape(Trellis(layers=1, scales=3, channels=8))
    '1 layer, 3 scales and 8 channels'
    """
    parts = [(fabric.layers, "layer"), (fabric.scales, "scale"), (fabric.channels, "channel")]
    layers, scales, channels = (f"{count} {name}{'s' * (count != 1)}" for count, name in parts)
    return f"{layers}, {scales} and {channels}"
