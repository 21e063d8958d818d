"""One training, any budget: a network for each of several ceilings, a table, and a page with a slider.

::

    RUN/curve/latency_ms-2/    what a run folder has for its network: model.onnx, model.safetensors, record.json, ...
    RUN/curve.csv  RUN/curve.html
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from convfabric.choice import Budget, budget_from
from convfabric.data.imageset import ImageSet
from convfabric.environment import is_first_process, machine, versions
from convfabric.errors import SettingError
from convfabric.evaluation.baseline import said_beside
from convfabric.execution.processes import alone_first, by_first, join
from convfabric.fabric.archive import load_fabric, write_atomically
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.pipeline.cutters import Cutters, Surveys
from convfabric.pipeline.fit import network_step
from convfabric.pipeline.inputs import reopened
from convfabric.pipeline.tried import read_tried
from convfabric.progress import UNHEARD, Listener
from convfabric.report.curve_page import Dot, Point, Trial, curve_page
from convfabric.report.words import figure_name, said_macs, said_share
from convfabric.runs.folder import CONFIG, CURVE_PAGE, CURVE_TABLE, begin, changes, is_exported, job_of, recut
from convfabric.runs.job import Job, settings_of
from convfabric.runs.lock import held
from convfabric.runs.record import CutRecord, parts_of, read_record, update_record

KINDS = ("latency_ms", "macs", "params")
DOT_COLUMNS = ["name", "latency_ms", "score"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a curve: the job that makes it, the run, and the folder where it is kept."""

    job: Job
    run: Path
    folder: Path

    @property
    def begun(self) -> bool:
        """Whether the same job has begun it, wherever its data lay, from the fabric that the run now has."""
        begun = (self.folder / CONFIG).is_file()
        return begun and replace(job_of(self.folder), data=self.job.data) == self.job and _is_of(self.folder, self.run)

    @property
    def done(self) -> bool:
        """Whether it is there already, made by the same job."""
        return self.begun and is_exported(self.folder)


def _is_of(folder: Path, run: Path) -> bool:
    """Whether what is in a folder was cut from the fabric that a run now has, not from one before."""
    return read_record(folder).fabric == read_record(run).fabric


