"""Somebody else's network as a fabric: traced, placed, and proved to answer alike."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from convfabric.errors import ImportingError
from convfabric.fabric.module import Fabric, unweighted
from convfabric.graph import Task
from convfabric.importing.opaque import Part, parts_around
from convfabric.importing.placing import Placed, placed
from convfabric.importing.responses import Response, Seen
from convfabric.importing.trace import SOFTMAX, UNREAD, UnreadError, decomposed, exported, last_softmax, read
from convfabric.operators import Conv, Size
from convfabric.weavers import Purpose
from convfabric.weavers.imported import DECODER

TOLERANCE = 1e-5
"""Largest difference of answers that is let pass in double precision, as a share of the largest answer."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A network that was imported, and what is known of where it came from."""

    fabric: Fabric
    """In evaluation mode."""
    origins: Mapping[str, str]
    """Of weights and statistics of the fabric, the names they have in the network."""
    unread: tuple[str, ...]
    """Parameters of the network that nothing it answers in evaluation depends on, such as those of other exits, or that
    are single numbers, which are kept as such."""
    worked_out: tuple[str, ...] = ()
    """Parameters that others were worked out from, as in weight standardisation."""
    fresh: tuple[str, ...] = ()
    """What names of weights begin with that are new: heads, and what is before them."""
    kept: tuple[str, ...] = ()
    """Modules that no operator describes, kept as they are."""
    softmax: bool = False
    """Whether the network ends with a softmax, which is left out: the fabric answers with logits."""
    difference: float
    """The largest difference of answers in double precision, as a share of the largest answer."""


def import_network(
    module: nn.Module,
    size: Size,
    *,
    image_channels: int = 3,
    classes: int | None = None,
    task: Task = "classification",
    decoder: int = DECODER,
    name: str = "imported",
) -> Fabric:
    """A convolutional network as a fabric with the same weights, which answers alike for images of a size.

    The module stays as it is; of several answers the first is taken. ``size`` is height and width in pixels. Without
    ``classes`` the fabric answers as the network does, but for a softmax at its end, which is left out: answers are
    logits. With them its classifier is replaced by heads with fresh weights after the last and each earlier stage, so
    that depth is a choice; for other tasks a decoder of so many channels reads every stage, or with 0 one linear head.
    A layer that is used several times has its weights once. ``image_channels=1`` sums the stem over colours.
    Raises ImportingError, naming the operator and the module it stands in, for what no operator of a graph does, and
    where answers differ by more than 1e-5 of them.

    >>> small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    >>> fabric, images = import_network(small, (4, 4)), torch.rand(2, 3, 4, 4)
    >>> bool(torch.allclose(fabric(images), small.eval()(images), atol=1e-6))
    True
    >>> [edge.name for edge in fabric.graph.edges]
    ['L0S1_L1S16']
    """
    purpose: Any = {"image_channels": image_channels, "classes": classes, "task": task, "decoder": decoder}
    return imported(module, size, name=name, **purpose).fabric


def imported(
    module: nn.Module,
    size: Size,
    *,
    image_channels: int = 3,
    classes: int | None = None,
    task: Task = "classification",
    decoder: int = DECODER,
    name: str = "imported",
) -> Imported:
    """As :func:`import_network`, with what is known of where the weights came from."""
    Purpose(task=task, classes=2 if classes is None else classes, image_channels=image_channels, size=size)
    theirs = copy.deepcopy(module).cpu().float().eval()
    channels = 3 if image_channels == 1 and _reads_colours(theirs) else image_channels
    program = exported(theirs, channels, size, _size_of(module))
    pixels = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    try:
        proof = proved(program, theirs, pixels, name)
    except ImportingError as fault:  # decomposing takes twice as long as all else
        program = decomposed(program)
        try:
            proof = proved(program, theirs, pixels, name, parts_of(program, theirs))
        except ImportingError as still:
            first, then = str(fault), str(still)  # the second says more only where there was no row
            both = then if then.startswith(first) else f"{first} Taken apart: {then}"
            raise ImportingError(both if UNREAD in first or then.startswith(first) else first) from None
    found, fabric = proof.found, proof.fabric
    if classes is not None:
        found = placed(proof.images, proof.answered, name, classes, task, decoder)
    if channels != image_channels:
        found = grey(found)
    if classes is not None or channels != image_channels:
        fabric = weighted(found)
    origins = {ours: constant.origin for ours, constant in found.weights.items() if constant.origin}
    made_of = frozenset[str]().union(*(constant.made_of for constant in proof.found.weights.values()))
    names = {known for known, _ in theirs.named_parameters()}
    return Imported(
        fabric=fabric,
        origins=origins,
        fresh=found.fresh,
        kept=proof.kept,
        softmax=last_softmax(program) is not None,
        unread=tuple(sorted(names - made_of)),
        worked_out=tuple(sorted(names & made_of - {constant.origin for constant in proof.found.weights.values()})),
        difference=proof.difference,
    )


@dataclass(frozen=True)
class Proof:
    """A program that was read, and the fabric that answers as its module does."""

    images: Response
    answered: Seen
    found: Placed
    fabric: Fabric
    difference: float
    kept: tuple[str, ...]


