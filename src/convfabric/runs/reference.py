"""Pages of the documentation that follow from the code: every setting, and every field of the record of a run.

python -m convfabric.runs.reference docs       writes settings.md and record.md into a folder
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from convfabric.fabric.archive import write_atomically
from convfabric.runs.record import RunRecord
from convfabric.runs.setting_texts import Setting, every_setting, settings_in

SETTINGS = """# Settings

Every setting that `--set NAME=VALUE`, a configuration file and keywords in Python take, generated from the code. A dash
means: inferred from the data, the network or the budget. `convfabric settings NAME` prints one. Some networks have
other defaults for training; `config.yaml` in a run folder holds what was used.
"""
RECORD = """# The record of a run

`record.json` in a run folder, and what `--json` prints: every field, generated from the code. Parts that have not
happened yet are null. Shares run from 0 to 1, times are milliseconds unless a name says seconds. `--json` adds
`budget_met`, `balanced_accuracy`, `doubts` and the `paths` of the files.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | refused: a file, a value, a board; the message names it |
| 2 | the command line cannot be read |
| 3 | over budget: no sub-network meets it, or the file is slower when measured |
| 4 | with `--strict`, the result is doubtful |
| 5 | a board that no connection reaches has to time models first |
| 130 | interrupted; `--resume` goes on |
"""


def settings_page() -> str:
    """The page of settings, as Markdown.

    >>> "| `momentum` | 0.9 | number |" in settings_page()
    True
    """
    parts: dict[str, list[Setting]] = {}
    for one in every_setting():
        parts.setdefault(one.part, []).append(one)
    tables = (f"## {part[0].upper()}{part[1:]}\n\n{_table(known, defaults=True)}" for part, known in parts.items())
    return "\n".join([SETTINGS, *tables])


def record_page() -> str:
    """The page of the record, as Markdown, a table for each kind of part.

    >>> "## Latency" in record_page()
    True
    """
    tables = (
        f"## {kind.__name__}\n\n{_plain(kind.__doc__)}\n\n{_table(list(settings_in(kind, '')), defaults=False)}"
        for kind in dict.fromkeys(_kinds(RunRecord))
    )
    return "\n".join([RECORD, *tables])


def _kinds(record: Any) -> Iterator[type]:
    """A record, and the records that its fields hold."""
    if is_dataclass(record):
        yield record  # type: ignore[misc]
        for hint in get_type_hints(record).values():
            yield from _kinds(hint)
    for part in get_args(record):
        yield from _kinds(part)


def _plain(text: str | None) -> str:
    """The first paragraph of a docstring, on one line, without the marks of references."""
    return re.sub(r":\w+:`(?:[\w.]+\.)?(\w+)`", r"`\1`", " ".join((text or "").split("\n\n")[0].split()))


def _table(known: list[Setting], defaults: bool) -> str:
    head = ["name", *(["default"] if defaults else []), "kind", "meaning"]
    rows = [
        [f"`{one.name}`", *([one.said_default] if defaults else []), one.kind, _plain(one.about).replace("|", "\\|")]
        for one in known
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PAGES: Mapping[str, Any] = MappingProxyType({"settings.md": settings_page, "record.md": record_page})
"""By the names of their files."""


if __name__ == "__main__":
    for name, made in PAGES.items():
        write_atomically(Path(sys.argv[1]) / name, made())
