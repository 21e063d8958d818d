"""Text files as people have them: UTF-8 with a mark or without, UTF-16 as Windows tools write it."""

from pathlib import Path

from convfabric.errors import DataError

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file in UTF-16 begins, by the order of its bytes."""


def text_of(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark; DataError for any other.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = (Path(folder.name) / "a.txt").write_bytes("hair".encode("utf-16"))
    >>> text_of(Path(folder.name) / "a.txt")
    'hair'
    >>> folder.cleanup()
    """
    content = file.read_bytes()
    try:
        return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DataError(f"{file}: not in UTF-8, and not in UTF-16 with its mark ({fault}).") from None
