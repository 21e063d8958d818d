"""Train, val and test: drawn where they are not given, and no image in two of them."""

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from convfabric.data.faults import MOST_FAULTS_SAID, refuse
from convfabric.data.layouts import ACCEPTED, Item, Listing
from convfabric.errors import DataError

T = TypeVar("T")
VAL_SHARE, TEST_SHARE = 0.15, 0.15
COPIES_BORNE = 0.01
"""Share of a split that may be copies, or of all images that may have two labels, and is only told."""
Digests = Sequence[bytes | None]
"""Of the pixels of each item; None for an image of one colour, which says nothing."""


def with_splits(listing: Listing, seed: int, digests: Digests = ()) -> tuple[Listing, list[str]]:
    """The listing with train and val, and test where everything lay in one folder; and what was split off.

    The draw is seeded and takes the same share of every class; items of one group, and copies, stay together.
    ``digests`` are of all items, split after split. Raises DataError where a split would lack a class.

    >>> from pathlib import Path
    >>> items = tuple(Item(image=Path(f"{i}.png"), label=i % 2) for i in range(20))
    >>> listing = Listing(task="classification", classes=("a", "b"), splits={"all": items})
    >>> {name: len(items) for name, items in with_splits(listing, 0)[0].splits.items()}
    {'train': 14, 'val': 2, 'test': 4}
    """
    splits: dict[str, tuple[Item, ...]] = dict(listing.splits)
    kin = dict(zip(_every(listing), _kin(_every(listing), digests), strict=True))
    notes: list[str] = []
    if "all" in splits:
        splits["test"], rest = _drawn(splits.pop("all"), TEST_SHARE, seed, kin)
        splits["val"], splits["train"] = _drawn(rest, VAL_SHARE / (1 - TEST_SHARE), seed, kin)
        notes.append(f"one folder: {TEST_SHARE:.0%} drawn for test and {VAL_SHARE:.0%} for val with seed {seed}")
    elif "train" not in splits:
        raise DataError(f"{' and '.join(splits)} are there, and no train to learn from. {ACCEPTED}")
    elif "val" not in splits:
        splits["val"], splits["train"] = _drawn(splits["train"], VAL_SHARE, seed, kin)
        notes.append(f"no val: {VAL_SHARE:.0%} of train drawn for it with seed {seed}")
    if notes:
        _check_drawn(replace(listing, splits=splits), kin)
    if any(item.group for item in kin):
        groups = len({item.group for item in kin if item.group})
        notes.append(f"{groups} group{'s' * (groups > 1)}, none in two splits")
    order = {"train": 0, "val": 1, "test": 2}
    return replace(listing, splits=dict(sorted(splits.items(), key=lambda split: order[split[0]]))), notes


def _every(listing: Listing) -> list[Item]:
    return [item for items in listing.splits.values() for item in items]


def _kin(items: Sequence[Item], digests: Digests) -> list[int]:
    """For each item the first that it has to stay with: of its group, or a copy of it."""
    first: dict[Hashable, int] = {}
    parents = list(range(len(items)))

    def root(at: int) -> int:
        while parents[at] != at:
            at = parents[at]
        return at

    for at, item in enumerate(items):
        digest = digests[at] if digests else None
        for key in (("group", item.group) if item.group else None, digest):
            if key is not None:
                one, other = sorted((root(first.setdefault(key, at)), root(at)))
                parents[other] = one
    return [root(at) for at in range(len(items))]


