"""Lines that announce a job before and while it runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from convfabric.data.imageset import ImageSet
from convfabric.errors import NoRouteError
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.progress import Say
from convfabric.runs.job import Job
from convfabric.training.loop import GATES
from convfabric.training.objectives import sizes_of


def said_stages(job: Job) -> str:
    """The stages of a fit, announced before it begins.

    >>> from convfabric.runs.job import job_from
    >>> said_stages(job_from({"data": "photos", "macs": "25%", "finetune": 0.5}))
    'to come: measuring, training, trying 64 sub-networks, fine-tuning for 0.5 times the epochs, export'
    """
    procedure, stages = job.procedure, ["measuring", "training"]
    if job.budget.ceilings and procedure.search == "evolution":
        stages.append(f"trying {procedure.trials} sub-networks")
    if procedure.finetune:
        longer = f", up to {procedure.finetune_most:g} times as many where they cost less"
        said = f"fine-tuning for {procedure.finetune:g} times the epochs"
        stages.append(said + longer * (procedure.finetune_most > 1))
    return f"to come: {', '.join(stages)}, export"


def said_parts(graph: Graph, job: Job, data: ImageSet) -> str:
    """Cost of training with sub-networks, as a multiple of training the whole alone.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.runs.job import job_from
    >>> from convfabric.weavers import weave
    >>> said_parts(weave("resnet-20"), job_from({"data": "digits", "network": "resnet-20"}), open_data("digits"))
    ''
    """
    image, recipe = data.preprocessing.size, job.recipe
    if not recipe.subnetworks:
        return ""
    share = Sampler.of(graph, recipe.narrowest, image).mean_share(lambda part: costs(part, image).macs)
    sizes = sizes_of(graph, recipe, image)
    smaller = fmean(costs(graph, size).macs for size in sizes) / costs(graph, image).macs
    return f"; with sub-networks it is {1 + recipe.subnetworks * share * smaller:.2f} times the MACs of the whole alone"


def said_gates(run: Path, graph: Graph, job: Job, data: ImageSet) -> str:
    """Open edges and costs that gates ended at, beside their target."""
    image, recipe = data.preprocessing.size, job.recipe
    likely = json.loads((run / GATES).read_text())
    kept = [name for name, value in likely.items() if value > 0.5]
    said = f"gates: {len(kept)} of {len(likely)} edges open"
    try:
        share = costs(graph.restrict(kept), image).macs / costs(graph, image).macs
    except NoRouteError:
        return f"{said}, and no way leads through them"
    kind = {"macs": "MACs", "params": "parameters", "steps": "steps"}[recipe.gate_cost]
    return f"{said}, {share:.0%} of the fabric's MACs; the target was {recipe.gate_target:.0%} of its {kind}"


def say_data(data: ImageSet, say: Say) -> None:
    """Size, classes and notes of data, in a few lines.

    >>> from convfabric.data.opening import open_data
    >>> say_data(open_data("digits"), print)
    digits: classification, 1,259 train, 269 val, 269 test images, 1×8×8 (C×H×W)
    10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
    test and val drawn with seed 0
    """
    height, width = data.preprocessing.size
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    names = ", ".join(data.classes[:12]) + (", ..." if len(data.classes) > 12 else "")
    say(f"{data.name}: {data.task}, {counts} images, {data.preprocessing.channels}×{height}×{width} (C×H×W)")
    say(f"{len(data.classes)} classes: {names}")
    for line in data.notes:
        say(line)


def said_fact(fact: Any) -> str:
    """A fact of data for people.

    >>> said_fact({"train": 105, "val": 22}), said_fact([40, 30])
    ('105 train, 22 val', '40, 30')
    """
    counts = fact.items() if isinstance(fact, Mapping) else ()
    listed = [f"{count} {name}" for name, count in counts] or (fact if isinstance(fact, list) else [fact])
    return ", ".join(map(str, listed))
