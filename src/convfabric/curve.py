"""One training, any budget: a network for each of several ceilings, a table, and a page with a slider.

::

    RUN/curve/latency_ms-2/    what a run folder has for its network: model.onnx, model.safetensors, record.json, ...
    RUN/curve.csv  RUN/curve.html
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from convfabric.archive import GRAPH_FILE, load_fabric, write_atomically
from convfabric.choice import Budget, budget_from
from convfabric.data.imageset import ImageSet
from convfabric.environment import machine, versions
from convfabric.errors import ArchiveError, SettingError
from convfabric.fabric import Fabric
from convfabric.graph import Graph
from convfabric.job import Job, job_from, settings_of, written_config
from convfabric.pipeline import Listener, cutter_of, network_step, opened, surveyed
from convfabric.report.curve_page import Dot, Point, curve_page
from convfabric.report.page import figure_name, said_macs, said_share
from convfabric.runs import CONFIG, Facts, begin, job_of, note, noted

KINDS = ("latency_ms", "macs", "params")
TABLE, PAGE = "curve.csv", "curve.html"
DOT_COLUMNS = ["name", "latency_ms", "score"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a curve: the job that makes it, and the folder where it is kept."""

    job: Job
    folder: Path

    @property
    def done(self) -> bool:
        """Whether it is there already, made by the same job."""
        config = self.folder / CONFIG
        same = config.is_file() and config.read_text("utf-8") == written_config(self.job)
        return same and bool(noted(self.folder).get("exported")) and (self.folder / "model.onnx").is_file()


