"""The same job from several seeds: how far apart its results are by chance alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from convfabric.errors import ArchiveError
from convfabric.pipeline.fit import run_job
from convfabric.progress import Listener
from convfabric.report.words import said_share
from convfabric.runs.folder import CONFIG, job_of
from convfabric.runs.job import Job
from convfabric.runs.record import RunRecord, parts_of


def fit_seeds(
    job: Job, folder: Path, count: int, *, force: bool = False, resume: bool = False, listener: Listener | None = None
) -> dict[Path, RunRecord]:
    """The records of as many runs of a job, each in a folder of its own, from its seed on upwards.

    What the first chooses for the budget, the fabric, the size of images and the epochs, holds for all. Raises
    ArchiveError where the folder is a run's, and what the runs raise.
    """
    listener = listener or Listener()
    if (folder / CONFIG).is_file():
        raise ArchiveError(f"{folder}: is one run; several seeds need a folder of their own, another --out.")
    found = dict[Path, RunRecord]()
    for seed in range(job.recipe.seed, job.recipe.seed + count):
        listener.say(f"seed {seed}, {len(found) + 1} of {count}")
        place = folder / f"seed-{seed}"
        like = job_of(next(iter(found))) if found else job
        alike = replace(like, recipe=replace(like.recipe, seed=seed))
        found[place] = run_job(alike, place, force=force, resume=resume, listener=listener)
    return found


def said_spread(runs: Mapping[Path, RunRecord]) -> list[str]:
    """A line for each run, and how far apart they are."""
    lines, shares, on_val = [], list[float](), dict[Path, float]()
    for place, record in runs.items():
        data, _, _, network, _, exported = parts_of(record)
        shares.append(100 * network.score.headline)
        on_val[place] = network.val_score.headline
        lines.append(
            f"{place}  {said_share(network.score)} on {data.scored_split}, {exported.latency.median_ms:.3f} ms"
        )
    best = max(on_val, key=lambda place: on_val[place])
    spread = f"{fmean(shares):.2f} % in the mean, standard deviation {stdev(shares):.2f}"
    return [*lines, f"{len(shares)} seeds: {spread}; best on validation images: {best}"]
