"""The verbs. What needs torch is imported in them, once settings are known to be right: errors are said at once."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from convfabric.cli.answers import evaluate, predict
from convfabric.cli.budgets import calibrate, curve, probe
from convfabric.cli.console import ProgressBar, answer, keep_answers_apart, keep_quiet_unless_first, refusals, say
from convfabric.cli.fitting import fit
from convfabric.cli.options import (
    AsJson,
    Config,
    Data,
    DataDir,
    Device,
    Download,
    Epochs,
    Force,
    From,
    InOrder,
    LatencyMs,
    Macs,
    MemoryMb,
    Network,
    Opset,
    Out,
    Params,
    Precision,
    Resume,
    RunFolder,
    Seed,
    Settings,
    Size,
    Task,
    Teacher,
    TeacherWeights,
    Threads,
    Weights,
    begun_from,
    job_of_words,
    not_both,
    settings_from,
)
from convfabric.cli.setting_list import settings
from convfabric.cli.universality import universality
from convfabric.environment import command, is_first_process, process_count
from convfabric.execution.allocation import keep_imports, keep_memory

app = typer.Typer(
    name="convfabric",
    help="Give it images and a budget; get back the most accurate small CNN that meets it, as a checked ONNX file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SHARED_OUT = ("train", "fit", "extract", "curve")
"""Commands that several processes may run together."""
PUT_BACK = "put it back, or type this where it is seen"
"""Advice where the images of a run are not there."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        typer.echo(installed("convfabric"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Give it images and a budget; get back the most accurate small CNN that meets it, as a checked ONNX file."""
    if process_count() > 1 and context.invoked_subcommand not in SHARED_OUT:
        shared = f"{', '.join(SHARED_OUT)} are shared out by torchrun"
        raise typer.BadParameter(f"{context.invoked_subcommand} is one process's work; {shared}.")
    keep_quiet_unless_first()
    keep_memory()


app.command(
    epilog="""For example:

convfabric fit photos/ --latency-ms 5

convfabric fit photos/ --network torchvision:resnet18 --latency-ms 5 --minutes 30

convfabric fit photos/ --latency-ms 20 --device ssh:pi@raspberrypi --precision auto

convfabric fit digits --network fabric-tiny --macs 25% --set lr=0.05"""
)(fit)


