"""What a contest came to: rows of finished networks, those of earlier records, milliseconds in turns, a drawing.

Networks are kept beside the record without their weights, so that all can be measured again, on any machine.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean, pstdev, quantiles
from typing import Any

import numpy as np
import onnx
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convfabric.data.imageset import ImageSet
from convfabric.latency.devices import measure
from records import write_record
from rivals import VERSIONS

ROUNDS, SAMPLE_SECONDS = 15, 0.05
COLUMNS = (
    *("network", "budget M MACs", "seed", "M MACs", "ms", "quartiles apart"),
    *("test %", "val %", "CPU minutes", "rate", "measured"),
)
SAME = ("images", "tera_macs", "recipe", "rates")
"""What of the configuration has to be equal for rows of an earlier record to stand beside new ones."""
Row = dict[str, Any]
Key = tuple[str, float, int]
"""Network, budget in M MACs, seed."""


def _name(numbers: Mapping[str, Any]) -> str:
    return f"accuracy-per-ms-{numbers['name'].split()[0].lower()}"


def earlier(numbers: Mapping[str, Any], results: Path) -> list[Row]:
    """The rows of the last record of the same contest; none where its configuration was another."""
    records = sorted(results.glob(f"*-{_name(numbers)}.csv"))
    if not records:
        return []
    said = re.search(r"^Configuration: (\{.*\})\.$", records[-1].with_suffix(".md").read_text(), re.MULTILINE)
    before = json.loads(said[1]) if said else {}
    if any(before.get(name) != numbers[name] for name in SAME):
        return []
    with records[-1].open(newline="") as file:
        rows = [_read(row, records[-1].name[: len("2026-01-01")]) for row in csv.DictReader(file)]
    return [row for row in rows if _described(row["network"], before) == _described(row["network"], numbers)]


def is_ours(name: str, numbers: Mapping[str, Any]) -> bool:
    """Whether a contestant's networks are cut to a budget from a fabric, all from one training."""
    return "subnetworks" in numbers.get(name, {})


def _described(name: str, numbers: Mapping[str, Any]) -> Any:
    """What a configuration says of one contestant's networks, whichever there are to be."""
    return {key: value for key, value in _part(name, numbers).items() if key not in ("budgets", "seeds")}


