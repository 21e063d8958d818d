"""The main job, step by step over one run folder: train, extract, export, report."""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from convfabric.choice import Budget
from convfabric.cutting.cutter import HEADROOM, Cutter, Survey, survey
from convfabric.cutting.dead_channels import without_dead_channels
from convfabric.cutting.fitness import Judge
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import ranked
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.environment import is_first_process, machine, process_count, versions
from convfabric.errors import ArchiveError, BudgetError, DataError, SettingError
from convfabric.evaluation.early_exit import anytime_facts
from convfabric.evaluation.scoring import score
from convfabric.exporting.deployable import export
from convfabric.exporting.exit_files import export_stages
from convfabric.exporting.predictor_script import write_predictor
from convfabric.fabric.archive import (
    GRAPH_FILE,
    Passport,
    load_fabric,
    passport,
    read_tensors,
    save_fabric,
    write_atomically,
)
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.measurement import measure
from convfabric.report.run_page import write_report
from convfabric.runs.folder import Facts, begin, check_data_there, check_may_begin, note, noted, remove_network
from convfabric.runs.job import Job, default_folder, job_from
from convfabric.runs.noting import (
    Say,
    data_facts,
    network_facts,
    said_fact,
    said_gates,
    said_parts,
    said_stages,
    say_data,
)
from convfabric.training.estimate import estimate
from convfabric.training.loop import GATES, Watch, plan_of, train
from convfabric.weavers import weave


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Who is told what happens."""

    say: Say = print
    watch: Watch = lambda moment: None


def opened(job: Job) -> ImageSet:
    """The data of a job; DataError where they are not images, or a run's own folder."""
    if (Path(job.data) / "fabric" / GRAPH_FILE).is_file():
        other = "`convfabric curve` and `convfabric extract` cut further networks from it"
        raise DataError(f"{job.data}: the folder of a run, not of images; {other}.")
    return open_data(job.data, job.options)


SAME_DATA = ("task", "channels", "size", "classes", "images", "digest")
"""What is noted of data, and has to be equal where a fabric that was trained on them is cut."""


def reopened(run: Path, job: Job, instead: str = "--set data=FOLDER says where it is now") -> ImageSet:
    """The data that the fabric of a run was trained on; DataError where they are others or gone."""
    check_data_there(run, job, instead)
    data, before = opened(job), noted(run)["data"]
    now = data_facts(data)
    for fact in SAME_DATA:
        if now[fact] != before[fact]:
            said = (
                "other images" if fact == "digest" else f"{fact} {said_fact(now[fact])}, then {said_fact(before[fact])}"
            )
            raise DataError(
                f"{data.name}: not what the fabric in {run} was trained on: {said}. A network is cut and judged on the "
                "same images; convfabric fit with another --out trains a fabric on these."
            )
    return data


def woven(job: Job, data: ImageSet) -> Graph:
    """The graph of a job, fitted to its data."""
    return weave(
        job.procedure.network,
        size=data.preprocessing.size,
        image_channels=data.preprocessing.channels,
        classes=len(data.classes),
        task=data.task,
        **job.numbers,
    )


def train_step(folder: Path, job: Job, data: ImageSet, listener: Listener, *, resume: bool = False) -> Fabric:
    """The trained fabric of a job, kept in the run folder; a finished one is loaded if ``resume``."""
    if resume and (folder / "fabric" / "graph.json").is_file():
        return load_fabric(folder / "fabric")[0]
    torch.manual_seed(job.recipe.seed)
    fabric, device = Fabric(woven(job, data)), job.procedure.device
    if process_count() == 1:
        parts = said_parts(fabric.graph, job, data)
        listener.say(f"training the fabric takes {estimate(fabric, data, job.recipe, device=device)}{parts}")
    began = time.monotonic()
    train(fabric, data, job.recipe, folder=folder, resume=resume, device=device, watch=listener.watch)
    plan = str(plan_of(job.recipe, fabric))
    fabric = fabric.cpu()
    if is_first_process():
        facts = {"machine": machine(), "versions": versions(), "seed": job.recipe.seed, "data_digest": data.digest}
        write_atomically(folder / "environment.json", json.dumps(facts, indent=1))
        spent = {"seconds": time.monotonic() - began, "plan": plan}
        note(folder, data=data_facts(data), fabric=network_facts(fabric, data) | spent)
        save_fabric(folder / "fabric", fabric, passport(fabric, data))
        if job.recipe.gates != "none":
            listener.say(said_gates(folder, fabric.graph, job, data))
    return fabric


