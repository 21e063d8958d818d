"""What every benchmark writes down: a dated Markdown file and a CSV beside it."""

import csv
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from convfabric.environment import machine, versions

RESULTS = Path(__file__).parent / "results"


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "not a git checkout"


COMMIT = _commit()
"""Read when a benchmark starts, so that it is the code that ran."""


def write_record(
    name: str, sentences: Sequence[str], rows: Sequence[Mapping[str, object]], folder: Path = RESULTS
) -> Path:
    """The rows with what is needed to get them again; returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{date.today().isoformat()}-{name}"
    with stem.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    facts = machine() | {k: v for k, v in versions().items() if k in ("torch", "onnxruntime", "accelerate")}
    lines = [
        f"# {name}, {date.today().isoformat()}",
        "",
        f"Command: `{_command()}`",
        f"Commit: {COMMIT}",
        "Machine: " + ", ".join(f"{key} {value}" for key, value in facts.items()),
        "",
        *sentences,
        "",
        "| " + " | ".join(rows[0]) + " |",
        "| " + " | ".join("---" for _ in rows[0]) + " |",
        *("| " + " | ".join(_cell(row[name]) for name in rows[0]) + " |" for row in rows),
        "",
    ]
    stem.with_suffix(".md").write_text("\n".join(lines))
    return stem.with_suffix(".md")


def _said(arguments: Sequence[str]) -> list[str]:
    """The arguments, with places outside the working folder replaced by their names."""
    return [Path(said).name.upper() if said.startswith(("/", "../", "~")) else said for said in arguments]


def _command() -> str:
    script = Path(sys.argv[0])
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *_said(sys.argv[1:])])


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