@app.command()
def train(
    data: Data,
    out: Out = None,
    network: Network = None,
    earlier: From = None,
    weights: Weights = None,
    weights_in_order: InOrder = False,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    epochs: Epochs = None,
    size: Size = None,
    task: Task = None,
    seed: Seed = None,
    data_dir: DataDir = None,
    download: Download = False,
    config: Config = None,
    changes: Settings = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Train a fabric, from which extract and curve cut networks. Started by torchrun, the processes share the work."""
    from convfabric.runs.job import default_folder

    not_both(force, resume)
    folder = out or default_folder(data)
    named = dict(
        network=begun_from(network, earlier), weights=weights, weights_in_order=weights_in_order, epochs=epochs
    )
    named |= dict(teacher=teacher, teacher_weights=teacher_weights)
    named |= dict(size=size, task=task, seed=seed, data_dir=data_dir, download=download, data=data)
    going_on = f"Go on with: {command()} train {quote(data)} --out {quote(str(folder))} --resume"
    with refusals(going_on, folder), ProgressBar() as shown:
        job = job_of_words(folder, resume, config, changes, **named)
        from convfabric.pipeline.announcements import say_data
        from convfabric.pipeline.inputs import check_same_data, opened, woven
        from convfabric.pipeline.minutes import paced
        from convfabric.pipeline.steps import train_step
        from convfabric.progress import UNHEARD, Listener
        from convfabric.runs.folder import CONFIG, begin, check_may_begin
        from convfabric.runs.lock import held

        keep_imports()
        check_may_begin(folder, job, force=force, resume=resume)
        images = opened(job)
        if resume:
            check_same_data(folder, images)
        woven(job, images)
        if not (resume and (folder / CONFIG).is_file()):
            job = paced(job, images, say, job)
        listener = Listener(say=say, watch=shown) if is_first_process() else UNHEARD
        say_data(images, listener.say)
        with held(folder):
            begin(folder, job, force=force, resume=resume)
            train_step(folder, job, images, listener, resume=resume)
    typer.echo(f"next: convfabric extract {quote(str(folder))} --latency-ms 5")


@app.command()
def extract(
    run: RunFolder,
    latency_ms: LatencyMs = None,
    macs: Macs = None,
    params: Params = None,
    memory_mb: MemoryMb = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    changes: Settings = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Cut the network that fits a budget from a trained fabric, and fine-tune it."""
    from convfabric.execution.processes import join
    from convfabric.fabric.archive import load_fabric
    from convfabric.graph.json_format import written
    from convfabric.pipeline.inputs import reopened
    from convfabric.pipeline.steps import extract_step
    from convfabric.progress import UNHEARD, Listener
    from convfabric.report.words import said_macs, said_share
    from convfabric.runs.folder import recut
    from convfabric.runs.lock import held
    from convfabric.runs.record import read_record

    named = dict(latency_ms=latency_ms, macs=macs, params=params, memory_mb=memory_mb)
    keep_imports()
    going_on = f"Go on with: {command()} extract {quote(str(run))} --resume and the same budget"
    with refusals(going_on), ProgressBar() as shown:
        others = dict.fromkeys(named) if any(named.values()) else {}
        where = dict(device=device, precision=precision, threads=threads)
        job = recut(run, others | settings_from(None, changes, **where, **named))
        join(job.procedure.accelerator)
        data, fabric = reopened(run, job), load_fabric(run / "fabric")[0]
        listener = Listener(say=say, watch=shown) if is_first_process() else UNHEARD
        with held(run):
            extract_step(run, job, data, fabric, listener, resume=resume)
        network = read_record(run).done("network").network
    assert network is not None
    line = f"{network.edges} edges, {said_macs(network.macs)}, {said_share(network.score)}"
    answer(as_json, written(network), [line, f"next: convfabric export {quote(str(run))}"])


app.command(epilog="For example: convfabric curve runs/photos --latency-ms 2 5 10")(curve)
app.command()(calibrate)
app.command(epilog="For example: convfabric probe photos/ --latency-ms 20 --out kit")(probe)


@app.command()
def export(
    run: RunFolder, device: Device = None, threads: Threads = None, opset: Opset = None, as_json: AsJson = False
) -> None:
    """Write model.onnx, model.pt2 and predict.py of a run, each checked against the network."""
    from convfabric.fabric.archive import load_fabric
    from convfabric.graph.json_format import written
    from convfabric.pipeline.inputs import reopened
    from convfabric.pipeline.steps import export_step
    from convfabric.runs.folder import job_of
    from convfabric.runs.job import job_from, settings_of
    from convfabric.runs.lock import held

    with refusals():
        job = job_from(
            settings_of(job_of(run)) | settings_from(None, None, device=device, threads=threads, opset=opset)
        )
        network, papers = load_fabric(run)
        data = reopened(run, job, PUT_BACK).at(papers.preprocessing.size)
        with held(run):
            exported = export_step(run, job, data, network)
    answer(as_json, written(exported), [str(exported.latency), f"next: convfabric report {quote(str(run))}"])


@app.command()
def report(
    run: RunFolder,
    tried: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Write try.html as well: the network answers images that are dropped on it, in the browser. Its "
            "runtime, onnxruntime-web, is fetched once (33 MB).",
        ),
    ] = False,
) -> None:
    """Write report.html of a run."""
    from convfabric.fabric.archive import load_fabric
    from convfabric.pipeline.inputs import reopened
    from convfabric.pipeline.steps import report_step
    from convfabric.report.trial_page import check_tried, write_trial
    from convfabric.runs.folder import check_exported, job_of
    from convfabric.runs.lock import held

    with refusals():
        network, papers = load_fabric(run)
        if tried:
            check_tried(papers)
        data = reopened(run, job_of(run), PUT_BACK).at(papers.preprocessing.size)
        check_exported(run)
        with held(run):
            pages = [report_step(run, data, load_fabric(run / "fabric")[0].graph, network)]
            pages += [write_trial(run, papers)] if tried else []
    typer.echo(
        "\n".join(map(str, pages)) + f"\nnext: open it in a browser, or convfabric predict {quote(str(run))} IMAGE..."
    )


