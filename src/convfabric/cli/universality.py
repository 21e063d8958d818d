"""The command that shows a fabric to be any network."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from convfabric.cli.console import answer, refusals, say
from convfabric.cli.options import AsJson, Settings, Size


def universality(
    network: Annotated[
        str | None,
        typer.Argument(
            help="The folder of a run, a network of others as for --network, a preset or a family.  "
            "(default: every operator, and three networks trained on digits)",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    changes: Settings = None,
    page: Annotated[Path | None, typer.Option(help="A page to draw the networks on. (default: none)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Operators and whole networks as fabrics of 3×3 edges with exact weights: their size, and how alike they are."""
    from convfabric.pipeline.universality import compared, network_named, trained_networks
    from convfabric.report.describe import aligned
    from convfabric.report.gallery import gallery
    from convfabric.universality.constructions import constructed

    with refusals():
        if page and page.exists() and not force:
            raise typer.BadParameter(f"{page} is there already; --force replaces it.")
        if page:
            page.parent.mkdir(parents=True, exist_ok=True)
        operators = [] if network else list(constructed())
        if network:
            found = [compared(network, *network_named(network, size, changes or []))]
        elif size or changes:
            raise typer.BadParameter("--size and --set are for a NETWORK that is named.")
        else:
            found = list(trained_networks(say))
        if page:
            page.write_text(gallery((one.section for one in found), "Networks as parts of a trellis"), "utf-8")
    head = ["", "layers", "scales", "channels", "largest difference", "right"]
    rows = [[*_figures(asdict(one)), ""] for one in operators]
    rows += [[*_figures(asdict(one.built)), _right(one.right)] for one in found]
    facts = {
        "constructions": [asdict(one) for one in operators],
        "networks": [asdict(one.built) | {"right": one.right} for one in found],
    }
    answer(as_json, facts, [*aligned([head, *rows]), *([str(page)] if page else [])])


def _figures(row: dict[str, object]) -> list[str]:
    return [f"{value:.1e}" if isinstance(value, float) else str(value) for value in row.values()]


def _right(shares: tuple[float, float] | None) -> str:
    return f"{100 * shares[0]:.2f} % and {100 * shares[1]:.2f} %" if shares else ""