def surveyed(
    graph: Graph, job: Job, data: ImageSet, listener: Listener, budgets: Sequence[Budget] | None = None
) -> Survey:
    """What the graph takes on this machine; BudgetError where nothing in it meets the job's budget, or some others."""
    papers = Passport(graph=graph, classes=data.classes, preprocessing=data.preprocessing, ignore=data.ignore)
    return survey(papers, job.procedure.threads, job.recipe.narrowest, listener.say, budgets or [job.budget])


def cutter_of(
    run: Path, fabric: Fabric, job: Job, data: ImageSet, listener: Listener, found: Survey | None = None
) -> Cutter:
    """What cuts networks from the trained fabric of a run; channels that were not trained in an order are ranked.

    Where gates were trained, their probabilities are what edges are worth.
    """
    found = found or surveyed(fabric.graph, job, data, listener)
    source = fabric if job.recipe.subnetworks else ranked(fabric)
    worth = json.loads((run / GATES).read_text()) if job.recipe.gates != "none" else None
    return Cutter(source, data, found, job, listener.say, worth)


def extract_step(
    folder: Path,
    job: Job,
    data: ImageSet,
    listener: Listener,
    *,
    resume: bool = False,
    cutter: Cutter | None = None,
    share: float = 1.0,
    run: Path | None = None,
) -> Fabric:
    """The network cut from the trained fabric to the job's budget and fine-tuned, kept in a folder.

    That is the run's, unless the fabric is in another run's; of the budget's milliseconds a share may be taken.
    An earlier network of the folder is removed once the new one is cut; ``resume`` goes on with one that was cut to the
    same budget, and raises SettingError for another. Where fine-tuning made answers on validation
    images worse than chance explains, those that the search had not seen, the network is kept as it was before.
    """
    fabric, _ = load_fabric((run or folder) / "fabric")
    if not (resume and (folder / "cut" / GRAPH_FILE).is_file()):
        cutter = cutter or cutter_of(run or folder, fabric, job, data, listener)
        _cut_anew(folder, job, data, cutter, share, listener)
    elif noted(folder).get("asked") != str(job.budget):
        there = f"the network that is there was cut to {noted(folder).get('asked')}"
        raise SettingError(f"{folder}: {there}, now {job.budget}; without --resume it is replaced.")
    network, _ = load_fabric(folder / "cut")
    as_cut = score(network, data, data.verdict)
    refreshed = score(refresh(network, data, job.recipe), data, data.verdict)
    before, unseen = copy.deepcopy(network), Judge.unseen(data)
    on_val = score(network, unseen, "val")
    began = time.monotonic()
    _finetune(folder, job, data, fabric, network, listener, resume)
    tuned_on_val = score(network, unseen, "val")
    worse = tuned_on_val.surely_below(on_val)
    if worse:
        change = f"from {on_val.headline:.2%} to {tuned_on_val.headline:.2%}"
        apart = f"on {on_val.images} validation images kept apart for that"
        listener.say(f"fine-tuning took answers {change} {apart}: the network is kept as before; more epochs help")
        network = before
    network = without_dead_channels(network.cpu())
    save_fabric(folder, network, passport(network, data))
    spent = time.monotonic() - began
    finetuned = job.procedure.finetune > 0 and not worse
    scores = {"as_cut": asdict(as_cut), "refreshed": asdict(refreshed), "seconds": spent, "finetuned": finetuned}
    note(folder, network=network_facts(network, data) | noted(folder)["cut"] | scores)
    return network


