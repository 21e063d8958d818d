"""Every block of Python in the README and the documents is run; tests/test_commands.py types their commands."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from convfabric.cli.commands import app
from convfabric.runs.reference import PAGES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(file: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", file.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_python_blocks_run_one_after_another(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": file.stem}
    for block in blocks(file, "python"):
        exec(compile(block, file.name, "exec"), names)
    assert blocks(file, "python") or file.name in ("idea.md", "measured.md", *PAGES)


def test_links_between_documents_lead_somewhere() -> None:
    for file in [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_a_family_is_added_in_a_page_and_every_weaver_is_short() -> None:
    assert len((ROOT / "docs" / "family.md").read_text("utf-8").splitlines()) <= 60
    for file in (ROOT / "src" / "convfabric" / "weavers").glob("*.py"):
        table = file.name in ("presets.py", "families.py")
        assert table or len(file.read_text("utf-8").splitlines()) <= 120, file


def bare(text: str) -> str:
    return re.sub(r"[^0-9a-zA-Z:()]", "", text)


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_all_that_an_option_says_of_itself(name: str) -> None:
    shown = bare(CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "160"}).stdout)
    for option in COMMANDS[name].params:
        assert bare(option.help or "") in shown, option.name


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_follow_from_the_code_are_what_it_says_and_every_line_has_a_meaning(name: str) -> None:
    said = PAGES[name]()
    assert (ROOT / "docs" / name).read_text("utf-8") == said, "run python -m convfabric.runs.reference docs"
    assert [line for line in said.splitlines() if line.endswith("|  |")] == []
