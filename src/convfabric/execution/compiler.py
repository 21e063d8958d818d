"""The C++ kernels: built on first use, kept for the next time, done without where nothing can build them."""

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import product
from pathlib import Path

SOURCES = sorted(Path(__file__).parent.glob("*.?pp"))
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")
THREADS = ("-fopenmp",), ()
TUNED = ("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ()
"""Flags for this processor, the best first; threads are done without last."""


@cache
def library() -> ctypes.CDLL | str:
    """The compiled kernels, or why there are none."""
    try:
        return _loaded(built(kept_in()))
    except (OSError, AttributeError, subprocess.SubprocessError) as fault:
        return str(fault)


def _loaded(file: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(file))
    found.convfabric_packed_size.restype = ctypes.c_int64
    return found


def compiled() -> ctypes.CDLL:
    """The compiled kernels, where a plan was chosen that needs them."""
    found = library()
    assert not isinstance(found, str), "the plan was chosen without the kernels"
    return found


def missing() -> str | None:
    """Why the kernels could not be built here, without trying; None where a compiler is there."""
    return None if _compiler() else f"no C++ compiler was found ({', '.join(COMPILERS)})"


def _compiler() -> str | None:
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def built(folder: Path) -> Path:
    """The file with the kernels in a folder, compiled now if it is not there, or not as it was written.

    A library that was cut short would end the process, so its digest, kept beside it, is looked at first.
    Raises OSError where there is no compiler or the folder cannot be written; SubprocessError with what the
    compiler said where it fails.
    """
    compiler = _compiler()
    if compiler is None:
        raise OSError(missing())
    file = folder / f"kernels-{_digest(compiler)}.so"
    if not is_whole(file):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            made = Path(draft) / file.name
            _compile(compiler, made)
            noted = Path(draft) / _note(file).name
            noted.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
            for part in (made, noted):
                with part.open("rb") as written:
                    os.fsync(written.fileno())
            _note(file).unlink(missing_ok=True)
            os.replace(made, file)
            os.replace(noted, _note(file))
    return file


def is_whole(file: Path) -> bool:
    """Whether kept kernels are as they were written, by the digest beside them.

    >>> is_whole(Path("no/such/file.so"))
    False
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == _note(file).read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _note(file: Path) -> Path:
    return file.with_suffix(".sha256")


@cache
def kept_in() -> Path:
    """The user's own folder, where compiled kernels and times are kept from run to run.

    Nobody else may write in it, as what lies there is run. Where the user's home cannot be written, or the folder is
    another's, it is a new one that goes when the program ends.

    >>> kept_in().is_dir()
    True
    """
    try:
        folder = Path.home() / ".cache" / "convfabric"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = folder.stat()
        if facts.st_uid == getattr(os, "getuid", lambda: facts.st_uid)() and os.access(folder, os.W_OK):
            if facts.st_mode & 0o077:
                folder.chmod(0o700)
            return folder
    except (OSError, RuntimeError):
        pass
    own = tempfile.TemporaryDirectory(prefix="convfabric-")
    atexit.register(own.cleanup)
    return Path(own.name)


def _compile(compiler: str, file: Path) -> None:
    said = ""
    for threads, tuned in product(THREADS, TUNED):
        command = [
            compiler,
            *FLAGS,
            *threads,
            *tuned,
            *(str(source) for source in SOURCES if source.suffix == ".cpp"),
            "-o",
            str(file),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
    raise subprocess.SubprocessError(f"{compiler} failed: {said}")


def _digest(compiler: str) -> str:
    """Differs where the source, the compiler or the processor does, so that no file is run that was not made for it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else [platform.processor()]
    processor = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))} or lines[:1])
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    said = "\n".join((*(source.read_text() for source in SOURCES), version, platform.machine(), *processor))
    return hashlib.sha256(said.encode()).hexdigest()[:16]