def curve(
    run: str | Path,
    kind: str,
    amounts: Sequence[float | str],
    *,
    against: str | Path | None = None,
    force: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> list[Facts]:
    """A network for each amount of ``latency_ms``, ``macs`` or ``params``, cut from the trained fabric of a run.

    Amounts are numbers or shares such as "25%". Networks that an earlier call with the same settings made are kept,
    unless ``force``; one that it was stopped in goes on. ``against`` is a CSV file (name, latency_ms, score from 0
    to 1) of other networks to be drawn as dots. ``settings`` replace those of the run. Returns one row for each
    network, the quickest first; writes curve.csv and curve.html.
    Raises BudgetError, before anything is cut, where an amount is below what the smallest sub-network takes.
    """
    run, listener = Path(run), listener or Listener()
    members = [_member(run, kind, amount, settings) for amount in dict.fromkeys(amounts)]
    if not members:
        raise SettingError(f"{kind}: give one amount or more, such as 0.5 1 2 4.")
    dots = read_dots(Path(against)) if against else []
    if not (run / "fabric" / GRAPH_FILE).is_file():
        raise ArchiveError(f"{run}: no trained fabric in it; convfabric train and fit make one.")
    fabric, data = load_fabric(run / "fabric")[0], opened(members[0].job)
    _cut_missing(run, [member for member in members if force or not member.done], fabric, data, listener)
    rows = sorted((row_of(member.folder) for member in members), key=lambda row: float(row["measured ms"]))
    points = sorted((_point(member) for member in members), key=lambda point: point.milliseconds)
    _write(run, rows, points, dots, fabric.graph)
    return rows


def _member(run: Path, kind: str, amount: float | str, settings: dict[str, Any]) -> Member:
    if kind not in KINDS:
        raise SettingError(f"{kind}: a curve runs over {', '.join(KINDS)}.")
    ceiling = budget_from({kind: amount}).ceilings[kind]
    without = dict.fromkeys(asdict(Budget()))
    job = job_from(settings_of(job_of(run)) | without | settings | {kind: ceiling})
    said = ceiling if isinstance(ceiling, str) else f"{ceiling:g}"
    return Member(job=job, folder=run / "curve" / f"{kind}-{said.replace('%', 'percent')}")


def _cut_missing(run: Path, members: Sequence[Member], fabric: Fabric, data: ImageSet, listener: Listener) -> None:
    """The networks that are not there yet; no amount is tried where one of them is out of reach."""
    if not members:
        return
    found = surveyed(fabric.graph, replace(members[0].job, budget=Budget()), data, listener)
    for member in members:
        found.resolved(member.job.budget)
    cutter = cutter_of(run, fabric, members[0].job, data, listener, found)
    for number, member in enumerate(members, 1):
        listener.say(f"network {number} of {len(members)}: at most {member.job.budget}")
        config = member.folder / CONFIG
        same = config.is_file() and config.read_text("utf-8") == written_config(member.job) and not member.done
        begin(member.folder, member.job, force=not same, resume=same)
        note(member.folder, data=noted(run)["data"])
        network_step(member.folder, member.job, data, listener, resume=same, cutter=cutter, run=run)


def row_of(folder: Path) -> dict[str, str]:
    """What a table says of the network in a folder: what it was to take, takes, and answers at each stage."""
    record = noted(folder)
    network, latency = record["network"], record["exported"]["latency"]
    return {
        "budget": record["asked"],
        "measured ms": f"{latency['median_ms']:.3f}",
        "quartiles apart": f"{latency['spread_ms']:.3f}",
        "predicted ms": f"{network['predicted_ms']:.3f}",
        "M MACs": f"{network['macs'] / 1e6:.2f}",
        "k parameters": f"{network['parameters'] / 1e3:.1f}",
        "edges": str(network["edges"]),
        "just cut": said_share(network["as_cut"]),
        "refreshed": said_share(network["refreshed"]),
        figure_name(record): said_share(network["score"]),
    }


def _point(member: Member) -> Point:
    record, graph = noted(member.folder), load_fabric(member.folder)[0].graph
    network = record["network"]
    score = network["score"]
    return Point(
        name=record["asked"],
        milliseconds=record["exported"]["latency"]["median_ms"],
        score=score["accuracy"] if score["miou"] is None else score["miou"],
        measured=record["exported"]["said"],
        about=(
            f"{said_macs(network['macs'])}, {network['parameters'] / 1e3:.0f} k parameters, {network['edges']} edges; "
            f"inherited {said_share(network['as_cut'])}, refreshed {said_share(network['refreshed'])}"
        ),
        edges=tuple(sorted(graph.edge_names)),
        channels={str(node.place): node.channels for node in graph.nodes},
    )


def read_dots(file: Path) -> list[Dot]:
    """Networks of other kinds in a CSV file; SettingError names the line that cannot be read."""
    if not file.is_file():
        raise SettingError(f"{file}: no such file.")
    with file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if missing := [name for name in DOT_COLUMNS if name not in (table.fieldnames or ())]:
            raise SettingError(f"{file}: no column {', '.join(missing)}; {', '.join(DOT_COLUMNS)} are needed.")
        return [_dot(file, table.line_num, row) for row in table]


def _dot(file: Path, line: int, row: dict[str, str]) -> Dot:
    try:
        found = Dot(name=row["name"], milliseconds=float(row["latency_ms"]), score=float(row["score"]))
    except (TypeError, ValueError):
        found = Dot(name="", milliseconds=0.0, score=0.0)
    if not (0 < found.milliseconds < float("inf") and 0 <= found.score <= 1):
        said = ", ".join(str(row[name]) for name in DOT_COLUMNS)
        raise SettingError(f"{file}, line {line}: {said}; milliseconds above 0 and a score from 0 to 1 are needed.")
    return found


def _write(
    run: Path, rows: Sequence[dict[str, str]], points: Sequence[Point], dots: Sequence[Dot], whole: Graph
) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(run / TABLE, text.getvalue())
    record = noted(run)
    fabric = f"the fabric itself: {said_share(record['fabric']['score'])}, {said_macs(record['fabric']['macs'])}"
    said = [fabric, *(f"{point.name}: {point.measured}" for point in points)]
    conditions = [*said, *(f"{name}: {value}" for name, value in (machine() | versions()).items())]
    heading = [list(rows[0]), *(list(row.values()) for row in rows)]
    content = curve_page(record["data"]["name"], figure_name(record), whole, points, dots, heading, conditions)
    write_atomically(run / PAGE, content)
