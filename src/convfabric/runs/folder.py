"""The folder of a run: what it was begun with, what was noted on the way, which files are its own.

::

    RUN/config.yaml  environment.json  metrics.csv  record.json  report.html
    RUN/fabric/      graph.json  model.safetensors            the trained fabric
    RUN/cut/         graph.json  model.safetensors            the network after pruning
    RUN/             graph.json  model.safetensors            the same, fine-tuned
    RUN/teacher/     config.yaml  fabric/  ...                the run of a teacher, if there is one
    RUN/             model.onnx  model.pt2  predict.py        what leaves the house
    RUN/             model.int8.onnx                          the same in int8, where that was asked for
    RUN/             exit-1.onnx  exit-2.onnx  ...            the same, parted behind each exit if there are several
    RUN/             curve.csv  curve.html                    networks of several budgets: pipeline.budget_curve
"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from convfabric.choice import Budget
from convfabric.data.named import NAMES
from convfabric.data.options import DataOptions
from convfabric.environment import is_first_process
from convfabric.errors import ArchiveError, DataError, SettingError
from convfabric.fabric.archive import GRAPH_FILE, WEIGHTS_FILE, write_atomically
from convfabric.runs.job import Job, job_from, read_config, settings_of, written_config
from convfabric.runs.lock import holds_something
from convfabric.runs.record import RECORD, read_record
from convfabric.training.recipe import Recipe
from convfabric.weavers import find_preset

CONFIG = "config.yaml"
FINETUNE_STATE = "finetune.state.safetensors"
CURVE_TABLE, CURVE_PAGE = "curve.csv", "curve.html"
TRIED = "tried.json"
TEACHER = "teacher"
EXPORTED = ("model.onnx", "model.int8.onnx", "model.pt2", "predict.py", "report.html", "network.svg")
NETWORK = (GRAPH_FILE, WEIGHTS_FILE)
WRITTEN = (
    *(CONFIG, RECORD, "environment.json", "metrics.csv"),
    *("fabric.state.safetensors", FINETUNE_STATE, "gates.json", TRIED, CURVE_TABLE, CURVE_PAGE),
    *(f"{place}{file}" for place in ("fabric/", "cut/", "") for file in NETWORK),
    *EXPORTED,
)
"""Every file of a run."""
OF_TUNING = {"epochs": "finetune", "lr": "finetune_lr"}
"""For settings of the training, which say what share of them fine-tuning has."""
ALWAYS_SET = {"data", "network", "worth", "finetune"}
"""Settings that the configuration of every run holds."""
Settings = dict[str, Any]
"""Flat settings, by name."""


def begin(folder: Path, job: Job, *, force: bool = False, resume: bool = False) -> None:
    """The run folder with its configuration; ArchiveError where a run is there already, unless told otherwise."""
    if not is_first_process():
        return
    check_may_begin(folder, job, force=force, resume=resume)
    if resume and (folder / CONFIG).is_file():
        return
    if holds_something(folder):
        _remove_run(folder)
    write_atomically(folder / CONFIG, written_config(job))


def check_may_begin(folder: Path, job: Job, *, force: bool = False, resume: bool = False) -> None:
    """Raises what :func:`begin` would, and changes nothing."""
    if resume and (folder / CONFIG).is_file():
        _check_unchanged(folder, job)
        return
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if nearest != folder.absolute() and not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ArchiveError(f"{folder}: cannot be made, as {nearest} is no folder that may be written in.")
    if holds_something(folder):
        if not folder.is_dir():
            raise ArchiveError(f"{folder}: is a file; a run needs a folder of its own.")
        if not ((folder / CONFIG).is_file() and set(read_config(folder / CONFIG)) >= ALWAYS_SET):
            raise ArchiveError(
                f"{folder}: holds files but no {CONFIG} of convfabric, so it is not a run, which --force replaces; "
                "choose another --out."
            )
        for said, what in ((job.source.network, "fabric to begin from"), (job.procedure.teacher, "teacher")):
            library, _, earlier = said.partition(":")
            if force and library == "run" and _lies_in(earlier, folder):
                raise ArchiveError(f"{folder}: holds the {what}; choose another --out.")
        if not force:
            raise ArchiveError(
                f"{folder}: already contains a run; use --resume to continue it or --force to replace it."
            )


def _lies_in(one: str, folder: Path) -> bool:
    return Path(one).resolve().is_relative_to(folder.resolve())


def _check_unchanged(folder: Path, job: Job) -> None:
    changed, said = changes(settings_of(job_of(folder)), settings_of(job))
    if not changed:
        return
    said = f"{folder}: begun with {said}. A run goes on as it was begun; --out begins another run"
    if set(changed) <= {field.name for field in fields(Budget)}:
        once = "" if (folder / "fabric" / GRAPH_FILE).is_file() else "once it is trained, "
        said += f", and {once}convfabric extract {folder} cuts it to another budget"
    raise SettingError(said + ".")


def changes(before: Settings, now: Settings) -> tuple[list[str], str]:
    """Names of the settings that differ, and what is said of them.

    >>> changes({"macs": "25%", "epochs": 3}, {"lr": 0.1, "epochs": 3})
    (['macs', 'lr'], 'macs=25%, no lr, now no macs, lr=0.1')
    """
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    then, since = (", ".join(_said(name, settings) for name in changed) for settings in (before, now))
    return changed, f"{then}, now {since}"


def _said(name: str, settings: Settings) -> str:
    return f"{name}={settings[name]}" if settings.get(name) is not None else f"no {name}"


def recut(folder: Path, settings: Settings) -> Job:
    """The job of a run with other settings for what is cut from its trained fabric.

    Raises SettingError where they would have made another fabric.
    """
    check_trained(folder)
    before = settings_of(job_of(folder))
    job = job_from(before | settings)
    usual = find_preset(job.procedure.network).numbers
    numbers = {field.name: getattr(usual, field.name) for field in fields(usual)}
    before, now = numbers | before, numbers | settings_of(job)
    options = (field.name for field in fields(DataOptions) if field.name != "data_dir")
    gates = (field.name for field in fields(Recipe) if field.name.startswith("gate"))
    for name in (
        "network",
        "prior",
        *numbers,
        "teacher",
        "teacher_weights",
        "teacher_epochs",
        *options,
        "epochs",
        "lr",
        "subnetworks",
        *gates,
    ):
        if before.get(name) != now.get(name):
            other = "convfabric fit with another --out trains another one"
            other = f"--set {OF_TUNING[name]}=SHARE is for fine-tuning" if name in OF_TUNING else other
            raise SettingError(
                f"{folder}: its fabric was trained with {_said(name, before)}, not with {_said(name, now)}. A network "
                f"is cut from the fabric that is there; {other}."
            )
    return job


def check_trained(folder: Path) -> None:
    """Raises ArchiveError where a folder holds no trained fabric, with what makes one."""
    if (folder / "fabric" / GRAPH_FILE).is_file():
        return
    if not folder.exists():
        raise ArchiveError(f"{folder}: no such folder; give that of a run, made by convfabric fit or train.")
    if (folder / CONFIG).is_file():
        raise ArchiveError(f"{folder}: no trained fabric in it yet; convfabric fit or train goes on with --resume.")
    raise ArchiveError(f"{folder}: no trained fabric in it; convfabric train and fit make one.")


def check_data_there(folder: Path, job: Job, instead: str) -> None:
    """Raises DataError where the data that a run was trained on are gone; ``instead`` says what can be done."""
    if not (job.data in NAMES or Path(job.data).exists()):
        found = "gone" if Path(job.data).is_absolute() else f"not in {Path.cwd()}"
        raise DataError(f"{job.data}: {found}, and {folder} was trained on it; {instead}.")


def _remove_run(folder: Path) -> None:
    """Removes what a run writes, and leaves whatever else lies in its folder."""
    remove_exported(folder)
    for name in WRITTEN:
        _remove(folder / name)
    if (folder / TEACHER / CONFIG).is_file():
        _remove_run(folder / TEACHER)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as fault:
        raise ArchiveError(f"{file}: cannot be removed ({fault.strerror or fault}).") from None


def remove_exported(folder: Path) -> None:
    """Removes what an earlier network of the run was exported to."""
    for file in (*(folder / name for name in EXPORTED), *folder.glob("exit-*.onnx")):
        _remove(file)


def remove_network(folder: Path) -> None:
    """Removes the network of a run, pruned, fine-tuned and exported, and leaves the fabric."""
    remove_exported(folder)
    for name in (f"cut/{GRAPH_FILE}", FINETUNE_STATE, TRIED, *NETWORK):
        _remove(folder / name)


def job_of(folder: Path) -> Job:
    """The job that a run folder was begun with."""
    if not (folder / CONFIG).is_file():
        raise ArchiveError(f"{folder}: no {CONFIG}; a folder made by convfabric fit or train has one.")
    return job_from(read_config(folder / CONFIG))


def check_exported(folder: Path) -> None:
    """Raises ArchiveError where the network of a run has no files yet."""
    if read_record(folder).exported is None:
        raise ArchiveError(f"{folder}: not exported yet; convfabric export {folder} does it.")


def is_exported(folder: Path) -> bool:
    """Whether a network is there as a file, measured to be within its milliseconds."""
    return (folder / EXPORTED[0]).is_file() and bool(read_record(folder).budget_met)


def is_finished(folder: Path) -> bool:
    """Whether a run has all its files: its page is written last, and removed with the network it is of."""
    return is_exported(folder) and (folder / "report.html").is_file()