def _part(name: str, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is about a contestant; random networks are drawn from the fabric."""
    name = "fabric" if name == "random" else name
    found: Mapping[str, Any] = numbers["plain"].get(name, numbers.get(name, {}))
    return found


def budgets_of(name: str, numbers: Mapping[str, Any]) -> list[float]:
    """Those that a contestant has networks for, in M MACs."""
    return list(_part(name, numbers).get("budgets", numbers["budgets"]))


def middle_of(numbers: Mapping[str, Any]) -> float:
    """The budget in the middle, where rates are tried."""
    budgets: list[float] = numbers["budgets"]
    return budgets[len(budgets) // 2]


def seeds_of(name: str, numbers: Mapping[str, Any]) -> list[int]:
    """Those that a contestant is trained with."""
    return list(_part(name, numbers).get("seeds", numbers["seeds"]))


def finished(work: Path, known: Collection[Row]) -> dict[Key, Row]:
    """The rows of all networks that are there: in the folder of the contest, or else in its last record."""
    there = [json.loads(file.read_text()) for file in sorted(work.glob("seed-*/*/row.json"))]
    return {key_of(row): row for row in (*known, *there)}


def given_up(rows: Collection[Row], numbers: Mapping[str, Any]) -> dict[str, float]:
    """Others that are not trained further, and by how many points of val they were behind the best of ours.

    That is so if it was more than the configuration's ``given_up``, at the middle budget and of the first seed.
    """
    middle, first = middle_of(numbers), numbers["seeds"][0]
    found = {name: row["val %"] for row in rows for name, *of in [key_of(row)] if of == [middle, first]}
    best = max((value for name, value in found.items() if is_ours(name, numbers)), default=0.0)
    others = {name: best - value for name, value in found.items() if not is_ours(name, numbers)}
    return {name: behind for name, behind in others.items() if behind > numbers.get("given_up", float("inf"))}


def _read(texts: Mapping[str, str], measured: str) -> Row:
    row: Row = {"measured": measured} | {key: text for key, text in texts.items() if text}
    return {key: value if key in ("network", "measured") else json.loads(value) for key, value in row.items()}


def outlines(known: Collection[Key], numbers: Mapping[str, Any], results: Path) -> dict[Key, bytes]:
    """Of the known networks those that lie beside the last record, without their weights."""
    files = sorted(results.glob(f"*-{_name(numbers)}.zip"))
    if not files:
        return {}
    with zipfile.ZipFile(files[-1]) as kept:
        named = {name: name.removesuffix(".onnx").split() for name in kept.namelist()}
        found = {(network, float(b), int(seed)): kept.read(name) for name, (network, b, seed) in named.items()}
    return {key: model for key, model in found.items() if key in known}


def outlined(model: bytes) -> bytes:
    """An ONNX model with every weight zero: small once it is compressed. It is timed :func:`filled`."""
    return _reweighted(model, np.zeros_like)


def filled(model: bytes) -> bytes:
    """An ONNX model with weights drawn anew, as quick as with its own: zeros alone are quicker in a PReLU."""
    dice = np.random.default_rng(0)

    def drawn_like(values: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = max(1, values.size // values.shape[0]) if values.ndim else 1
        return dice.normal(0, (2 / inputs) ** 0.5, values.shape).astype(np.float32)

    return _reweighted(model, drawn_like)


def _reweighted(model: bytes, weigh: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> bytes:
    graph = onnx.load_from_string(model)
    for weights in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype == np.float32:
            weights.CopyFrom(onnx.numpy_helper.from_array(weigh(values), weights.name))
    changed: bytes = graph.SerializeToString()
    return changed


def key_of(row: Row) -> Key:
    """What there is one row of."""
    return row["network"], float(row["budget M MACs"]), row["seed"]


def record(work: Path, numbers: Mapping[str, Any], data: ImageSet, results: Path) -> None:
    """Every finished network with its milliseconds, measured in turns, beside those of earlier records."""
    found = finished(work, earlier(numbers, results))
    models = outlines(found, numbers, results)
    for file in sorted(work.glob("seed-*/*/row.json")):
        models[key_of(json.loads(file.read_text()))] = outlined((file.parent / "timed.onnx").read_bytes())
    times: dict[Key, list[float]] = {key: [] for key in models}
    timed = {key: filled(model) for key, model in models.items()}
    for _ in range(ROUNDS):
        for key, model in timed.items():
            times[key].append(measure(model, (3, *data.preprocessing.size), seconds=SAMPLE_SECONDS).fastest_block_ms)
    for key, taken in times.items():
        first, middle, last = quantiles(taken, n=4)
        found[key] |= {"ms": round(middle, 3), "quartiles apart": round(last - first, 3)}
        found[key] |= {"measured": date.today().isoformat()}
    rows = sorted(found.values(), key=lambda row: (row["budget M MACs"], row["network"], row["seed"]))
    table = [{name: row.get(name, "") for name in COLUMNS} for row in rows]
    missing = absent(rows, numbers)
    sentences = [
        f"{numbers['name']}, {len(data.splits['train']):,} training images; {len(data.splits['test']):,} test images "
        f"read once for each row; {numbers['metric']}. Each contestant has {numbers['tera_macs']} T "
        "multiply-accumulates for each budget (forward × images × 3, a teacher's forward × 1); the fabric's networks "
        "share one training, with what fine-tuning leaves of all. An -alone network has the cost of all budgets.",
        f"Milliseconds: ONNX Runtime, batch 1, 1 thread, median and quartiles of {ROUNDS} turns through all measured "
        f"on the same day, each turn's quickest block; rows of another day may be another machine's. {VERSIONS}.",
        f"Configuration: {json.dumps(numbers)}.",
        *summary(table),
        *at_their_milliseconds([row for row in table if row["measured"] == date.today().isoformat()], numbers),
        *left_out(rows, numbers),
        f"Not run yet: {'; '.join(missing) or 'nothing'}.",
    ]
    written = write_record(_name(numbers), sentences, table, results)
    written.with_suffix(".svg").write_text(
        drawn([row for row in table if row["measured"] == date.today().isoformat()], numbers)
    )
    with zipfile.ZipFile(written.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as kept:
        for (network, budget, seed), model in models.items():
            kept.writestr(f"{network} {budget:g} {seed}.onnx", model)
    print(written)


def absent(rows: Sequence[Row], numbers: Mapping[str, Any]) -> list[str]:
    """Each contestant's budgets and seeds that have no row, unless it was given up."""
    there, said, out = {key_of(row) for row in rows}, [], given_up(rows, numbers)
    for name in numbers["contestants"]:
        for seed in seeds_of(name, numbers) if name not in out else ():
            lacking = [budget for budget in budgets_of(name, numbers) if (name, float(budget), seed) not in there]
            said += [f"{name} at {', '.join(map(str, lacking))} M (seed {seed})"] if lacking else []
    return said


def left_out(rows: Sequence[Row], numbers: Mapping[str, Any]) -> list[str]:
    """Who was not trained further, and why."""
    found = given_up(rows, numbers)
    said = ", ".join(f"{name} {behind:.1f}" for name, behind in sorted(found.items(), key=lambda item: item[1]))
    why = f"more than {numbers.get('given_up')} points of val behind the best of ours at the middle budget, first seed"
    return [f"Not trained further, for being {why}: {said}."] if found else []


def _by_network(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each contestant."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["network"], []).append(row)
    return found


def summary(table: Sequence[Row]) -> list[str]:
    """For each budget the contestants by mean accuracy over seeds."""
    lines = []
    for budget in dict.fromkeys(row["budget M MACs"] for row in table):
        found = _by_network([row for row in table if row["budget M MACs"] == budget])
        tests = {name: [row["test %"] for row in rows] for name, rows in found.items()}
        best = sorted(tests.items(), key=lambda item: -fmean(item[1]))
        said = "; ".join(f"{name} {fmean(values):.2f} ± {pstdev(values):.2f} ({len(values)})" for name, values in best)
        lines.append(f"{budget} M MACs, test %, mean ± spread (seeds): {said}.")
    return lines


def at_their_milliseconds(table: Sequence[Row], numbers: Mapping[str, Any]) -> list[str]:
    """For each budget of each other contestant what ours answers that takes no longer, the one that is best on val.

    Both are means over the seeds that the other has.
    """
    budgets: dict[tuple[str, float], dict[int, Row]] = {}
    for row in table:
        budgets.setdefault((row["network"], row["budget M MACs"]), {})[row["seed"]] = row
    ours = [rows for (name, _), rows in budgets.items() if is_ours(name, numbers)]
    said: dict[str, list[str]] = {}
    for (name, budget), rows in budgets.items():
        if is_ours(name, numbers):
            continue

        def mean(of: Mapping[int, Row], key: str, seeds: Collection[int] = tuple(rows)) -> float:
            return fmean(of[seed][key] for seed in seeds)

        quick = [of for of in ours if of.keys() >= rows.keys() and mean(of, "ms") <= mean(rows, "ms")]
        best = max(quick, key=lambda of: mean(of, "val %"), default=None)
        ahead = f"{mean(best, 'test %') - mean(rows, 'test %'):+.2f}" if best else "none of ours is as quick"
        said.setdefault(name, []).append(f"{budget:g} M, {mean(rows, 'ms'):.2f} ms: {ahead}")
    return [
        f"Ours of no more milliseconds than {name}, points of test beside it: {'; '.join(lines)}."
        for name, lines in said.items()
    ]


def drawn(table: Sequence[Row], numbers: Mapping[str, Any]) -> str:
    """Accuracy against milliseconds, both means over seeds, one line for each contestant, as SVG."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for name, rows in _by_network(table).items():
        budgets = sorted({row["budget M MACs"] for row in rows})
        at = [[row for row in rows if row["budget M MACs"] == budget] for budget in budgets]
        points = [(fmean(row["ms"] for row in same), fmean(row["test %"] for row in same)) for same in at]
        points.sort()
        ours = name.startswith("fabric")
        style: dict[str, Any] = {"marker": "*" if name.endswith("-alone") else "o", "linewidth": 2.2 if ours else 1.1}
        axes.plot(*zip(*points, strict=True), label=name, zorder=3 if ours else 2, **style)
    axes.set(xscale="log", xlabel="milliseconds, one image, one thread", ylabel=f"test, % ({numbers['metric']})")
    axes.set_title(numbers["name"])
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
