"""The verbs. What needs torch is imported in them, once settings are known to be right: errors are said at once."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from convfabric.cli.budgets import calibrate, curve
from convfabric.cli.console import REFUSED, Shown, answer, keep_answers_apart, refusals, say
from convfabric.cli.options import (
    AsJson,
    Config,
    Data,
    DataDir,
    Download,
    Epochs,
    Force,
    LatencyMs,
    Macs,
    MemoryMb,
    Network,
    Out,
    Params,
    Resume,
    RunFolder,
    Seed,
    Settings,
    Size,
    Threads,
    job_of_words,
    settings_from,
)
from convfabric.execution.allocation import keep_memory

app = typer.Typer(
    name="convfabric",
    help="Images and a budget in; the most accurate small CNN that meets it out, as a checked ONNX file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PUT_BACK = "put it back, or type this where it is seen"
"""What to do where the images of a run are not there."""


def _not_both(force: bool, resume: bool) -> None:
    if force and resume:
        raise typer.BadParameter("--force starts anew and --resume goes on: give one of them.")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        typer.echo(installed("convfabric"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Images and a budget in; the most accurate small CNN that meets it out, as a checked ONNX file."""
    keep_memory()


@app.command()
def fit(
    data: Data,
    out: Out = None,
    latency_ms: LatencyMs = None,
    macs: Macs = None,
    params: Params = None,
    memory_mb: MemoryMb = None,
    threads: Threads = None,
    network: Network = None,
    epochs: Epochs = None,
    size: Size = None,
    seed: Seed = None,
    data_dir: DataDir = None,
    download: Download = False,
    config: Config = None,
    changes: Settings = None,
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train a fabric on DATA, cut the network that fits the budget, fine-tune, export, check and report."""
    from convfabric.report.pages import said_macs, said_share
    from convfabric.runs.job import default_folder

    _not_both(force, resume)
    folder = out or default_folder(data)
    named = dict(latency_ms=latency_ms, macs=macs, params=params, memory_mb=memory_mb, threads=threads)
    named |= dict(network=network, epochs=epochs, size=size, seed=seed, data_dir=data_dir, download=download, data=data)
    going_on = f"Go on with: convfabric fit {quote(data)} --out {quote(str(folder))} --resume"
    with refusals(going_on, folder), Shown() as shown:
        job = job_of_words(folder, resume, config, changes, **named)
        from convfabric.pipeline.steps import Listener, run_job

        record = run_job(job, folder, force=force, resume=resume, listener=Listener(say=say, watch=shown))
    network_facts, fabric_facts = record["network"], record["fabric"]
    verdict, last = record["data"]["verdict"], "fine-tuned" if network_facts["finetuned"] else "not tuned"
    answer(
        as_json,
        record,
        [
            f"fabric        {said_share(fabric_facts['score'])} on {verdict}, {said_macs(fabric_facts['macs'])}",
            f"just cut      {said_share(network_facts['as_cut'])}, refreshed {said_share(network_facts['refreshed'])}",
            f"{last:14}{said_share(network_facts['score'])} on {verdict}, {said_macs(network_facts['macs'])}",
            f"model.onnx    {record['exported']['said']}",
            f"              predicted {network_facts['predicted_ms']:.3f} ms; logits within "
            f"{record['exported']['largest_difference']:.1e} of the network's",
            f"page          {folder / 'report.html'}",
            f"next: python {quote(str(folder / 'predict.py'))} IMAGE...",
        ],
    )


@app.command()
def train(
    data: Data,
    out: Out = None,
    network: Network = None,
    epochs: Epochs = None,
    size: Size = None,
    seed: Seed = None,
    data_dir: DataDir = None,
    download: Download = False,
    config: Config = None,
    changes: Settings = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Train a fabric, and nothing else. Started by torchrun, the processes share the work."""
    from convfabric.runs.job import default_folder

    _not_both(force, resume)
    folder = out or default_folder(data)
    named = dict(network=network, epochs=epochs, size=size, seed=seed, data_dir=data_dir, download=download, data=data)
    going_on = f"Go on with: convfabric train {quote(data)} --out {quote(str(folder))} --resume"
    with refusals(going_on, folder), Shown() as shown:
        job = job_of_words(folder, resume, config, changes, **named)
        from convfabric.environment import is_first_process
        from convfabric.pipeline.steps import Listener, opened, train_step, woven
        from convfabric.runs.folder import begin, check_may_begin
        from convfabric.runs.noting import say_data

        check_may_begin(folder, job, force=force, resume=resume)
        images = opened(job)
        woven(job, images)
        begin(folder, job, force=force, resume=resume)
        quiet = Listener(say=lambda text: None)
        first = is_first_process()
        if first:
            say_data(images, say)
        train_step(folder, job, images, Listener(say=say, watch=shown) if first else quiet, resume=resume)
    if first:
        typer.echo(f"next: convfabric extract {quote(str(folder))} --latency-ms 5")


@app.command()
def extract(
    run: RunFolder,
    latency_ms: LatencyMs = None,
    macs: Macs = None,
    params: Params = None,
    memory_mb: MemoryMb = None,
    threads: Threads = None,
    changes: Settings = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Cut the network that fits a budget from a trained fabric, and fine-tune it."""
    from convfabric.pipeline.steps import Listener, extract_step, reopened
    from convfabric.report.pages import said_macs, said_share
    from convfabric.runs.folder import noted, recut

    named = dict(latency_ms=latency_ms, macs=macs, params=params, memory_mb=memory_mb)
    with refusals(f"Go on with: convfabric extract {quote(str(run))} --resume and the same budget"), Shown() as shown:
        others = dict.fromkeys(named) if any(named.values()) else {}
        job = recut(run, others | settings_from(None, changes, threads=threads, **named))
        extract_step(run, job, reopened(run, job), Listener(say=say, watch=shown), resume=resume)
        facts = noted(run)["network"]
    line = f"{facts['edges']} edges, {said_macs(facts['macs'])}, {said_share(facts['score'])}"
    answer(as_json, facts, [line, f"next: convfabric export {quote(str(run))}"])


app.command()(curve)
app.command()(calibrate)


@app.command()
def export(run: RunFolder, threads: Threads = None, as_json: AsJson = False) -> None:
    """Write model.onnx, model.pt2 and predict.py of a run, each checked against the network."""
    from convfabric.pipeline.steps import export_step, reopened
    from convfabric.runs.folder import job_of, noted
    from convfabric.runs.job import job_from, settings_of

    with refusals():
        job = job_from(settings_of(job_of(run)) | settings_from(None, None, threads=threads))
        export_step(run, job, reopened(run, job, PUT_BACK))
        facts = noted(run)["exported"]
    answer(as_json, facts, [facts["said"], f"next: convfabric report {quote(str(run))}"])


@app.command()
def report(run: RunFolder) -> None:
    """Write report.html of a run."""
    from convfabric.pipeline.steps import reopened, report_step
    from convfabric.runs.folder import job_of

    with refusals():
        written = report_step(run, reopened(run, job_of(run), PUT_BACK))
    typer.echo(f"{written}\nnext: open it in a browser, or convfabric predict {quote(str(run))} IMAGE...")


@app.command()
def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None, typer.Argument(help="Other data, in any accepted layout.  [default: the run's own]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or all of unsplit data.  [default: test, or all, or val]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score the network of a run on data."""
    from dataclasses import asdict

    from convfabric.pipeline.evaluate import evaluate as run_evaluate
    from convfabric.report.pages import exit_rows, said_share

    with refusals():
        found = run_evaluate(run, data, split)
    score = asdict(found.score)
    facts = score | {"split": found.split, "anytime": found.anytime, "own": found.own, "trained_on": found.trained_on}
    line = f"{said_share(score)} on {found.score.images} images of {found.split}, loss {found.score.loss:.4f} nats"
    if data and found.own and found.split != "all":
        line += "; these are the run's own images, split as they were for it"
    line += "; the network was trained on some or all of them" * bool(found.trained_on)
    exits = ["  ".join(row).rstrip() for row in exit_rows(found.anytime)] if found.anytime else []
    answer(as_json, facts, [line, *exits, f"next: convfabric predict {quote(str(run))} IMAGE..."])


@app.command()
def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
) -> None:
    """Answers for image files, one JSON object a line: what predict.py prints, from the run's weights.

    A file that is no image is named, and the others are answered; the exit code is 1 then.
    """
    import json

    from convfabric.errors import DataError
    from convfabric.pipeline.evaluate import predictor

    refused = 0
    with refusals():
        answer_of = predictor(run)
        for image in images:
            try:
                typer.echo(json.dumps(answer_of(image), ensure_ascii=False))
            except DataError as fault:
                refused += 1
                typer.secho(f"error: {fault}", fg="red", err=True)
    if refused:
        raise typer.Exit(REFUSED)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A preset, a family, or the folder of a run.")],
    size: Size = None,
    changes: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Nodes, edges, parameters, MACs, activation bytes and architectures of a graph."""
    from convfabric.report.describe import described, described_lines

    with refusals():
        facts = described(name, size, changes or [])
    answer(as_json, facts, described_lines(facts))


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
        Path | None, typer.Argument(help="A run, whose network is shown as well.  [default: families alone]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("gallery.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace the page that is there.")] = False,
) -> None:
    """A page that draws every family; with a RUN also what its network responds to."""
    from convfabric.report.describe import family_sections
    from convfabric.report.gallery import gallery as page_of

    with refusals():
        if out.exists() and not force:
            raise typer.BadParameter(f"{out} is there already; --force replaces it.")
        sections = list(family_sections())
        if run:
            from convfabric.fabric.archive import load_fabric
            from convfabric.pipeline.steps import opened
            from convfabric.report.responses import understood
            from convfabric.runs.folder import job_of

            sections = [*understood(load_fabric(run)[0], opened(job_of(run))), *sections]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page_of(sections), "utf-8")
    typer.echo(f"{out}\nnext: open it in a browser")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Versions, machine, and what is missing."""
    from convfabric.environment import machine, versions

    facts = machine() | versions()
    missing = [name for name, found in facts.items() if found == "missing"]
    verdict = f"missing: {', '.join(missing)}" if missing else "nothing is missing"
    answer(as_json, facts, [*(f"{name:16}{value}" for name, value in facts.items()), verdict])
    if missing:
        raise typer.Exit(1)


def main() -> None:
    """The console script."""
    keep_answers_apart()
    app()
