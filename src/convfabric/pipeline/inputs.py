"""Inputs of a job: its data, opened, and its graph, woven for them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

import torch

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data, task_of
from convfabric.errors import DataError, SettingError
from convfabric.fabric.archive import GRAPH_FILE
from convfabric.fabric.initial_weights import redrawn
from convfabric.fabric.module import HEADS, Fabric
from convfabric.graph import Graph
from convfabric.importing.sources import Original, graph_of, network_of, original
from convfabric.pipeline.announcements import said_fact
from convfabric.runs.folder import check_data_there
from convfabric.runs.job import Job
from convfabric.runs.record import data_record, read_record
from convfabric.weavers import Purpose, find_preset, is_imported

KEPT, LEFT_OUT = "kept as they are", "left out"
"""What is said of modules that no operator describes."""
BY_THEIR_OWN = (
    "prepared by the mean and spread of these images, as the network's file states none: "
    "--set mean=[...] and std=[...] say what it was trained with"
)
SAME_DATA = ("task", "channels", "size", "classes", "images", "digest")
"""Fields of a data record that have to be equal where a fabric that was trained on them is cut."""


def opened(job: Job, like: Sequence[str] = ()) -> ImageSet:
    """The data of a job; DataError where they are not images, or a run's own folder, SettingError for boxes in int8.

    ``like``: the order of its classes, where a network was trained on them already.

    >>> from convfabric.runs.job import job_from
    >>> opened(job_from({"data": "digits"})).name
    'digits'
    """
    if (Path(job.data) / "fabric" / GRAPH_FILE).is_file():
        other = "`convfabric curve` and `convfabric extract` cut further networks from it"
        raise DataError(f"{job.data}: the folder of a run, not of images; {other}.")
    options = job.options
    if job.procedure.precision != "float32" and task_of(job.data, options) == "detection":
        raise SettingError(f"precision={job.procedure.precision}: networks for detection are delivered in float32.")
    if not is_imported(job.source.network):
        return open_data(job.data, options, like=(tuple(like), None) if like else None)
    first = original_of(job)
    if options.size is None and task_of(job.data, options) == "classification":
        options = replace(options, size=first.size)
    data = open_data(job.data, options, like=(tuple(like), None) if like else None)
    return prepared_for(first, data)


def original_of(job: Job) -> Original:
    """The network of others that a job begins with."""
    numbers = find_preset(job.source.network).numbers
    return original(job.source.network, **(asdict(numbers) | dict(job.source.numbers)))


def origin_of(job: Job, data: ImageSet) -> Mapping[str, str]:
    """Where the weights come from that a job begins with, and which modules no operator describes.

    Nothing where weights are fresh and the graph is woven.

    >>> from convfabric.runs.job import job_from
    >>> job = job_from({"data": "digits"})
    >>> origin_of(job, opened(job))
    {}
    """
    if not is_imported(job.source.network):
        return {}
    network = network_of(job.source, _purpose(data))
    found = dict(original_of(job).about)
    found |= {KEPT: ", ".join(network.kept)} if network.kept else {}
    return found | ({LEFT_OUT: "its last softmax: answers are logits"} if network.softmax else {})


def prepared_for(network: Original, data: ImageSet) -> ImageSet:
    """The data, prepared as the weights of a network want their images; grey ones with the mean of its colours."""
    before = data.preprocessing
    if not network.mean:
        return replace(data, notes=(*data.notes, BY_THEIR_OWN))
    mean, std = (
        part if before.channels == len(part) else (fmean(part),) * before.channels
        for part in (network.mean, network.std)
    )
    return replace(data, preprocessing=replace(before, mean=mean, std=std))


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
    return graph_of(job.source, _purpose(data))


def untrained(job: Job, data: ImageSet) -> tuple[Fabric, tuple[str, ...]]:
    """The fabric that a job trains, with the weights it begins with, and what names of fresh ones begin with.

    >>> from convfabric.runs.job import job_from
    >>> job = job_from({"data": "digits", "network": "fabric-tiny"})
    >>> untrained(job, opened(job))[0].graph == woven(job, opened(job))
    True
    """
    torch.manual_seed(job.recipe.seed)
    if not is_imported(job.source.network):
        return redrawn(Fabric(woven(job, data)), job.recipe.init), HEADS
    if job.recipe.init != "he":
        raise SettingError(f"init={job.recipe.init}: {job.source.network} begins with weights of its own.")
    found = network_of(job.source, _purpose(data))
    return copy.deepcopy(found.fabric), found.fresh


def _purpose(data: ImageSet) -> Purpose:
    preprocessing = data.preprocessing
    return Purpose(
        task=data.task, classes=len(data.classes), image_channels=preprocessing.channels, size=preprocessing.size
    )
