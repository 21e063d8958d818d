"""The C++ kernels: built on first use, kept for the next time, done without where nothing can build them."""

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
        found = _loaded(built(kept_in()))
    except (OSError, subprocess.SubprocessError) as fault:
        return str(fault)
    found.convfabric_packed_size.restype = ctypes.c_int64
    return found


def _loaded(file: Path) -> ctypes.CDLL:
    """The file, built again where what was kept is damaged."""
    try:
        return ctypes.CDLL(str(file))
    except OSError:
        file.unlink()
        return ctypes.CDLL(str(built(file.parent)))


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
    """The file with the kernels in a folder, compiled now if it is not there.

    Raises OSError where there is no compiler or the folder cannot be written; SubprocessError with what the
    compiler said where it fails.
    """
    compiler = _compiler()
    if compiler is None:
        raise OSError(missing())
    file = folder / f"kernels-{_digest(compiler)}.so"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            _compile(compiler, Path(draft) / file.name)
            os.replace(Path(draft) / file.name, file)
    return file


def kept_in() -> Path:
    """The folder where compiled kernels are kept from run to run.

    >>> kept_in().name
    'convfabric'
    """
    home = Path.home()
    return (home if os.access(home, os.W_OK) else Path(tempfile.gettempdir())) / ".cache" / "convfabric"


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
