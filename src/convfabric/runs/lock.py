"""One process at a time in the folder of a run, and nothing left in it of those that were killed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from convfabric.environment import is_first_process
from convfabric.errors import ArchiveError

LOCK = ".lock"
PLACES = ("", "fabric", "cut")
"""Folders of a run that are written into."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made where it is not there, for this process until the end; what killed ones were writing is swept.

    Raises ArchiveError where another process holds it, or where it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder)):
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['.lock']
    """
    if not is_first_process():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as fault:
        raise ArchiveError(f"{folder}: cannot be written in ({fault.strerror or fault}).") from None
    with file:
        if not _locked(file):
            raise ArchiveError(f"{folder}: another convfabric is at work in it; wait until it has ended.")
        for place in PLACES:
            for draft in (folder / place).glob(".*.draft*"):
                draft.unlink(missing_ok=True)
        yield


def _locked(file: IO[str]) -> bool:
    """Whether the file is locked now; also where the system knows no locks. It ends with the process."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        return fault.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def holds_something(folder: Path) -> bool:
    """Whether there is a file, or a folder with more in it than a lock and drafts.

    >>> holds_something(Path("no/such/folder"))
    False
    """
    if not folder.is_dir():
        return folder.exists()
    return any(not (name == LOCK or (name.startswith(".") and ".draft" in name)) for name in os.listdir(folder))
