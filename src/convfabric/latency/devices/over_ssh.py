"""A board that the system's ssh reaches: the timing program runs there as long as it is asked.

Nothing is installed or left there: the program goes in over the connection, and so does each model.
"""

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from convfabric.errors import DeviceError, SettingError
from convfabric.latency import timing
from convfabric.latency.asked import Asked
from convfabric.latency.devices.board import Answer, checked_answer, checked_facts

ADDRESS = re.compile(r"(?P<host>(?:[\w.]+[\w.-]*@)?(?:\w[\w.-]*|\[[0-9a-fA-F:.]+\]))(?::(?P<python>[^\n\r\0]+))?")
BEGINNING = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""Reads the timing program from the connection, and runs it."""
OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15")
"""No terminal and no questions; a connection that says nothing for 45 seconds is over."""
ATTEMPTS, PAUSE = 3, 2.0
"""Connections that one model is asked over, and seconds between them."""
MOST_LINE = 100_000


class OverSsh:
    """A board with Python, numpy and onnxruntime."""

    waits = False

    def __init__(self, address: str) -> None:
        """``address`` is user@host[:python], as the system's ssh knows the host; SettingError for anything else."""
        found = ADDRESS.fullmatch(address)
        if not found:
            raise SettingError(f"device=ssh:{address}: ssh:user@host or ssh:user@host:PYTHON is accepted.")
        self.host, self.python, self.name = found["host"], found["python"] or "python3", f"ssh:{found['host']}"
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._last_words = ""

    @cached_property
    def _first_facts(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._again(lambda: self._connected()[1])
        return found

    def facts(self) -> Mapping[str, str]:
        """As the board says when it is reached first."""
        return self._first_facts

    def expect(self, asked: Callable[[], Sequence[Asked]]) -> None:
        """Nothing is to be prepared."""

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """One after another; a connection that breaks is made anew, twice, before that is an error."""
        return [self._again(lambda one=one: self._answer(one)) for one in asked]  # type: ignore[misc]

    def close(self) -> None:
        """Ends the connection, and with it the program on the board."""
        if self._process and self._said:
            self._process.kill()
            self._process.communicate()
            self._said.seek(0)
            lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
            self._last_words = lines[-1][:200] if lines else ""
            self._said.close()
        self._process = None

    def _again(self, ask: Callable[[], Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return ask()
            except (OSError, EOFError):
                self.close()
                if attempt == ATTEMPTS - 1:
                    heard = f"{self.name}: no answer in {ATTEMPTS} attempts. {self._last_words}".rstrip()
                    raise DeviceError(f"{heard}\n{self._advice()}.") from None
                time.sleep(PAUSE)
        raise AssertionError("the last attempt returns or raises")

    def _advice(self) -> str:
        """What to look at, by what was said last."""
        try_it = f"ssh {self.host} \"{self.python} -c 'import numpy, onnxruntime'\""
        if "Error" in self._last_words or "not found" in self._last_words or "No such file" in self._last_words:
            return f"{self.python} there has to have numpy and onnxruntime: {try_it}"
        return f"try it by hand, it has to work without a password: {try_it}"

    def _answer(self, asked: Asked) -> Answer:
        process, facts = self._connected()
        if facts != self._first_facts:
            raise DeviceError(f"{self.name}: is another machine than before: {facts}, then {self._first_facts}.")
        model = asked.model()
        self._write(process, json.dumps({**asked.wanted, "bytes": len(model)}).encode() + b"\n" + model)
        return checked_answer(self._line(process), asked, self.name)

    def _connected(self) -> "tuple[subprocess.Popen[bytes], Mapping[str, str]]":
        if self._process is None:
            program = shutil.which("ssh")
            if program is None:
                raise DeviceError(f"{self.name}: the system has no ssh; kit:FOLDER times by a folder that is carried.")
            home = "~/" * self.python.startswith("~/")  # which the shell there has to see unquoted
            command = f"{home}{shlex.join([self.python[len(home) :], '-u', '-c', BEGINNING, 'serve'])}"
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
            self._process = subprocess.Popen(
                [program, *OPTIONS, "--", re.sub(r"[\[\]]", "", self.host), command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
            )
            content = Path(timing.__file__).read_bytes()
            self._write(self._process, b"%d\n" % len(content) + content)
            self._facts = checked_facts(self._line(self._process), self.name)
        return self._process, self._facts

    def _write(self, process: "subprocess.Popen[bytes]", content: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(content)
        process.stdin.flush()

    def _line(self, process: "subprocess.Popen[bytes]") -> Any:
        assert process.stdout is not None
        line = process.stdout.readline(MOST_LINE)
        if not line.endswith(b"\n"):
            raise EOFError
        try:
            return json.loads(line)
        except ValueError:
            raise DeviceError(f"{self.name}: answers {line[:200]!r}, which is no JSON.") from None
