"""What is said and noted of data and networks."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convfabric.graph.costs import costs, peak_bytes
from convfabric.data.imageset import ImageSet
from convfabric.errors import NoRouteError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.runs.job import Job
from convfabric.runs.folder import Facts
from convfabric.graph.subnetworks import Sampler
from convfabric.evaluation.scoring import Score, score
from convfabric.training.loop import GATES

Say = Callable[[str], None]


def said_stages(job: Job) -> str:
    """What a fit goes through, before it begins.

    >>> from convfabric.runs.job import job_from
    >>> said_stages(job_from({"data": "photos", "macs": "25%", "finetune": 0.5}))
    'to come: measuring, training, trying 64 sub-networks, fine-tuning for 0.5 times the epochs, export'
    """
    procedure, stages = job.procedure, ["measuring", "training"]
    if job.budget.ceilings and procedure.search == "evolution":
        stages.append(f"trying {procedure.trials} sub-networks")
    if procedure.finetune:
        stages.append(f"fine-tuning for {procedure.finetune:g} times the epochs")
    return f"to come: {', '.join(stages)}, export"


def said_parts(graph: Graph, job: Job, data: ImageSet) -> str:
    """What sub-networks in training cost, as a multiple of training the whole alone."""
    image, recipe = data.preprocessing.size, job.recipe
    if not recipe.subnetworks:
        return ""
    share = Sampler.of(graph, recipe.narrowest, image).mean_share(lambda part: costs(part, image).macs)
    return f"; with sub-networks it is {1 + recipe.subnetworks * share:.2f} times the MACs of the whole alone"


def said_gates(run: Path, graph: Graph, job: Job, data: ImageSet) -> str:
    """What the gates of a run came to, beside what they were to."""
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
    """What was found, inferred and converted, in a few lines."""
    height, width = data.preprocessing.size
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    names = ", ".join(data.classes[:12]) + (", ..." if len(data.classes) > 12 else "")
    say(f"{data.name}: {data.task}, {counts} images, {data.preprocessing.channels}×{height}×{width} (C×H×W)")
    say(f"{len(data.classes)} classes: {names}")
    for line in data.notes:
        say(line)


def data_facts(data: ImageSet) -> Facts:
    """What a report says of the data."""
    return {
        "name": data.name,
        "task": data.task,
        "classes": list(data.classes),
        "images": {name: len(split) for name, split in data.splits.items()},
        "size": list(data.preprocessing.size),
        "channels": data.preprocessing.channels,
        "digest": data.digest,
        "notes": list(data.notes),
        "verdict": data.verdict,
    }


def said_fact(fact: Any) -> str:
    """A fact of data for people.

    >>> said_fact({"train": 105, "val": 22}), said_fact([40, 30])
    ('105 train, 22 val', '40, 30')
    """
    counts = fact.items() if isinstance(fact, Mapping) else ()
    listed = [f"{count} {name}" for name, count in counts] or (fact if isinstance(fact, list) else [fact])
    return ", ".join(map(str, listed))


def network_facts(network: Fabric, data: ImageSet) -> Facts:
    """Edges, costs and scores of a network."""
    image = data.preprocessing.size
    found: Score = score(network, data, data.verdict)
    return {
        "edges": len(network.graph.edges),
        **asdict(costs(network.graph, image)),
        "peak_bytes": peak_bytes(network.graph, image),
        "score": asdict(found),
        "val_score": asdict(score(network, data, "val")),
    }
