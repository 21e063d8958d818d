"""How well networks are chosen for a board: predictions there, budgets met there, and what it would do with the PC's.

    python benchmarks/board.py --run RUN --device ssh:user@host:PYTHON --work WORK --json F [--kit COMMAND] [--record]

RUN is trained (convfabric train). Predictions are held against sub-networks that they were not fitted to; each budget
is cut by ``convfabric curve`` without fine-tuning, which refuses what it measures to be too slow, and the network that
leaves the house is timed anew on the board and here. With ``--kit`` the same goes by a folder that is carried there and
back: COMMAND is a Python of the board that runs what lies in it.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convfabric.choice import Budget
from convfabric.errors import BudgetError, UntimedError
from convfabric.fabric.archive import load_fabric
from convfabric.latency.devices import device_of, measure
from convfabric.latency.survey import Survey
from convfabric.latency.target import HERE, Target
from convfabric.pipeline.budget_curve import curve
from convfabric.pipeline.cutters import surveyed
from convfabric.pipeline.inputs import reopened
from convfabric.progress import Listener
from convfabric.runs.folder import is_exported, job_of
from convfabric.runs.job import Job
from convfabric.runs.record import read_record
from records import write_record

HELD_OUT, BUDGETS = 30, 20
SECONDS = 0.4
Row = dict[str, Any]
SAYING = Listener(say=partial(print, flush=True))


@dataclass(frozen=True)
class Way:
    """A way to a board, or to this machine, and a run of its own."""

    name: str
    run: Path
    job: Job
    timed: Target
    """What times the networks in the end."""
    carried: Sequence[str] = ()
    """The command that times what lies in a kit."""

    def waited(self, work: Any) -> Any:
        """What a function gives, once a kit has timed what it asks for."""
        while True:
            try:
                return work()
            except UntimedError as waiting:
                if not self.carried:
                    raise
                print(waiting, flush=True)
                subprocess.run(
                    [*self.carried, Path(self.job.target.device.removeprefix("kit:")) / "timing.py"], check=True
                )


def survey_of(way: Way, target: Target | None = None) -> Survey:
    """The survey of a run's fabric on a way's device, or on another."""
    graph, data = load_fabric(way.run / "fabric")[0].graph, reopened(way.run, way.job)
    found: Survey = way.waited(lambda: surveyed(graph, way.job, data, SAYING, [Budget()], target))
    return found


def predictions(found: Survey, timer: Survey) -> tuple[float, float]:
    """The median and the largest of |predicted / measured - 1| over sub-networks that nothing was fitted to."""
    dice, seen, errors = random.Random(1), set(found.prediction.measured), list[float]()
    while len(errors) < HELD_OUT:
        graph = found.sampler.draw(dice)
        if graph not in seen:
            seen.add(graph)
            took = min(timer.again(graph).fastest_block_ms for _ in range(2))
            errors.append(abs(found.prediction.milliseconds(graph) / took - 1))
    return statistics.median(errors), max(errors)


def folder_of(way: Way, budget: float) -> Path:
    return way.run / "curve" / f"latency_ms-{budget:g}"


def delivered(way: Way, budgets: Sequence[float]) -> dict[float, str]:
    """Networks for as many of the budgets as there is one, on the disk; of the others why there is none."""
    procedure, refused = way.job.procedure, dict[float, str]()
    shared: Any = {"device": procedure.device, "precision": procedure.precision, "trials": procedure.trials}
    shared |= {"listener": SAYING, "finetune": 0.0, "finalists": 1}
    while todo := [b for b in budgets if b not in refused and not is_exported(folder_of(way, b))]:
        try:
            way.waited(lambda: curve(way.run, "latency_ms", todo, **shared))
        except BudgetError as fault:
            at = next(
                b for b in todo if not is_exported(folder_of(way, b)) or not read_record(folder_of(way, b)).budget_met
            )
            refused[at] = str(fault)
    return refused


def rows_of(way: Way, other: Target, budgets: Sequence[float]) -> list[Row]:
    """A network for each budget, with its times on the way's device and on another."""
    refused, rows = delivered(way, budgets), list[Row]()
    for budget in budgets:
        row: Row = {"device": way.name, "budget ms": budget, "met": False, "said": refused.get(budget, "")}
        if budget not in refused:
            row |= timed_row(folder_of(way, budget), (way.timed, other), budget)
        rows.append(row)
        print(row, flush=True)
    return rows