def curve(
    run: str | Path,
    kind: str,
    amounts: Sequence[float | str] | float | str,
    *,
    against: str | Path | None = None,
    force: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> list[dict[str, str]]:
    """A network for each amount of ``latency_ms``, ``macs`` or ``params``, cut from the trained fabric of a run.

    Amounts are numbers or shares such as "25%", or one of them. Networks that an earlier call with the same settings
    made are kept, unless ``force``; one that it was stopped in goes on. ``against`` is a CSV file (name, latency_ms,
    score from 0 to 1) of other networks to be drawn as dots. ``settings`` replace those of the run. Returns one row for
    each network of the curve so far, the one of fewest MACs first; writes curve.csv and curve.html.
    Raises BudgetError, before anything is cut, where an amount is below what the smallest sub-network takes,
    SettingError where a network is there that was made with other settings, and DataError where the images are gone or
    are not those that the fabric was trained on.
    """
    run, listener = Path(run), listener or Listener()
    listener = listener if is_first_process() else UNHEARD
    amounts = [amounts] if isinstance(amounts, float | int | str) else amounts
    asked = [_member(run, kind, amount, settings) for amount in amounts]
    members = list({member.folder: member for member in asked}.values())
    if not members:
        raise SettingError(f"{kind}: give one amount or more, such as 0.5 1 2 4.")
    dots = read_dots(Path(against)) if against else []
    join(members[0].job.procedure.accelerator)
    by_first(lambda: _check_others(members, force))
    fabric, data = load_fabric(run / "fabric")[0], reopened(run, members[0].job)
    with held(run):
        missing = by_first(lambda: [member for member in members if force or not member.done])
        _cut_missing(run, missing, fabric, data, listener)
        return by_first(lambda: _summed_up(run, dots, fabric.graph))


def _summed_up(run: Path, dots: Sequence[Dot], whole: Graph) -> list[dict[str, str]]:
    """The table's rows, written with the page of every network that was cut from the fabric that the run now has."""
    every = [folder for folder in (run / "curve").iterdir() if _is_of(folder, run) and is_exported(folder)]
    found = sorted(every, key=taken)
    rows = [row_of(folder) for folder in found]
    _write(run, rows, [_point(folder) for folder in found], dots, whole, read_tried(found, whole))
    return rows


def taken(folder: Path) -> tuple[float, list[float]]:
    """MACs of the network in a folder, and its ceilings."""
    record = read_record(folder).done("cut", "network")
    assert record.cut is not None
    assert record.network is not None
    return record.network.macs, sorted(record.cut.ceilings.values())


def _check_others(members: Sequence[Member], force: bool) -> None:
    """SettingError where a finished network of the same fabric would have to be made anew with other settings."""
    for member in members:
        if not force and not member.begun and _is_of(member.folder, member.run) and is_exported(member.folder):
            before = replace(job_of(member.folder), data=member.job.data)
            _, said = changes(settings_of(before), settings_of(member.job))
            raise SettingError(f"{member.folder}: made with {said}; --force makes it anew.")


def _member(run: Path, kind: str, amount: float | str, settings: dict[str, Any]) -> Member:
    if kind not in KINDS:
        raise SettingError(f"{kind}: a curve runs over {', '.join(KINDS)}.")
    ceiling = budget_from({kind: amount}).ceilings.get(kind)
    if ceiling is None:
        raise SettingError(f"{kind}=None: give a number above 0, or a share such as 25%.")
    without = dict.fromkeys(asdict(Budget()))
    job = recut(run, without | settings | {kind: ceiling})
    said = ceiling if isinstance(ceiling, str) else f"{ceiling:g}"
    return Member(job=job, run=run, folder=run / "curve" / f"{kind}-{said.replace('%', 'percent')}")


def _cut_missing(run: Path, members: Sequence[Member], fabric: Fabric, data: ImageSet, listener: Listener) -> None:
    """The networks that are not there yet; no amount is tried where one of them is out of reach."""
    if not members:
        return
    job, budgets = members[0].job, [member.job.budget for member in members]

    def prepared() -> Cutters:
        return Cutters(run, fabric, Surveys(fabric.graph, job, data, listener, budgets))

    cutters = alone_first(prepared)
    for number, member in enumerate(members, 1):
        listener.say(f"network {number} of {len(members)}: at most {member.job.budget}")
        same = by_first(partial(_half_done, member))
        with held(member.folder):
            by_first(partial(_begin, member, same))
            network_step(member.folder, member.job, data, fabric, listener, resume=same, cutters=cutters, run=run)


def _half_done(member: Member) -> bool:
    return member.begun and not member.done


def _begin(member: Member, same: bool) -> None:
    """The folder of a network, with what is known of the fabric it is cut from."""
    begin(member.folder, member.job, force=not same, resume=same)
    whole = read_record(member.run)
    shared = {name: getattr(whole, name) for name in ("data", "begun_with", "fabric", "plan")}
    update_record(member.folder, **shared)


def row_of(folder: Path) -> dict[str, str]:
    """The table's row of the network in a folder: what it was to take, takes, and scores at each stage."""
    record = read_record(folder)
    data, _, cut, network, tuning, exported = parts_of(record)
    latency = exported.latency
    return {
        "budget": _said_budget(cut),
        figure_name(data): said_share(record.delivered or network.score),
        "measured ms": f"{latency.median_ms:.3f}",
        "interquartile range ms": f"{latency.interquartile_range_ms:.3f}",
        "threads": str(latency.threads),
        "numbers": exported.precision,
        "predicted ms": f"{cut.predicted_ms:.3f}",
        "M MACs": f"{network.macs / 1e6:.2f}",
        "k parameters": f"{network.parameters / 1e3:.1f}",
        "edges": str(network.edges),
        "after pruning": said_share(tuning.after_pruning),
        "after recalibration": said_share(tuning.after_recalibration),
    }


def _said_budget(cut: CutRecord) -> str:
    """The budget requested, and of a share first what it came to.

    >>> numbers = {"predicted_ms": 0.2, "prediction_error": 0.1, "worth": {}}
    >>> _said_budget(CutRecord(requested="50% of the fabric's ms", ceilings={"latency_ms": 0.25}, **numbers))
    "0.25 ms (50% of the fabric's)"
    """
    if "%" not in cut.requested:
        return cut.requested
    return f"{Budget(**cut.ceilings)} ({cut.requested.split()[0]} of the fabric's)"


def _point(folder: Path) -> Point:
    graph = load_fabric(folder)[0].graph
    record = read_record(folder)
    _, _, cut, network, tuning, exported = parts_of(record)
    pruned, recalibrated = said_share(tuning.after_pruning), said_share(tuning.after_recalibration)
    score = record.delivered or network.score
    return Point(
        name=_said_budget(cut),
        milliseconds=exported.latency.median_ms,
        score=score.headline,
        error=score.standard_error or 0.0,
        measured=str(exported.latency),
        about=(
            f"{said_macs(network.macs)}, {network.parameters / 1e3:.0f} k parameters, {network.edges} edges; "
            f"after pruning {pruned}, after batch-norm recalibration {recalibrated}"
        ),
        edges=tuple(sorted(graph.edge_names)),
        channels={str(node.place): node.channels for node in graph.nodes},
    )


def read_dots(file: Path) -> list[Dot]:
    r"""Networks of other kinds in a CSV file; SettingError names the line that cannot be read.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = (Path(folder.name) / "dots.csv").write_text("name,latency_ms,score\nother,0.5,0.9\n")
    >>> read_dots(Path(folder.name) / "dots.csv")
    [Dot(name='other', milliseconds=0.5, score=0.9)]
    >>> folder.cleanup()
    """
    if not file.is_file():
        raise SettingError(f"{file}: no such file.")
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise SettingError(f"{file}: not UTF-8 at byte {fault.start}; save it as CSV in UTF-8.") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in DOT_COLUMNS if name not in (table.fieldnames or ())]:
        said = f"no column {', '.join(missing)}; {', '.join(DOT_COLUMNS)} are needed, with commas between them"
        raise SettingError(f"{file}: {said}.")
    return [_dot(file, table.line_num, row) for row in table]


