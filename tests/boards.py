"""Boards for tests: a program called ssh that runs here what it is told to run elsewhere, and a real one."""

import getpass
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


SERVER = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
"""
CLIENT = """Host board
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user
  StrictHostKeyChecking no
  UserKnownHostsFile {folder}/known
"""


@contextmanager
def real_board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a board that is this machine, reached by the system's ssh and a server of our own.

    Skips where the system has no server.
    """
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    if not (Path(server).is_file() and shutil.which("ssh") and shutil.which("ssh-keygen")):
        pytest.skip("no OpenSSH server here")
    folder.mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    facts = {"port": port, "folder": folder, "user": getpass.getuser()}
    (folder / "server").write_text(SERVER.format(**facts))
    (folder / "client").write_text(CLIENT.format(**facts))
    (folder / "bin").mkdir()
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/client "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([server, "-D", "-f", str(folder / "server"), "-E", str(folder / "log")])
    try:
        monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
        if not _answers(port):
            pytest.skip(f"the server did not start: {(folder / 'log').read_text()[-300:]}")
        yield f"board:{sys.executable}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    """Whether something listens at a port within ten seconds."""
    for _ in range(100):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.1)
    return False