def _drawn(
    items: tuple[Item, ...], share: float, seed: int, kin: Mapping[Item, int]
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    return drawn(items, share, seed, [item.label for item in items], [kin[item] for item in items])


def drawn(
    items: Sequence[T], share: float, seed: int, labels: Iterable[int], groups: Iterable[Hashable] = ()
) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """A seeded share of every label's items (at least one where there are two), and the rest, both in order.

    Items of one group stay together; a group counts for the label that most of it has.

    >>> taken, rest = drawn("aabb", 0.5, 0, labels=[0, 0, 1, 1])
    >>> len(taken), len(rest)
    (2, 2)
    >>> drawn("abcd", 0.5, 0, labels=[0, 0, 0, 0], groups=[1, 2, 2, 1])[0] in (("a", "d"), ("b", "c"))
    True
    """
    labels = list(labels)
    together: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups or range(len(labels))):
        together.setdefault(group, []).append(position)
    by_label: dict[int, list[Hashable]] = {}
    for group, positions in together.items():
        by_label.setdefault(Counter(labels[at] for at in positions).most_common(1)[0][0], []).append(group)
    dice, taken = random.Random(seed), set[int]()
    for _, known in sorted(by_label.items()):
        count = max(1, round(share * len(known))) if len(known) > 1 else 0
        taken |= {at for group in dice.sample(known, count) for at in together[group]}
    return (
        tuple(item for i, item in enumerate(items) if i in taken),
        tuple(item for i, item in enumerate(items) if i not in taken),
    )


def _check_drawn(listing: Listing, kin: Mapping[Item, int]) -> None:
    """DataError where a draw left a split without images, or without a class that others have."""
    faults = []
    for label, name in enumerate(listing.classes or ("",)):
        of_class = [item for item in kin if item.label == label or listing.task != "classification"]
        if all(any(item in items for item in of_class) for items in _sets(listing)):
            continue
        several = len({kin[item] for item in of_class})
        said = f"{len(of_class)} images" if several == len(of_class) else f"{len(of_class)} images in {several} groups"
        what = f"class {name} has {said}" if listing.task == "classification" else said
        faults.append(f"{what}: too few to draw {', '.join(list(listing.splits))} from; give at least 3 a class.")
    refuse(faults)


def _sets(listing: Listing) -> list[set[Item]]:
    return [set(items) for items in listing.splits.values()]


def check_copies(listing: Listing, digests: Digests, keep: bool) -> list[str]:
    """What has to be said of images that are there more than once; ``digests`` are of all items, split after split.

    Raises DataError, unless they are to be kept, where more than a hundredth of a split is also in another, or of all
    images has two labels.
    """
    where = [split for split, items in listing.splits.items() for _ in items]
    items, met = _every(listing), dict[bytes, list[int]]()
    for at, digest in enumerate(digests):
        if digest is not None:
            met.setdefault(digest, []).append(at)
    same = [places for places in met.values() if len(places) > 1]
    torn = [places for places in same if len({items[at].label for at in places}) > 1]
    faults, notes = list[str](), list[str]()
    if torn:
        told = [" and ".join(f"{items[at].image} ({listing.classes[items[at].label]})" for at in p[:2]) for p in torn]
        said = f"{len(torn)} images have two labels: {_some(told)}"
        (faults if sum(map(len, torn)) > COPIES_BORNE * len(items) else notes).append(said)
    for split in [split for split in listing.splits if split != "train"]:
        crossing = [p for p in same if len({where[at] for at in p}) > 1 and split in {where[at] for at in p}]
        count = sum(where[at] == split for places in crossing for at in places)
        if count:
            told = [" = ".join(str(items[at].image) for at in _one_a_split(places, where)) for places in crossing]
            said = f"{count} images of {split} are in another split too: {_some(told)}"
            (faults if count > COPIES_BORNE * len(listing.splits[split]) else notes).append(said)
    if faults and not keep:
        refuse([f"{fault}. Remove them, or keep them with --set copies=keep." for fault in faults])
    spare = sum(len(places) - 1 for places in same)
    told = [" = ".join(str(items[at].image) for at in places[:2]) for places in same]
    return [*faults, *notes, *([f"{spare} images are copies of others: {_some(told)}"] if spare else [])]


def _one_a_split(places: Sequence[int], where: Sequence[str]) -> list[int]:
    return list({where[at]: at for at in places}.values())[:2]


def _some(told: Sequence[str]) -> str:
    more = len(told) - MOST_FAULTS_SAID
    return "; ".join(told[:MOST_FAULTS_SAID]) + (f"; and {more} more" if more > 0 else "")
