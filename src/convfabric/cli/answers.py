"""Commands that put a finished network to use: scored on data, or answering for single files."""

import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from convfabric.cli.console import REFUSED, answer, refusals, tell_doubts
from convfabric.cli.options import AsJson, InOrder, RunFolder, Settings, Size, Strict, Weights, settings_from

if TYPE_CHECKING:
    from convfabric.evaluation.superpixels import SuperpixelScore


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run, or a network of others as for --network.", show_default=False)
    ],
    data: Annotated[
        str | None, typer.Argument(help="Other data, in any accepted layout. (default: the run's own)")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or all of unsplit data. (default: test, or all, or val)")
    ] = None,
    weights: Weights = None,
    weights_in_order: InOrder = False,
    size: Size = None,
    changes: Settings = None,
    crf: Annotated[
        bool, typer.Option("--crf", help="Masks refined by a conditional random field as well, and what that costs.")
    ] = False,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Score the network of a run on data; or one of others as it is, on data of the classes that it was trained for."""
    from convfabric.evaluation.baseline import said_beside
    from convfabric.pipeline.evaluate import evaluate as run_evaluate
    from convfabric.pipeline.evaluate import evaluate_network, with_field
    from convfabric.report.words import exit_rows, said_figure
    from convfabric.weavers import is_imported

    name = str(run)
    if crf and (data or is_imported(name)):
        raise typer.BadParameter("--crf is for a run's own images, by whose validation split its numbers are chosen.")
    with refusals():
        given = settings_from(None, changes, weights=weights, weights_in_order=weights_in_order, size=size)
        if not is_imported(name):
            if given:
                raise typer.BadParameter(f"{', '.join(given)}: for networks of others; a run's is as it was trained.")
            found = run_evaluate(run, data, split)
        elif data is None:
            raise typer.BadParameter(f"{name}: name the images to score it on.")
        else:
            found = evaluate_network(name, data, split, **given)
        found = replace(found, field=with_field(run, split)) if crf else found
    score = found.score
    line = f"{said_figure(score)} on {score.images} images of {found.split}, loss {score.loss:.4f} nats"
    if data and found.same_images and found.split != "all":
        line += "; these are the run's own images, split as they were for it"
    line += "; the network was trained on some or all of them" * bool(found.trained_on)
    line += _said_superpixels(found.superpixels)
    if found.field:
        ms = f"{found.field.alone_ms:.3g} ms, with it {found.field.refined_ms:.3g} ms (torch, one thread)"
        refined = said_figure(found.field.score) + _said_superpixels(found.field.superpixels)
        line += f"\nwith a conditional random field {refined}; the network alone takes {ms}"
    exits = ["  ".join(row).rstrip() for row in exit_rows(found.exits)] if found.exits else []
    cut = f"convfabric fit {quote(data or '')} --network {quote(name)} --set classifier=kept"
    then = cut if is_imported(name) else f"convfabric predict {quote(name)} IMAGE..."
    answer(as_json, found.as_json(), [line, said_beside(score), *exits, f"next: {then}"])
    tell_doubts(found.doubts, strict)


def _said_superpixels(found: "SuperpixelScore | None") -> str:
    return f"; {100 * found.accuracy:.2f} % of {found.superpixels:,} superpixels" if found else ""


def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    least: Annotated[
        float | None, typer.Option(help="Probability from which on boxes are told. (default: 0.3)", min=0, max=1)
    ] = None,
) -> None:
    """Answers for image files, one JSON object a line: what predict.py prints, from the run's weights.

    A file that is no image is named, and the others are answered; the exit code is 1 then.
    """
    import json

    from convfabric.errors import DataError
    from convfabric.pipeline.evaluate import predictor

    refused, plain = 0, "utf" not in (sys.stdout.encoding or "").lower()
    with refusals():
        answer_of = predictor(run) if least is None else predictor(run, least)
        for image in images:
            try:
                typer.echo(json.dumps(answer_of(image), ensure_ascii=plain))
            except DataError as fault:
                refused += 1
                typer.secho(f"error: {fault}", fg="red", err=True)
    if refused:
        raise typer.Exit(REFUSED)
