"""Inputs of a job: its data, opened, and its graph, woven for them."""

from collections.abc import Sequence
from pathlib import Path

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.errors import DataError
from convfabric.fabric.archive import GRAPH_FILE
from convfabric.graph import Graph
from convfabric.pipeline.announcements import said_fact
from convfabric.runs.folder import check_data_there
from convfabric.runs.job import Job
from convfabric.runs.record import data_record, read_record
from convfabric.weavers import Purpose

SAME_DATA = ("task", "channels", "size", "classes", "images", "digest")
"""Fields of a data record that have to be equal where a fabric that was trained on them is cut."""


def opened(job: Job, like: Sequence[str] = ()) -> ImageSet:
    """The data of a job; DataError where they are not images, or a run's own folder.

    ``like``: the order of its classes, where a network was trained on them already.

    >>> from convfabric.runs.job import job_from
    >>> opened(job_from({"data": "digits"})).name
    'digits'
    """
    if (Path(job.data) / "fabric" / GRAPH_FILE).is_file():
        other = "`convfabric curve` and `convfabric extract` cut further networks from it"
        raise DataError(f"{job.data}: the folder of a run, not of images; {other}.")
    return open_data(job.data, job.options, like=(tuple(like), None) if like else None)


def reopened(run: Path, job: Job, instead: str = "--set data=FOLDER says where it is now") -> ImageSet:
    """The data that the fabric of a run was trained on; DataError where they are others or gone."""
    check_data_there(run, job, instead)
    before = read_record(run).done("data").data
    assert before is not None
    data = opened(job, before.classes)
    check_same_data(run, data)
    return data


def check_same_data(run: Path, data: ImageSet) -> None:
    """DataError where the fabric of a run was trained, or was begun to be trained, on other data."""
    before, now = read_record(run).data, data_record(data)
    if before is None:
        return
    for field in SAME_DATA:
        found, wanted = getattr(now, field), getattr(before, field)
        if found != wanted:
            differs = f"{field} {said_fact(found)}, then {said_fact(wanted)}"
            raise DataError(
                f"{data.name}: not what the fabric in {run} was trained on: "
                f"{'other images' if field == 'digest' else differs}. A network is cut and judged on the "
                "same images; convfabric fit with another --out trains a fabric on these."
            )


def woven(job: Job, data: ImageSet) -> Graph:
    """The graph of a job, fitted to its data.

    >>> from convfabric.runs.job import job_from
    >>> job = job_from({"data": "digits", "network": "fabric-tiny"})
    >>> woven(job, opened(job)).head.classes
    10
    """
    return job.source.woven(
        Purpose(
            task=data.task,
            classes=len(data.classes),
            image_channels=data.preprocessing.channels,
            size=data.preprocessing.size,
        )
    )