def parts_of(program: ExportedProgram, module: nn.Module) -> tuple[Part, ...]:
    """The parts of a program that have to be kept as they are for the rest to be read, each as small as that allows.

    Raises ImportingError for what no part helps, and says why the modules around it cannot be kept.
    """
    parts: tuple[Part, ...] = ()
    order = {node: at for at, node in enumerate(program.graph.nodes)}
    unread = _unread(program, parts)
    while unread:
        reasons = list[str]()
        for part in parts_around(program, module, unread.node):
            if isinstance(part, str):
                reasons.append(part)
                continue
            more = (*(one for one in parts if not one.inside <= part.inside), part)
            again = _unread(program, more)
            if again is None or order[again.node] > order[unread.node]:
                parts, unread = more, again
                break
        else:
            raise ImportingError(" ".join([str(unread), *reasons[:1]]))
    return parts


def _unread(program: ExportedProgram, parts: tuple[Part, ...]) -> UnreadError | None:
    try:
        read(program, parts)
    except UnreadError as fault:
        return fault
    return None


def proved(
    program: ExportedProgram, module: nn.Module, pixels: Tensor, name: str, parts: tuple[Part, ...] = ()
) -> Proof:
    """A program read, and shown to answer as its module does for images (B, C, H, W), and for the first of them alone.

    Raises ImportingError for what a graph has no operator for, and where answers differ.
    """
    entering, answered = read(program, parts)
    found = placed(entering, answered, name)
    fabric, shares = weighted(found), last_softmax(program)
    answer = SOFTMAX[str(shares.target)] if shares is not None else _as_it_is
    for images in (pixels, pixels[:1]) if _takes(module, pixels[:1]) else (pixels,):
        difference = largest_difference(fabric, module, images, answer)
        if not difference <= TOLERANCE:
            apart = f"{difference:.1e} of the largest apart, {TOLERANCE:.0e} is let pass"
            raise ImportingError(f"{name}: answers for images {len(images)} at a time are {apart}.")
    return Proof(entering, answered, found, fabric, difference, tuple(part.path for part in parts))


def _takes(module: nn.Module, images: Tensor) -> bool:
    """Whether a module answers for so many images: a program file may be for another number alone."""
    try:
        with torch.no_grad():
            module(images)
    except Exception:  # whatever a program raises for a size that it is not for
        return False
    return True


def weighted(found: Placed) -> Fabric:
    """The fabric of a graph with its weights, in evaluation mode; heads that have none keep fresh ones."""
    fabric = unweighted(found.graph).fabric.eval()
    own = fabric.state_dict()
    with torch.no_grad():
        for name, constant in found.weights.items():
            if own[name].shape != constant.tensor.shape:
                raise ImportingError(f"{name}: {tuple(constant.tensor.shape)} found, {tuple(own[name].shape)} needed.")
            own[name].copy_(constant.tensor)
    counted = {name for name in own if name.endswith("num_batches_tracked")}
    if missing := sorted(name for name in set(own) - set(found.weights) - counted if not name.startswith(found.fresh)):
        raise ImportingError(f"{missing[0]} and {len(missing) - 1} others: nothing in the network is their weight.")
    return fabric


def _as_it_is(logits: Tensor, dim: int) -> Tensor:
    return logits


def largest_difference(
    fabric: Fabric, module: nn.Module, images: Tensor, answer: Callable[[Tensor, int], Tensor] = _as_it_is
) -> float:
    """The largest difference of answers in double precision, as a share of the largest answer.

    ``answer`` is what the module makes of its logits (B, K, ...) along a dimension.

    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny"))
    >>> largest_difference(fabric, fabric, torch.rand(1, 3, 32, 32))
    0.0
    """
    with torch.no_grad():
        wanted = copy.deepcopy(module).double().eval()(images.double())
        found = answer(copy.deepcopy(fabric).double().eval()(images.double()), 1)
    while not isinstance(wanted, Tensor):
        wanted = next(iter(wanted.values() if isinstance(wanted, Mapping) else wanted))
    if wanted.ndim == 4 and found.ndim == 4 and wanted.shape[-2:] != found.shape[-2:]:
        wanted = F.interpolate(wanted, size=found.shape[-2:], mode="bilinear", align_corners=False)
    apart, largest = (wanted - found.reshape(wanted.shape)).abs().max(), wanted.abs().max()
    return float(apart / largest.clamp(min=1e-30))


def _size_of(module: nn.Module) -> Size | None:
    """The size of images that a file is written for; None where a module does not say."""
    found: Size | None = getattr(module, "size", None) if hasattr(module, "image_channels") else None
    return found


def _reads_colours(module: nn.Module) -> bool:
    """Whether a network reads three channels, by what its graph or file says, else by its first convolution."""
    if isinstance(module, Fabric):
        return module.graph.entry.image_channels == 3
    if (known := getattr(module, "image_channels", None)) is not None:
        return bool(known == 3)
    stems = (part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d))
    return next(stems, 3) == 3


def grey(found: Placed) -> Placed:
    """The network for grey images: the stem's weights summed over colours.

    Raises ImportingError where no single convolution reads the images.
    """
    entry = found.graph.entry
    weight = found.weights.get("entry.weight")
    if weight is None or not isinstance(entry.operator, Conv) or entry.operator.groups > 1:
        raise ImportingError(f"{found.graph.name}: no single convolution reads the images, so none can be made grey.")
    summed = replace(weight, tensor=weight.tensor.sum(1, keepdim=True))
    graph = replace(found.graph, entry=replace(entry, image_channels=1))
    return replace(found, graph=graph, weights={**found.weights, "entry.weight": summed})
