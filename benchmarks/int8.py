"""The same budget in float32, in int8, and in whichever answers best: accuracy and milliseconds.

    python benchmarks/int8.py --data DATA --json F --work W --budgets 0.2 --minutes 6 --seeds 0 1 2     resumable
    python benchmarks/int8.py --data DATA --json F --work W --budgets 2 --minutes 6 --network timm:NAME --weights FILE

Every run has as many minutes for training and fine-tuning. The test split is read once a network. Milliseconds are
measured in turns through all files at the end, one thread.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx

from convfabric.exporting.int8 import INT8_FILE
from convfabric.latency.devices import measure
from convfabric.runs.record import read_record
from records import write_record

PRECISIONS = ("float32", "int8", "auto")
TURNS = 5
Row = dict[str, Any]


def fitted(said: argparse.Namespace, budget: float, precision: str, seed: int) -> Row:
    """One run, begun or gone on with, and what it came to."""
    run = said.work / f"{said.data.name}-{budget:g}-{precision}-{seed}"
    words: list[object] = ["fit", said.data, "--out", run, "--latency-ms", budget, "--precision", precision]
    words += ["--seed", seed, "--minutes", said.minutes, *(["--resume"] if run.is_dir() else [])]
    for name in ("network", "weights", "size"):
        words += [f"--{name}", getattr(said, name)] if getattr(said, name) else []
    words += ["--weights-in-order"] * bool(said.weights)
    words += [part for change in said.set for part in ("--set", change)]
    subprocess.run([sys.executable, "-m", "convfabric", *map(str, words)], check=True)
    record = read_record(run).done("cut", "network", "exported")
    assert record.cut is not None
    assert record.network is not None
    assert record.exported is not None
    assert record.delivered is not None
    small = record.exported.int8
    return {
        "budget ms": budget,
        "precision": precision,
        "seed": seed,
        "delivered": record.exported.precision,
        "test %": round(100 * record.delivered.headline, 2),
        "balanced %": round(100 * (record.delivered.balanced_accuracy or 0.0), 2),
        "most frequent %": round(100 * record.delivered.largest, 2),
        "test in float32 %": round(100 * record.network.score.headline, 2),
        "lost on val, points": round(100 * (small.val_score_float32.headline - small.val_score.headline), 2)
        if small
        else "",
        "layers in float32": f"{small.float32_layers} of {small.layers}" if small else "",
        "M MACs": round(record.network.macs / 1e6, 2),
        "file": str(run / (INT8_FILE if small else "model.onnx")),
    }


def time_all(rows: list[Row]) -> None:
    """The milliseconds of every delivered file, measured in turns: the median of the turns."""
    shapes = [onnx.load(row["file"]).graph.input[0].type.tensor_type.shape.dim for row in rows]
    images = [tuple(side.dim_value for side in shape[1:]) for shape in shapes]
    turns = [
        [measure(Path(row["file"]), image).median_ms for row, image in zip(rows, images, strict=True)]
        for _ in range(TURNS)
    ]
    for row, *took in zip(rows, *turns, strict=True):
        row["ms"] = round(statistics.median(took), 4)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--budgets", type=float, nargs="+", required=True)
    words.add_argument("--minutes", type=float, required=True, help="of training and fine-tuning, for each run")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--network", default="")
    words.add_argument("--weights", default="")
    words.add_argument("--size", default="")
    words.add_argument("--set", nargs="*", default=[], help="NAME=VALUE of fit, for all")
    words.add_argument("--record", action="store_true", help="write a dated record into results")
    said = words.parse_args()
    rows: list[Row] = json.loads(said.json.read_text()) if said.json.is_file() else []
    done = {(row["budget ms"], row["precision"], row["seed"]) for row in rows}
    asked = [(budget, name, seed) for seed in said.seeds for budget in said.budgets for name in PRECISIONS]
    for budget, precision, seed in asked:
        if (budget, precision, seed) not in done:
            rows.append(fitted(said, budget, precision, seed))
            said.json.write_text(json.dumps(rows, indent=1))
    time_all(rows)
    said.json.write_text(json.dumps(rows, indent=1))
    means = []
    for budget in said.budgets:
        for precision in PRECISIONS:
            here = [row for row in rows if (row["budget ms"], row["precision"]) == (budget, precision)]
            accuracy, ms = (statistics.fmean(row[name] for row in here) for name in ("test %", "ms"))
            means.append(f"{budget:g} ms {precision:8} {accuracy:.2f} % in {ms:.3f} ms, {len(here)} seeds")
    print("\n".join(means))
    if said.record:
        about = (
            f"{said.data.name}, {said.network or 'the fabric that the budget asks for'}; {said.minutes:g} minutes of "
            "training and fine-tuning each. Milliseconds: ONNX Runtime, one thread, the median of "
            f"{TURNS} turns through all files."
        )
        table = [{name: value for name, value in row.items() if name != "file"} for row in rows]
        print(write_record(f"int8-{said.data.name.lower()}", [about, "", *means], table))


if __name__ == "__main__":
    main()