def timed_row(folder: Path, targets: Sequence[Target], budget: float) -> Row:
    """What was said of a delivered network, and what it takes on the first of two targets and on the other."""
    record = read_record(folder)
    assert record.data
    assert record.exported
    assert record.network
    precision = record.exported.precision
    file = folder / ("model.int8.onnx" if precision == "int8" else "model.onnx")
    image = (record.data.channels, *record.data.size)
    there, elsewhere = (
        min(measure(file, image, replace(target, precision=precision), SECONDS).median_ms for _ in range(2))
        for target in targets
    )
    return {
        "ms said": round(record.exported.latency.median_ms, 4),
        "ms there": round(there, 4),
        "ms on the other": round(elsewhere, 4),
        "met": there <= budget,
        f"{record.data.scored_split} %": round(100 * record.network.score.accuracy, 2),
    }


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--run", type=Path, required=True)
    words.add_argument("--device", required=True)
    words.add_argument("--kit", nargs="*", default=[], help="a command of the board's that runs a Python file")
    words.add_argument("--precision", default="float32")
    words.add_argument("--trials", type=int, default=24)
    words.add_argument("--budgets", type=int, default=BUDGETS)
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--only", nargs="*", default=[], help="board, here, kit; what the JSON has is kept")
    words.add_argument("--record", action="store_true", help="write a dated record into results")
    said = words.parse_args()
    before: dict[str, Any] = json.loads(said.json.read_text()) if said.json.is_file() else {"rows": [], "said": []}
    rows, lines = before["rows"], before["said"]
    ways = ways_of(said)
    here, board = ways["here"].job.target, ways["board"].job.target
    timers = {name: survey_of(ways[name]) for name in ("here", "board")}
    for name in said.only or [name for name in ways if all(row["device"] != name for row in rows)]:
        way = ways[name]
        timer = timers["here" if name == "here" else "board"]
        found = timers.get(name) or survey_of(way)
        median, worst = predictions(found, timer)
        whole = load_fabric(way.run / "fabric")[0].graph
        ends = [timer.again(graph).median_ms for graph in (found.sampler.smallest, whole)]
        budgets = [float(f"{b:.3g}") for b in np.geomspace(1.15 * ends[0], 0.95 * ends[1], said.budgets)]
        rows += (found_rows := rows_of(way, board if name == "here" else here, budgets))
        met = sum(bool(row["met"]) for row in found_rows)
        lines.append(
            f"{name} ({device_of(way.timed).identity(way.timed)}): predictions off by {median:.1%} in the median of "
            f"{HELD_OUT} held-out sub-networks, {worst:.0%} at most; {met} of {len(budgets)} budgets met there."
        )
        said.json.write_text(json.dumps({"rows": rows, "said": lines}, indent=1))
    print("\n".join(lines))
    if said.record:
        columns = dict.fromkeys(name for row in rows for name in row)
        print(write_record(f"board-{said.precision}", lines, [{n: row.get(n, "") for n in columns} for row in rows]))


def ways_of(said: argparse.Namespace) -> dict[str, Way]:
    """The ways to be tried, each with a copy of the run."""
    job, ways = job_of(said.run), dict[str, Way]()
    devices = {"board": said.device, "here": HERE} | ({"kit": f"kit:{said.work / 'carried'}"} if said.kit else {})
    for name, device in devices.items():
        shared: dict[str, Any] = {"precision": said.precision, "trials": said.trials, "device": device}
        its = replace(job, procedure=replace(job.procedure, **shared))
        run = said.work / name
        if not run.is_dir():
            shutil.copytree(said.run, run)
        timed = ways["board"].job.target if name == "kit" else its.target
        ways[name] = Way(name, run, its, timed, said.kit if name == "kit" else ())
    return ways


if __name__ == "__main__":
    main()