def _cut_anew(folder: Path, job: Job, data: ImageSet, cutter: Cutter, share: float, listener: Listener) -> None:
    """The network just cut, kept so that a run that is resumed goes on with the same one."""
    small = cutter.cut(cutter.found.resolved(job.budget), share)
    remove_network(folder)
    _say_exits(cutter.fabric.graph, small.network.graph, listener.say)
    prediction, ceilings = cutter.found.prediction, cutter.found.resolved(job.budget).ceilings
    cut = {"predicted_ms": small.predicted_ms, "prediction_error": prediction.median_error}
    none = dict.fromkeys(("network", "exported", "anytime"))
    note(folder, cut=cut, worth=small.worth, budget=ceilings, asked=str(job.budget), **none)
    save_fabric(folder / "cut", small.network, passport(small.network, data))


def _say_exits(whole: Graph, smaller: Graph, say: Say) -> None:
    """Which exits are left, where the budget has taken some."""
    if len(smaller.heads) < len(whole.heads):
        kept, all_of = (", ".join(head.name for head in graph.heads) for graph in (smaller, whole))
        say(f"the budget leaves {len(smaller.heads)} of {len(whole.heads)} exits: {kept} of {all_of}")


def _finetune(
    folder: Path, job: Job, data: ImageSet, fabric: Fabric, network: Fabric, listener: Listener, resume: bool
) -> None:
    """Further epochs at a lower rate."""
    procedure = job.procedure
    if procedure.finetune == 0:
        return
    tuning = job.tuning(len(data.splits["train"]), data.task)
    teacher = fabric if tuning.distil else None
    said = estimate(network, data, tuning, teacher=teacher, device=procedure.device)
    listener.say(f"fine-tuning {len(network.graph.edges)} of {len(fabric.graph.edges)} edges takes {said}")
    train(
        network,
        data,
        tuning,
        folder=folder,
        stage="finetune",
        resume=resume,
        teacher=teacher,
        earlier=_rows_of_training(folder / "fabric.state.safetensors"),
        device=procedure.device,
        watch=listener.watch,
    )


def _rows_of_training(state: Path) -> list[Facts]:
    """The rows of the fabric's own training, where its state is in the same folder."""
    if not state.is_file():
        return []
    _, facts = read_tensors(state)
    rows: list[Facts] = json.loads(facts["progress"])["rows"]
    return rows


def export_step(folder: Path, job: Job, data: ImageSet) -> None:
    """The checked files of the network in a run folder, their latency measured.

    Raises BudgetError where the measured median is above the ceiling; the files are kept then.
    """
    network, papers = load_fabric(folder)
    apart = export(network, papers, data, folder)
    if len(network.graph.heads) > 1:
        apart = max(apart, _export_exits(folder, network, papers, data))
    write_predictor(folder)
    image = (papers.preprocessing.channels, *papers.preprocessing.size)
    found = measure(folder / "model.onnx", image, job.procedure.threads)
    note(
        folder,
        exported={
            "latency": asdict(found),
            "said": str(found),
            "largest_difference": apart,
            "onnx_bytes": (folder / "model.onnx").stat().st_size,
        },
    )
    wanted = noted(folder).get("budget", {}).get("latency_ms")
    if wanted is not None and found.median_ms > wanted:
        raise BudgetError(f"{folder / 'model.onnx'}: {found.median_ms:.3f} ms measured, {wanted:.3f} ms allowed.")


def _export_exits(folder: Path, network: Fabric, papers: Passport, data: ImageSet) -> float:
    """What each exit gives, noted, and for classification a file of each; the largest difference of logits."""
    facts = anytime_facts(network, data, data.verdict)
    note(folder, anytime=facts)
    if data.task == "segmentation":
        return 0.0
    return export_stages(network, papers, data, folder, facts["recommended"]["limits"])


