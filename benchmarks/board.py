"""How well networks are chosen for a board: predictions there, budgets met there, and what it would do with the PC's.

    python benchmarks/board.py --run RUN --device ssh:user@host:PYTHON --json F [--precision int8] [--record]

RUN is trained (convfabric train). Predictions are held against sub-networks that they were not fitted to; each budget
is cut by search, without fine-tuning, and the network that leaves the house timed anew on the board and here.
"""

import argparse
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convfabric.choice import Budget
from convfabric.errors import BudgetError
from convfabric.execution.folding import as_delivered
from convfabric.execution.quantisation import prepared, quantised
from convfabric.exporting.program import on_cpu
from convfabric.fabric.archive import Passport, load_fabric, passport
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.module import Fabric
from convfabric.latency.devices import device_of, measure
from convfabric.latency.drafts import drafted
from convfabric.latency.target import HERE, Target
from convfabric.pipeline.cutters import Cutters, Surveys
from convfabric.pipeline.inputs import reopened
from convfabric.progress import Listener
from convfabric.runs.folder import job_of
from convfabric.runs.job import Job
from records import write_record

HELD_OUT, BUDGETS = 30, 20
SECONDS = 0.4
Row = dict[str, Any]


def file_of(network: Fabric, papers: Passport, target: Target) -> bytes:
    """The network as it leaves the house, in the numbers of a target."""
    import torch

    example = torch.zeros(1, papers.preprocessing.channels, *papers.preprocessing.size)
    model = drafted(Deployable(as_delivered(on_cpu(network)), papers), example)
    pixels = 255 * np.random.default_rng(0).random(tuple(example.shape), np.float32)
    return quantised(prepared(model), [pixels]) if target.precision == "int8" else model


def predictions(surveys: Surveys) -> tuple[float, float]:
    """The median and the largest of |predicted / measured - 1| over sub-networks that nothing was fitted to."""
    found = surveys.at(surveys.first)
    dice, seen, errors = random.Random(1), set(found.prediction.measured), list[float]()
    while len(errors) < HELD_OUT:
        graph = found.sampler.draw(dice)
        if graph not in seen:
            seen.add(graph)
            took = min(found.again(graph).fastest_block_ms for _ in range(2))
            errors.append(abs(found.prediction.milliseconds(graph) / took - 1))
    return statistics.median(errors), max(errors)


def rows_of(run: Path, job: Job, other: Job) -> tuple[list[Row], str]:
    """A network for each budget, with its times on the job's device and on another's; and how predictions did."""
    say = Listener(say=lambda text: print(text, flush=True))
    fabric, data = load_fabric(run / "fabric")[0], reopened(run, job)
    surveys = Surveys(fabric.graph, job, data, say, [Budget()])
    median, worst = predictions(surveys)
    found, cutters = surveys.at(surveys.first), Cutters(run, fabric, surveys)
    ends = [found.measured(graph).median_ms for graph in (found.sampler.smallest, fabric.graph)]
    rows = []
    for budget in np.geomspace(1.15 * ends[0], 0.95 * ends[1], BUDGETS):
        row: Row = {"device": HERE if job.target.device == HERE else "board", "budget ms": round(float(budget), 4)}
        try:
            cut = cutters.first.cut(Budget(latency_ms=float(budget)))
        except BudgetError as fault:
            rows.append({**row, "met": False, "said": str(fault)})
            continue
        papers = passport(cut.network, data)
        image = (papers.preprocessing.channels, *papers.preprocessing.size)
        times = [
            min(measure(file_of(cut.network, papers, one), image, one, SECONDS).median_ms for _ in range(2))
            for one in (job.target, other.target)
        ]
        rows.append(
            {
                **row,
                "ms there": round(times[0], 4),
                "ms on the other": round(times[1], 4),
                "met": bool(times[0] <= budget),
                "fitness": round(cutters.first.material.tried.get(cut.network.graph, float("nan")), 4),
                "edges": len(cut.network.graph.edges),
                "said": "",
            }
        )
        print(rows[-1], flush=True)
    met = sum(bool(row["met"]) for row in rows)
    said = (
        f"{device_of(job.target).identity(job.target)}: predictions off by {median:.1%} in the median of {HELD_OUT} "
        f"held-out sub-networks, {worst:.0%} at most; {met} of {len(rows)} budgets met as measured there."
    )
    return rows, said


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--run", type=Path, required=True)
    words.add_argument("--device", required=True)
    words.add_argument("--precision", default="float32")
    words.add_argument("--trials", type=int, default=24)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--record", action="store_true", help="write a dated record into results")
    said = words.parse_args()
    job = job_of(said.run)
    shared: dict[str, Any] = {"precision": said.precision, "trials": said.trials}
    there, here = (
        replace(job, procedure=replace(job.procedure, device=device, **shared)) for device in (said.device, HERE)
    )
    rows, lines = [], []
    for one, other in ((there, here), (here, there)):
        found, line = rows_of(said.run, one, other)
        rows += [{name: row.get(name, "") for name in found[-1]} for row in found]
        lines.append(line)
        said.json.write_text(json.dumps({"rows": rows, "said": lines}, indent=1))
    print("\n".join(lines))
    if said.record:
        print(write_record(f"board-{said.precision}", lines, rows))


if __name__ == "__main__":
    main()