app.command(epilog="For example: convfabric evaluate runs/photos new-photos/")(evaluate)
app.command(epilog="For example: convfabric predict runs/photos some.jpg")(predict)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A preset, a family, or the folder of a run.")],
    size: Size = None,
    changes: Settings = None,
    layers: Annotated[bool, typer.Option("--layers", help="Each layer with its costs and receptive field.")] = False,
    as_json: AsJson = False,
) -> None:
    """Nodes, edges, parameters, MACs, activation bytes, depth and architectures of a graph."""
    from convfabric.graph.json_format import written
    from convfabric.report.describe import aligned, described_lines, description, graph_named, layer_rows

    with refusals():
        graph, image, run = graph_named(name, size, changes or [])
        facts = replace(description(graph, image), run=run)
    rows = layer_rows(graph, image) if layers else []
    each = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    answer(as_json, written(facts) | ({"layers": each} if layers else {}), [*described_lines(facts), *aligned(rows)])


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """The presets and families that --network takes, and the priors that --set prior= takes."""
    from dataclasses import fields

    from convfabric.graph.rewrites import PRIORS
    from convfabric.weavers import FAMILIES, PRESETS

    facts = {
        "presets": {name: preset.about for name, preset in PRESETS.items()},
        "families": {
            name: {"about": row.about, "numbers": [f.name for f in fields(row.numbers)]}
            for name, row in FAMILIES.items()
        },
        "priors": list(PRIORS),
    }
    presets = [f"  {name:26}{preset.about}" for name, preset in PRESETS.items()]
    families = [
        f"  {name:26}{row.about}\n{'':28}--set {', '.join(f.name for f in fields(row.numbers))}"
        for name, row in FAMILIES.items()
    ]
    priors = f"priors, --set prior=: {', '.join(PRIORS)}; the first three with a number of groups, such as root-8"
    answer(as_json, facts, ["presets", *presets, "families", *families, priors, "next: convfabric describe NAME"])


@app.command()
def gallery(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run, or a network of others, that is shown as well. (default: families alone)"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("gallery.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace the page that is there.")] = False,
) -> None:
    """A page that draws every family; with a RUN also what its network responds to."""
    from convfabric.report.describe import family_sections, network_section
    from convfabric.report.gallery import gallery as page_of
    from convfabric.weavers import is_imported

    with refusals():
        if out.exists() and not force:
            raise typer.BadParameter(f"{out} is there already; --force replaces it.")
        sections = list(family_sections())
        if run and is_imported(str(run)):
            sections = [network_section(str(run)), *sections]
        elif run:
            from convfabric.fabric.archive import load_fabric
            from convfabric.pipeline.inputs import opened
            from convfabric.report.responses import understood
            from convfabric.runs.folder import job_of

            sections = [*understood(load_fabric(run)[0], opened(job_of(run))), *sections]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page_of(sections), "utf-8")
    typer.echo(f"{out}\nnext: open it in a browser")


app.command()(universality)
app.command()(settings)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Versions, machine, and what is missing."""
    from convfabric.environment import machine, versions
    from convfabric.execution.compiler import kept_in, library

    kernels = library()
    said = f"not used ({kernels})" if isinstance(kernels, str) else f"built, whole, kept in {kept_in()}"
    facts = machine() | versions() | {"kernels": said}
    missing = [name for name, found in facts.items() if found == "missing"]
    result = f"missing: {', '.join(missing)}" if missing else "nothing is missing"
    answer(as_json, facts, [*(f"{name:16}{value}" for name, value in facts.items()), result])
    if missing:
        raise typer.Exit(1)


def main() -> None:
    """The console script."""
    keep_answers_apart()
    app()