def report_step(folder: Path, data: ImageSet) -> Path:
    """``report.html`` of a run folder, from what was noted and what the network answers."""
    network, papers = load_fabric(folder)
    if not noted(folder).get("exported"):
        raise ArchiveError(f"{folder}: not exported yet; convfabric export {folder} does it.")
    fabric, _ = load_fabric(folder / "fabric")
    return write_report(folder, noted(folder), fabric.graph, network, papers, data)


def run_job(
    job: Job,
    folder: Path,
    *,
    force: bool = False,
    resume: bool = False,
    listener: Listener | None = None,
    data: ImageSet | None = None,
) -> Facts:
    """Train, cut, fine-tune, export and report; returns what was noted.

    Where the exported file turns out slower than its budget, a smaller network is cut, twice at most.
    Raises what the steps raise: nothing is returned that does not meet its budget.
    """
    if process_count() > 1:
        raise SettingError("fit runs in one process; share out train with torchrun, then extract, export and report.")
    listener = listener or Listener()
    check_may_begin(folder, job, force=force, resume=resume)
    if resume and not folder.exists():
        listener.say(f"{folder}: nothing to go on with, so a new run begins")
    data = data or opened(job)
    say_data(data, listener.say)
    if not job.budget.ceilings:
        stays = "every edge stays and is fine-tuned; operations are timed for networks that are cut later"
        listener.say(f"no budget was given (see --latency-ms, --macs, --params, --memory-mb): {stays}")
    found = None
    if not (resume and (folder / "cut" / GRAPH_FILE).is_file()):
        listener.say(said_stages(job))
        found = surveyed(woven(job, data), job, data, listener)
    begin(folder, job, force=force, resume=resume)
    fabric = train_step(folder, job, data, listener, resume=resume)
    cutter = None if found is None else cutter_of(folder, fabric, job, data, listener, found)
    network_step(folder, job, data, listener, resume=resume, cutter=cutter)
    report_step(folder, data)
    return noted(folder)


def network_step(
    folder: Path,
    job: Job,
    data: ImageSet,
    listener: Listener,
    *,
    resume: bool = False,
    cutter: Cutter | None = None,
    run: Path | None = None,
) -> None:
    """The network of a budget, exported: where the file turns out slower than that, a smaller one, twice at most.

    Raises BudgetError where that is still too slow.
    """
    share = 1.0
    for attempts_left in (2, 1, 0):
        first = resume and attempts_left == 2
        extract_step(folder, job, data, listener, resume=first, cutter=cutter, share=share, run=run)
        listener.say("writing model.onnx and model.pt2, and checking them on validation images")
        try:
            export_step(folder, job, data)
            return
        except BudgetError as over:
            if attempts_left == 0:
                raise
            listener.say(f"{over} Taking a smaller network.")
            share *= _overshoot(noted(folder))


def _overshoot(record: Mapping[str, Any]) -> float:
    """By how much the ceiling of milliseconds has to come down, from how far the file was above it."""
    ratio = float(record["budget"]["latency_ms"] / record["exported"]["latency"]["median_ms"])
    return HEADROOM * min(0.97, ratio)


def fit(
    data: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    force: bool = False,
    resume: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> Facts:
    """The whole job from Python: ``fit("photos/", latency_ms=5)``; returns what was noted in record.json.

    ``data`` is what :func:`convfabric.data.opening.open_data` takes, map-style data sets by split included;
    ``settings`` are those of ``config.yaml``. The run folder is ``out``, by default runs/ and the name of the data.
    Raises ConvfabricError of every kind; BudgetError where no network meets the budget.
    """
    named = data if isinstance(data, str | Path) else "datasets"
    job = job_from({"data": str(named), **settings})
    images = None if isinstance(data, str | Path) else open_data(data, job.options)
    return run_job(
        job,
        default_folder(named) if out is None else Path(out),
        force=force,
        resume=resume,
        listener=listener,
        data=images,
    )
