"""The house keeps its shape: imports run one way, the first half needs no torch, files stay short."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import convfabric

SOURCE = Path(convfabric.__file__).parent

WITHOUT_TORCH = ("errors", "setting_values", "progress", "operators", "graph", "weavers", "choice")
WORKING = ("training", "understanding", "latency", "exporting")
"""Rooms that know none of each other, but for plain records that import no torch."""
ROOMS = (
    *WITHOUT_TORCH,
    *("environment", "boxes", "data", "fabric", "importing", "execution", "universality", "evaluation"),
    *WORKING,
    *("runs", "cutting", "report", "pipeline", "cli", "__main__"),
)
"""From the ground up. A room may know those before it."""
RECORDS = {"data.options", "training.recipe", "latency.target", "runs.job"}
"""Plain records that the job is made of; they import no torch."""


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("convfabric"):
            base = (node.module or "").removeprefix("convfabric").strip(".")
            found |= {base} if base else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    own = name_of(path).partition(".")[0]
    for other in imported(path):
        room = other.partition(".")[0]
        if room == own:
            continue
        assert ROOMS.index(room) < ROOMS.index(own), f"{name_of(path)} imports {other}"
        if own in WORKING and other not in RECORDS:
            assert room not in WORKING, f"{name_of(path)} imports {other}: working rooms know none of each other"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name_of(path): set(imported(path)) for path in modules()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join((*above, name))
        if name not in done:
            for other in graph.get(name, ()):
                if other != name:
                    visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_files_are_short_and_rooms_have_names(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert not {"utils", "core", "common", "base", "helpers", "misc", "manager"} & set(name_of(path).split("."))


def test_few_things_lie_flat() -> None:
    flat = {
        path.name
        for path in SOURCE.iterdir()
        if path.name not in ("__pycache__", "__init__.py", "__main__.py", "py.typed")
    }
    files = {name for name in flat if "." in name}
    assert files == {"errors.py", "environment.py", "setting_values.py", "progress.py"}
    assert len(flat) + len(("__init__.py", "__main__.py")) <= 26


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    trees = [(name_of(path), ast.parse(path.read_text())) for path in modules()]
    return [(name, node) for name, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def test_functions_are_short_enough_to_be_read_aloud() -> None:
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for _, node in functions())
    assert lengths[int(0.95 * len(lengths))] <= 25


def test_most_public_functions_show_an_example_that_runs() -> None:
    public = [
        node
        for path in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    shown = [node for node in public if ">>>" in (ast.get_docstring(node) or "")]
    assert len(shown) >= 0.6 * len(public)


def fresh(code: str) -> str:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=SOURCE.parent).stdout


def test_the_first_half_imports_no_torch() -> None:
    names = [name_of(path) for path in modules()]
    half = [name for name in names if name.partition(".")[0] in WITHOUT_TORCH]
    rooms = ", ".join(f"convfabric.{name}" for name in (*half, *sorted(RECORDS)))
    heavy = "{'torch', 'torchvision', 'accelerate', 'sklearn', 'onnxruntime', 'matplotlib'}"
    assert fresh(f"import sys, {rooms}; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_importing_the_package_or_its_command_line_loads_no_torch() -> None:
    assert fresh("import sys, convfabric; print('torch' in sys.modules)").strip() == "False"
    assert fresh("import sys, convfabric.cli.commands; print('torch' in sys.modules)").strip() == "False"


def test_every_public_name_resolves_and_stands_in_order() -> None:
    assert convfabric.__all__ == sorted(convfabric.__all__)
    assert all(callable(getattr(convfabric, name)) for name in convfabric.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        convfabric.fitt  # noqa: B018


def test_every_setting_has_one_home() -> None:
    from convfabric.runs.job import known_settings

    assert len(known_settings()) == len(set(known_settings()))


def test_no_pickle_is_ever_read() -> None:
    for path in modules():
        assert not re.search(r"\bpickle\b.*load|torch\.load\((?!.*weights_only=True)", path.read_text()), path
