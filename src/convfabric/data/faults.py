"""Faults of a data set, told all at once, so that they are mended in one go."""

from collections.abc import Collection

from convfabric.errors import DataError

MOST_FAULTS_SAID = 10


def refuse(faults: Collection[str]) -> None:
    """Raises one DataError with all faults, at most ten of them in full; none, and nothing happens.

    >>> refuse([])
    >>> refuse(["b.png: zero bytes long.", "a.png: zero bytes long."])
    Traceback (most recent call last):
        ...
    convfabric.errors.DataError: 2 things are wrong.
    a.png: zero bytes long.
    b.png: zero bytes long.
    """
    if not faults:
        return
    more = len(faults) - MOST_FAULTS_SAID
    said = "\n".join(sorted(faults)[:MOST_FAULTS_SAID]) + (f"\nand {more} more" if more > 0 else "")
    raise DataError(said if len(faults) == 1 else f"{len(faults)} things are wrong.\n{said}")
