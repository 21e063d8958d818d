"""The size of images that goes with a budget of milliseconds, where a network of others is cut and nothing says it."""

from dataclasses import replace

from convfabric.data.imageset import Preprocessing
from convfabric.data.opening import task_of
from convfabric.errors import GraphError, ImportingError
from convfabric.fabric.archive import Passport
from convfabric.importing.sources import as_it_is
from convfabric.latency.devices import device_of
from convfabric.operators import Size
from convfabric.pipeline.inputs import original_of
from convfabric.progress import Say
from convfabric.runs.job import Job
from convfabric.weavers import is_imported

SHARES = (1.0, 5 / 7, 4 / 7, 3 / 7)
"""Of the sides that its weights were trained with: 224, 160, 128 and 96 pixels of 224."""
MOST = 2.0
"""Times the budget that the whole network may take, so that about half of it stays."""
SECONDS = 0.1


def sized(job: Job, say: Say) -> Job:
    """The job with the largest size at which the whole network takes at most twice the budget, or the smallest.

    A job whose size is given, that has no milliseconds for a ceiling, that is one of segmentation, whose classifier is
    kept, or whose graph is woven is left as it is.

    >>> from convfabric.runs.job import job_from
    >>> sized(job_from({"data": "digits", "latency_ms": 1.0}), print).options.size is None
    True
    """
    allowed, kept = job.budget.latency_ms, job.numbers.get("classifier") == "kept"
    known = kept or job.options.size is not None or not is_imported(job.source.network)
    if known or not isinstance(allowed, int | float) or task_of(job.data) == "segmentation":
        return job
    native = original_of(job).size
    chosen, took = native, _milliseconds(job, native)
    for share in SHARES[1:]:
        if took <= MOST * allowed:
            break
        smaller = round(share * native[0]), round(share * native[1])
        try:
            chosen, took = smaller, _milliseconds(job, smaller)
        except (ImportingError, GraphError):
            break
    said = f"images of {chosen[1]}×{chosen[0]} pixels, where the whole network takes {took:.3g} ms"
    if chosen != native:
        said += f" (at {native[1]}×{native[0]} it would be cut to less than half); --size says another"
    say(said)
    return replace(job, options=replace(job.options, size=chosen))


def _milliseconds(job: Job, size: Size) -> float:
    """Of the whole network with its own classifier, for images of a size, while neighbours disturbed it least."""
    graph = as_it_is(job.source, size).graph
    channels = graph.entry.image_channels
    half = (0.5,) * channels
    names = tuple(map(str, range(graph.head.classes)))
    prepared = Preprocessing(size=size, channels=channels, fitting="cover", mean=half, std=half)
    papers = Passport(graph=graph, classes=names, preprocessing=prepared)
    return device_of(job.target).times_networks(papers, job.target, SECONDS)(graph).fastest_block_ms
