"""Training for benchmarks: resumable, and with the minutes it took."""

import json
import time
from pathlib import Path

import torch

from convfabric.data.imageset import ImageSet
from convfabric.fabric.archive import load_fabric, passport, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.progress import Moment
from convfabric.training.loop import Run, train
from convfabric.training.recipe import Recipe

SIZE = (32, 32)
TIMED_STEPS = 20
Minutes = tuple[float, float]
"""Of processor time of the process, all cores added, and of the clock on the wall."""


def timed_fabric(graph: Graph, data: ImageSet, recipe: Recipe, work: Path, device: str) -> tuple[Fabric, Minutes]:
    """The fabric of a graph from random weights, trained or found trained in a folder, and the minutes it took."""
    torch.manual_seed(recipe.seed)
    return timed_training(Fabric(graph), data, recipe, work, device)


def timed_training(fabric: Fabric, data: ImageSet, recipe: Recipe, work: Path, device: str) -> tuple[Fabric, Minutes]:
    """A fabric as trained, or found trained in a folder, and the minutes that training took.

    A run that was stopped adds to the minutes it had taken.
    """
    times = work / "minutes.json"
    cpu_before, wall_before = json.loads(times.read_text()) if times.is_file() else (0.0, 0.0)
    if (work / "graph.json").is_file():
        return load_fabric(work)[0], (cpu_before, wall_before)
    cpu, wall = time.process_time(), time.time()

    def minutes() -> Minutes:
        return cpu_before + (time.process_time() - cpu) / 60, wall_before + (time.time() - wall) / 60

    def watch(moment: Moment) -> None:
        said_epoch(moment)
        if moment.row:
            times.write_text(json.dumps(minutes()))

    work.mkdir(parents=True, exist_ok=True)
    train(fabric, data, recipe, folder=work, resume=True, device=device, watch=watch)
    spent = minutes()
    times.write_text(json.dumps(spent))
    save_fabric(work, fabric.cpu(), passport(fabric, data))
    return fabric, spent


def epochs_for(graph: Graph, data: ImageSet, recipe: Recipe, minutes: float, device: str) -> int:
    """Epochs that take so many minutes of processor time, from a few steps of a fabric that is thrown away."""
    run = Run(Fabric(graph), data, recipe.changed(epochs=1), device=device)
    began, taken = time.process_time(), 0
    for step, (images, targets) in enumerate(run.batches(0, 0)):
        if step == 2:
            began = time.process_time()
        run.take_step(run.model, images, targets)
        taken = max(0, step - 1)
        if taken == TIMED_STEPS:
            break
    seconds = (time.process_time() - began) / max(1, taken)
    return max(1, int(minutes * 60 / (seconds * run.steps_an_epoch)))


def said_epoch(moment: Moment) -> None:
    """A line for each epoch, and for every fiftieth step."""
    if moment.row:
        print(moment.row, f"{moment.images_per_second:.0f} images/s", flush=True)
    elif moment.step % 50 == 0:
        print(f"{moment.stage} step {moment.step}/{moment.steps} loss {moment.loss:.4f}", flush=True)