def _dot(file: Path, line: int, row: dict[str, str]) -> Dot:
    try:
        found = Dot(name=row["name"], milliseconds=float(row["latency_ms"]), score=float(row["score"]))
    except (TypeError, ValueError):
        found = Dot(name="", milliseconds=0.0, score=0.0)
    if not (0 < found.milliseconds < float("inf") and 0 <= found.score <= 1):
        said = ", ".join(str(row[name]) for name in DOT_COLUMNS)
        raise SettingError(
            f"{file}, line {line}: {said}; milliseconds above 0 and a score from 0 to 1 (0.5 is 50 %) are needed."
        )
    return found


def _write(
    run: Path,
    rows: Sequence[dict[str, str]],
    points: Sequence[Point],
    dots: Sequence[Dot],
    whole: Graph,
    tried: Sequence[Trial],
) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(run / CURVE_TABLE, text.getvalue())
    record = read_record(run).done("data", "fabric")
    assert record.data is not None
    assert record.fabric is not None
    fabric = f"the fabric itself: {said_share(record.fabric.score)}, {said_macs(record.fabric.macs)}"
    said = [fabric, *(f"{point.name}: {point.measured}" for point in points)]
    conditions = [*said, *(f"{name}: {value}" for name, value in (machine() | versions()).items())]
    heading = [list(rows[0]), *(list(row.values()) for row in rows)]
    score = record.fabric.score
    note = f"Each network was scored once on {score.images:,} {record.data.scored_split} images, and chosen on val."
    note += " Bars are a standard error: differences within them say little." if score.standard_error else ""
    note += f" The whole fabric: {said_share(score)}, {said_beside(score)}."
    name, figure = record.data.name, figure_name(record.data)
    content = curve_page(name, figure, whole, points, dots, heading, conditions, note, tried)
    write_atomically(run / CURVE_PAGE, content)
