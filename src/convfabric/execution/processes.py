"""Several processes of one run, as torchrun starts them: all take the same steps, and the first decides.

What depends on the clock or writes a file is done by the first process alone, and the others are told what came of
it; training shares each batch, a search its trials. Alone, a process does all of it, and nothing here costs anything.
"""

import atexit
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch.distributed as dist
from accelerate import PartialState

from convfabric.environment import is_first_process, process_count
from convfabric.errors import ConvfabricError

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
PATIENCE = timedelta(days=7)
"""For which processes wait for each other: the first may train a teacher's cut, or measure, for hours. One that has
died is noticed at once, as its connections close."""


def join(device: str) -> None:
    """Meets the other processes of the run, once; nothing where there is none. ``device`` is that of the training."""
    if process_count() > 1:
        PartialState(cpu=device == "cpu")
        _group()


@cache
def _group() -> Any:
    """A connection of its own for objects, which needs no accelerator.

    All are closed before the interpreter ends: their threads would end it by an abort now and then.
    """
    atexit.register(dist.destroy_process_group)
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def by_first(work: Callable[[], T]) -> T:
    """What the first process finds, in every process; an error of ours that it raises is raised in all.

    >>> by_first(lambda: 1 + 1)
    2
    """
    if process_count() == 1:
        return work()
    found: T = _agreed(_attempted(work) if is_first_process() else None)
    return found


def alone_first(work: Callable[[], T]) -> T | None:
    """Work of the first process that cannot be sent, and None in the others; errors as in :func:`by_first`.

    >>> alone_first(lambda: 1 + 1)
    2
    """
    kept: list[T] = []
    by_first(lambda: kept.append(work()))
    return kept[0] if kept else None


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The work of every item, in their order; where others are :func:`led`, all processes share them out.

    >>> each(abs, [-1, 2])
    [1, 2]
    """
    if process_count() == 1:
        return [work(item) for item in items]
    _told(list(items))
    return _joined(work, items)


def led(leading: Callable[[], S], work: Callable[[T], R]) -> S:
    """What the first process makes of it, in every process, which help with ``work`` whenever it asks for each.

    >>> led(lambda: sum(each(abs, [-1, 2])), abs)
    3
    """
    if process_count() == 1:
        return leading()
    own = None
    if is_first_process():
        own = _attempted(leading)
        _told(None)
    else:
        while (items := _told(None)) is not None:
            _joined(work, items)
    found: S = _agreed(own)
    return found


def _attempted(work: Callable[[], Any]) -> tuple[Any, ConvfabricError | None]:
    try:
        return work(), None
    except ConvfabricError as fault:
        return None, fault


def _agreed(found: tuple[Any, ConvfabricError | None] | None) -> Any:
    """What the first process found, or its error raised."""
    result, fault = _told(found)
    if fault is not None:
        raise fault
    return result


def _told(said: Any) -> Any:
    """What the first process says."""
    box = [said]
    dist.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def _joined(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The work of all items, done by turns: process p takes items p, p + n, p + 2n, ..."""
    count, rank = process_count(), dist.get_rank()
    parts: list[list[R]] = [[] for _ in range(count)]
    dist.all_gather_object(parts, [work(item) for item in items[rank::count]], group=_group())
    return [parts[at % count][at // count] for at in range(len(items))]
