"""Time and memory of a training run, estimated before its first step."""

import copy
import time
from dataclasses import dataclass
from itertools import chain, islice

from convfabric.data.imageset import ImageSet
from convfabric.fabric.module import Fabric
from convfabric.graph.costs import FLOAT_BYTES, costs
from convfabric.progress import said_time
from convfabric.training.loop import Run
from convfabric.training.recipe import Recipe
from convfabric.training.teachers import Teacher

TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Minutes of training on this machine, and megabytes of memory; both rough."""

    minutes: float
    memory_mb: float
    epochs: int
    batch: int
    plan: str

    def __str__(self) -> str:
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        takes = said_time(60 * self.minutes)
        return f"about {takes} and {self.memory_mb:.0f} MB: {epochs}, batch {self.batch}, {self.plan}"


def estimate(
    fabric: Fabric, data: ImageSet, recipe: Recipe, teacher: Fabric | Teacher | None = None, device: str = "auto"
) -> Estimate:
    """From three steps of a copy of the fabric (the first one not counted), and arithmetic for the memory.

    The memory is that of weights, gradients, momentum and of every response of one part of a batch,
    which the backward pass needs; the interpreter and the data come on top.
    """
    run = Run(copy.deepcopy(fabric), data, recipe.changed(growing=1.0), teacher=teacher, device=device)
    batches = chain.from_iterable(run.batches(epoch, 0) for epoch in range(TIMED_STEPS))
    began = 0.0
    for step, (images, targets) in enumerate(islice(batches, TIMED_STEPS)):
        run.take_step(run.model, images, targets)
        if step == 0:
            began = time.monotonic()
    seconds = (time.monotonic() - began) / (TIMED_STEPS - 1)
    found = costs(fabric.graph, data.preprocessing.size)
    responses = found.activation_bytes * (run.batch // run.parts) * (0.5 if run.plan.bfloat16 else 1.0) * 2
    return Estimate(
        minutes=seconds * run.steps * recipe.mean_area / 60,
        memory_mb=(found.parameters * FLOAT_BYTES * 3 + responses) / 1e6,
        epochs=run.recipe.epochs,
        batch=run.batch,
        plan=str(run.plan),
    )
