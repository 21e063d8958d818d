"""Boards for tests: a program called ssh that runs here what it is told to run elsewhere."""

import shlex
import sys
from pathlib import Path

import pytest

SCRIPT = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift 2
{before}
exec /bin/sh -c "$1"
"""
"""Drops its options and the host, as the real one does before it hands the command to a shell."""


def pretended_board(folder: Path, monkeypatch: pytest.MonkeyPatch, before: str = "") -> str:
    """The address of a board that is this machine, reached by a false ssh which first runs some lines of shell."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ssh").write_text(SCRIPT.format(before=before))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return f"someone@{folder.parent.name.replace('_', '-')}:{sys.executable}"


def answering(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a board that says these lines whatever it is asked."""
    said = f"printf '%b' {shlex.quote(lines)}; exec cat > /dev/null"
    return pretended_board(folder, monkeypatch, said)
