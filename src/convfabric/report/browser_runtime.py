"""ONNX Runtime for browsers, as its authors publish it: fetched once, held to a known digest, and kept."""

import gzip
import hashlib
import io
import tarfile
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

from convfabric.errors import ArchiveError
from convfabric.execution.compiler import kept_in
from convfabric.fabric.archive import write_atomically

VERSION = "1.30.0"
DIGEST = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
SOURCE = f"https://registry.npmjs.org/onnxruntime-web/-/{PACKAGE}"
PARTS = {"program": "ort.wasm.bundle.min.mjs", "machine": "ort-wasm-simd-threaded.wasm"}
SECONDS = 300


class BrowserRuntime(NamedTuple):
    """What a page needs to run a network, each gzip in base64."""

    program: str
    """An ECMAScript module."""
    machine: str
    """WebAssembly."""


def packed(content: bytes) -> str:
    """Bytes as a page holds them, gzip in base64.

    >>> packed(b"abc")[:4]
    'H4sI'
    """
    return b64encode(gzip.compress(content, mtime=0)).decode()


def browser_runtime(folder: Path | None = None) -> BrowserRuntime:
    """The runtime, from a folder where it was kept (by default the user's own) or from the registry of npm.

    Raises ArchiveError where it cannot be fetched, or is not what its authors published.
    """
    folder = folder or kept_in()
    kept = folder / PACKAGE
    content = kept.read_bytes() if kept.is_file() else _fetched(folder)
    if hashlib.sha512(content).hexdigest() != DIGEST:
        raise ArchiveError(f"{kept if kept.is_file() else SOURCE}: not what the authors of onnxruntime-web published.")
    if not kept.is_file():
        write_atomically(kept, content)
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        found = {part: package.extractfile(f"package/dist/{name}") for part, name in PARTS.items()}
        return BrowserRuntime(**{part: packed(file.read()) for part, file in found.items() if file})


def _fetched(folder: Path) -> bytes:
    try:
        with urllib.request.urlopen(SOURCE, timeout=SECONDS) as answer:
            return bytes(answer.read())
    except OSError as fault:
        raise ArchiveError(
            f"{SOURCE}: cannot be fetched ({fault}). Fetch it where there is a network connection (33 MB), and put it "
            f"into {folder}."
        ) from None
