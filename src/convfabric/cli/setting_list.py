"""The command that says which settings there are."""

from typing import Annotated

import typer

from convfabric.cli.console import answer, refusals
from convfabric.cli.options import AsJson


def settings(
    name: Annotated[str | None, typer.Argument(help="A setting. (default: all, a line each)")] = None,
    as_json: AsJson = False,
) -> None:
    """Every setting that --set and a configuration file take, with its default, values and meaning."""
    from convfabric.errors import SettingError
    from convfabric.graph.json_format import written
    from convfabric.runs.setting_texts import every_setting, meant_by

    known = list(every_setting())
    with refusals():
        found = [one for one in known if name is None or one.name == name]
        if not found:
            raise SettingError(f"{name}: no setting. {meant_by(str(name))}")
    lines, part = list[str](), ""
    for one in found:
        if one.part != part:
            lines += [one.part]
            part = one.part
        lines.append(f"  {one.name:18}{one.said_default:>14}  {one.about if name else one.brief}")
        lines += [f"{'':34}{one.kind}"] if name else []
    then = "next: convfabric fit DATA --set NAME=VALUE" if name else "next: convfabric settings NAME"
    answer(as_json, {"settings": [written(one) for one in found]}, [*lines, then])
