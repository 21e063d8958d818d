"""Commands about budgets: what operations take here, and a network for each of several."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from convfabric.cli.console import ProgressBar, answer, refusals, say
from convfabric.cli.options import (
    AsJson,
    Device,
    InOrder,
    LatencyMs,
    Network,
    Precision,
    RunFolder,
    Settings,
    Size,
    Threads,
    Weights,
    settings_from,
)
from convfabric.execution.allocation import keep_imports
from convfabric.latency.target import HERE


def curve(
    run: RunFolder,
    more: Annotated[list[str] | None, typer.Argument(help="Further amounts, after the first one.")] = None,
    latency_ms: Annotated[str | None, typer.Option(help="Milliseconds an image on --device: 0.5 1 2 4.")] = None,
    macs: Annotated[str | None, typer.Option(help="Multiply-accumulates an image: 1e6 4e6, or shares.")] = None,
    params: Annotated[str | None, typer.Option(help="Trained values: 1e4 1e5, or shares.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="A CSV file (name, latency_ms, score from 0 to 1) of other networks: dots.")
    ] = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    changes: Settings = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make networks anew that are there, also with other settings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """From one training a network for each of several budgets, a table, and a page with a slider."""
    from convfabric.choice import budget_from

    given = {kind: first for kind, first in (("latency_ms", latency_ms), ("macs", macs), ("params", params)) if first}
    if len(given) != 1:
        raise typer.BadParameter("give one of --latency-ms, --macs and --params, with one amount or several.")
    [(kind, first)] = given.items()
    amounts = [amount for said in (first, *(more or ())) for amount in said.replace(",", " ").split()]
    with refusals("Started again with the same amounts, it goes on"), ProgressBar() as shown:
        settings = settings_from(None, changes, device=device, precision=precision, threads=threads)
        for amount in amounts:
            budget_from({kind: amount})
        from convfabric.pipeline.budget_curve import curve as run_curve
        from convfabric.progress import Listener
        from convfabric.runs.folder import CURVE_PAGE

        keep_imports()
        rows = run_curve(
            run, kind, amounts, against=against, force=force, listener=Listener(say=say, watch=shown), **settings
        )
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = ["  ".join(f"{row[name]:>{width}}" for name, width in widths.items()) for row in rows]
    heading = "  ".join(f"{name:>{width}}" for name, width in widths.items())
    answer(as_json, {"networks": rows}, [heading, *lines, f"next: open {run / CURVE_PAGE} in a browser"])


def calibrate(
    network: Annotated[str, typer.Argument(help="A preset, a family, or the folder of a run.")],
    size: Size = None,
    device: Device = None,
    threads: Threads = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 1,
    runtime: Annotated[str, typer.Option(help="onnxruntime, openvino or torch.")] = "onnxruntime",
    changes: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Time every operation of a network's sub-networks on a device, and say how well their sum predicts."""
    from convfabric.runs.job import network_from

    with refusals():
        if not Path(network).is_dir():
            network_from(network, size, changes or [])
        from convfabric.pipeline.calibrate import calibrated, calibrated_lines

        found = calibrated(
            network,
            size,
            changes or [],
            device=device or HERE,
            threads=1 if threads is None else threads,
            batch=batch,
            runtime=runtime,
            say=say,
        )
    answer(as_json, asdict(found), calibrated_lines(found))


def probe(
    source: Annotated[str, typer.Argument(help="Images, as for fit, or the folder of a run.", metavar="DATA|RUN")],
    out: Annotated[Path, typer.Option("--out", help="The folder that is carried to the board.")],
    latency_ms: LatencyMs = None,
    network: Network = None,
    weights: Weights = None,
    weights_in_order: InOrder = False,
    size: Size = None,
    precision: Precision = None,
    threads: Threads = None,
    changes: Settings = None,
) -> None:
    """Write what a board has to time before fit or curve can use --device kit:FOLDER, and the program that does it."""
    with refusals():
        from convfabric.pipeline.probe import probe as written

        named: dict[str, object] = dict(network=network, weights=weights, weights_in_order=weights_in_order)
        named |= dict(latency_ms=latency_ms, size=size, precision=precision, threads=threads)
        keep_imports()
        typer.echo(written(source, out, say, **settings_from(None, changes, **named)))
