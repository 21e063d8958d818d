"""Minutes that a job may train for: as many epochs as they bear, or a smaller fabric."""

from bisect import bisect_right
from dataclasses import asdict, replace

from convfabric.data.imageset import ImageSet
from convfabric.environment import process_count
from convfabric.errors import SettingError
from convfabric.pipeline.inputs import untrained
from convfabric.pipeline.sizes import said_shape
from convfabric.progress import Say
from convfabric.runs.job import Job
from convfabric.training.estimate import estimate
from convfabric.weavers import AUTO, Trellis, ladder

LEAST_EPOCHS = 0.5
"""Share of the usual epochs that a fabric of the ladder has to have, or a smaller one is trained."""
OF_TUNING = 0.5
"""Of the minutes of an epoch, what an epoch of fine-tuning takes: about half of the fabric is left."""
OF_SCORING = 0.25
"""Of the minutes that an image takes in training, what it takes in validation."""


def paced(job: Job, data: ImageSet, say: Say, asked: Job) -> Job:
    """The job with as many epochs as its minutes bear, estimated from a few steps on this machine.

    Where what was ``asked`` for named no network, a smaller fabric is trained rather than one for less than half of the
    usual epochs: in 3 minutes, on 1,080 grey images, 56 epochs of a small one end at 100 %, 13 of a large one at 91 %.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.runs.job import job_from
    >>> job = job_from({"data": "digits", "network": "fabric-tiny", "minutes": 1e-4})
    >>> paced(job, open_data("digits"), lambda text: None, job).recipe.epochs
    1
    """
    allowed = job.procedure.minutes
    if not allowed:
        return job
    if process_count() > 1:
        raise SettingError(f"minutes={allowed:g}: estimated by one process; give several their --epochs.")
    chosen_by_budget = asked.source.network == AUTO != job.source.network
    known = [*(_smaller(job, data, asked) if chosen_by_budget else ()), job]
    chosen: Job = known[max(0, bisect_right(known, allowed / LEAST_EPOCHS, key=lambda one: _minutes(one, data)) - 1)]
    usual, takes = _epochs(chosen, data), _minutes(chosen, data)
    epochs = min(usual, max(1, int(usual * allowed / takes)))
    said = (
        f"{usual} epochs and fine-tuning would take about {takes:.3g} minutes of {allowed:g} allowed: {epochs} epochs; "
        "the search for sub-networks comes on top, and again where a file is slower than its budget"
    )
    if chosen is not job:
        said = f"a smaller fabric is trained in these minutes, of {said_shape(_fabric(chosen))}; {said}"
    if epochs < usual or chosen is not job:
        say(said)
    return replace(chosen, recipe=replace(chosen.recipe, epochs=epochs))


def _smaller(job: Job, data: ImageSet, asked: Job) -> list[Job]:
    """The job with each fabric that is below its own on the ladder."""
    rungs = ladder(data.preprocessing.size, asked.numbers, data.task)
    return [replace(job, numbers={**job.numbers, **asdict(rung)}) for rung in rungs[: rungs.index(_fabric(job))]]


def _fabric(job: Job) -> Trellis:
    return Trellis(**{name: value for name, value in job.numbers.items() if name != "prior"})


def _epochs(job: Job, data: ImageSet) -> int:
    return job.recipe.fitted(len(data.splits["train"]), data.task).epochs


def _minutes(job: Job, data: ImageSet) -> float:
    """Of all epochs and of fine-tuning; of the search, and of a teacher, nothing is counted."""
    device = job.procedure.accelerator
    training = estimate(untrained(job, data)[0], data, job.recipe, device=device).minutes
    scoring = OF_SCORING * training * len(data.splits["val"]) / len(data.splits["train"])
    return (training + scoring) * (1 + OF_TUNING * job.procedure.finetune)
