"""The sparse layer as one operator of torch: the sums of banded convolutions for all nodes of one layer.

``torch.ops.convfabric.banded_sums(maps, kernels, biases, wiring, form)``

- maps: responses (B, C, H, W), float32 or bfloat16, all of one dtype; they are read as channels-last.
- kernels: those of the edges, float32 (pairs of channels, 3, 3), as the layer of a BandedConv stores them.
- biases: none, or one float32 (C,) for each node.
- wiring: for each node height, width, channels, what is done with the sum (KEPT: it is among the results;
  RELU: negative values become zero) and the number of its edges; after each node its edges, each the position
  of its map, the position of its kernels, and its step in scales. Behind the positions of the maps stand those
  of the nodes themselves, so that one call can run several layers.
- form: "stored"; "adjoint" for kernels of edges that run the other way, from the node to the map; "packed"
  where one tensor holds, in the order of the wiring, all kernels as :func:`packed` lays them out, and another
  all biases.

The adjoint of a layer is a layer, so gradients of the maps come from the same operator. Gradients of the
kernels come from ``banded_kernel_gradients(maps, gradients, wiring)``, whose wiring has four numbers for
each edge: the positions of its map and of its gradient, its step, and the number of its pairs. Gradients of
the biases are ``channel_sums(gradients)``.
"""

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from convfabric.execution.compiler import compiled
from convfabric.operators import BandedConv, Operator

DTYPES = (torch.float32, torch.bfloat16)
LIBRARY: Any = torch.library.Library("convfabric", "DEF")  # type: ignore[no-untyped-call]
LIBRARY.define("banded_sums(Tensor[] maps, Tensor[] kernels, Tensor[] biases, SymInt[] wiring, str form) -> Tensor[]")
LIBRARY.define("banded_kernel_gradients(Tensor[] maps, Tensor[] gradients, SymInt[] wiring) -> Tensor[]")
LIBRARY.define("channel_sums(Tensor[] maps) -> Tensor[]")
KEPT, RELU = 1, 2
FORMS = ("stored", "adjoint", "packed")
Wired = tuple[int, int, int, int, list[tuple[int, int, int]]]
"""A node: height, width, channels, what is done with it, and its edges: map, kernels, step."""


def runs(operator: Operator, channels_in: int, channels_out: int) -> bool:
    """Whether the kernels know an operator between so many channels.

    >>> runs(BandedConv(), 8, 4), runs(BandedConv(), 3, 3)
    (True, False)
    """
    banded = isinstance(operator, BandedConv) and operator.kernel == 3 and not operator.distances
    return banded and (channels_in != channels_out or channels_in > 3)


def wired(wiring: Sequence[int]) -> Iterator[Wired]:
    """The nodes of a wiring.

    >>> list(wired([8, 8, 4, KEPT, 1, 0, 0, 1]))
    [(8, 8, 4, 1, [(0, 0, 1)])]
    """
    at = 0
    while at < len(wiring):
        height, width, channels, what, count = wiring[at : at + 5]
        at += 5
        edges = [(wiring[at + 3 * e], wiring[at + 3 * e + 1], wiring[at + 3 * e + 2]) for e in range(count)]
        at += 3 * count
        yield height, width, channels, what, edges


def packed(weight: Tensor, channels_in: int, channels_out: int) -> Tensor:
    """Kernels (pairs, 3, 3) as the inner loop reads them, for weights that will not change."""
    found = torch.empty(compiled().convfabric_packed_size(channels_in, channels_out))
    stored = weight.detach().float().contiguous()
    compiled().convfabric_pack(channels_in, channels_out, pointer(stored), pointer(found))
    return found


def _empty(maps: Sequence[Tensor], height: int, width: int, channels: int) -> Tensor:
    return maps[0].new_empty((maps[0].shape[0], height, width, channels)).permute(0, 3, 1, 2)


def _last(maps: Sequence[Tensor]) -> list[Tensor]:
    return [m.contiguous(memory_format=torch.channels_last) for m in maps]


def _facts(m: Tensor) -> tuple[int, int, int, int]:
    """Where a map lies, its height, width and channels."""
    return m.data_ptr(), m.shape[2], m.shape[3], m.shape[1]


@lru_cache(maxsize=1024)
def _laid_out(wiring: tuple[int, ...]) -> tuple[Any, list[tuple[int, int, int]]]:
    """A wiring as the kernels read it, and heights, widths and channels of the sums that are kept."""
    kept = [(height, width, channels) for height, width, channels, what, _ in wired(wiring) if what & KEPT]
    return _table(wiring), kept


def _table(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor's values begin, as the kernels are told."""
    return ctypes.c_void_p(tensor.data_ptr())


def _places(tensors: Sequence[Tensor]) -> Any:
    return _table([tensor.data_ptr() for tensor in tensors])


def direct_sums(
    maps: list[Tensor], kernels: list[Tensor], biases: list[Tensor], wiring: list[int], form: str
) -> list[Tensor]:
    """The operator on a CPU without torch's dispatch, which for a small layer takes as long as the layer."""
    maps, kernels = _last(maps), [weight.contiguous() for weight in kernels]
    biases = [bias.contiguous() for bias in biases]
    table, shapes = _laid_out(tuple(wiring))
    sums = [_empty(maps, *shape) for shape in shapes]
    compiled().convfabric_sums(
        _table([fact for m in maps for fact in _facts(m)]),
        len(maps),
        _places(kernels),
        _places(biases) if biases else None,
        table,
        len(table),
        _places(sums),
        len(maps[0]),
        maps[0].dtype == torch.bfloat16,
        FORMS.index(form),
        torch.get_num_threads(),
    )
    return sums


def _sums_shapes(
    maps: list[Tensor], kernels: list[Tensor], biases: list[Tensor], wiring: list[int], form: str
) -> list[Tensor]:
    return [_empty(maps, height, width, channels) for height, width, channels, what, _ in wired(wiring) if what & KEPT]


def _kernel_gradients(maps: list[Tensor], gradients: list[Tensor], wiring: list[int]) -> list[Tensor]:
    maps, gradients = _last(maps), _last(gradients)
    found = _kernel_gradients_shapes(maps, gradients, wiring)
    edges = []
    for number, to in enumerate(found):
        source, result, step, _ = wiring[4 * number : 4 * number + 4]
        edges += [*_facts(maps[source]), step, *_facts(gradients[result]), to.data_ptr()]
    half = maps[0].dtype == torch.bfloat16
    compiled().convfabric_learn(_table(edges), len(found), len(maps[0]), half, torch.get_num_threads())
    return found


def _kernel_gradients_shapes(maps: list[Tensor], gradients: list[Tensor], wiring: list[int]) -> list[Tensor]:
    return [maps[0].new_empty((pairs, 3, 3), dtype=torch.float32) for pairs in wiring[3::4]]


def _channel_sums(maps: list[Tensor]) -> list[Tensor]:
    found = _channel_sums_shapes(maps)
    for m, to in zip(_last(maps), found, strict=True):
        pixels = ctypes.c_int64(m.numel() // m.shape[1])
        half = m.dtype == torch.bfloat16
        compiled().convfabric_channel_sums(pointer(m), pixels, m.shape[1], half, torch.get_num_threads(), pointer(to))
    return found


def _channel_sums_shapes(maps: list[Tensor]) -> list[Tensor]:
    return [m.new_empty(m.shape[1], dtype=torch.float32) for m in maps]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    maps, kernels, biases, wiring, form = inputs
    plain = all(what == KEPT and all(m < len(maps) for m, _, _ in edges) for *_, what, edges in wired(wiring))
    if (form, plain) != ("stored", True):
        raise NotImplementedError(
            "the sparse kernels give first derivatives of single layers; execution=readable gives all."
        )
    ctx.save_for_backward(*maps, *kernels)
    ctx.count, ctx.wiring, ctx.biased = len(maps), wiring, bool(biases)


def _backward(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    maps, kernels = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
    leaving: list[list[int]] = [[] for _ in maps]
    learning = [0] * (4 * len(kernels))
    for number, (*_, edges) in enumerate(wired(ctx.wiring)):
        for source, weights, step in edges:
            leaving[source] += [number, weights, -step]
            learning[4 * weights : 4 * weights + 4] = [source, number, step, len(kernels[weights])]
    back: list[int] = []
    for m, to in zip(maps, leaving, strict=True):
        back += [*m.shape[2:], m.shape[1], KEPT, len(to) // 3, *to]
    operators = torch.ops.convfabric
    for_maps = operators.banded_sums(gradients, kernels, [], back, "adjoint")
    for_kernels = operators.banded_kernel_gradients(maps, gradients, learning)
    for_biases = operators.channel_sums(gradients) if ctx.biased else []
    return for_maps, for_kernels, for_biases, None, None


LIBRARY.impl("banded_sums", direct_sums, "CPU")
LIBRARY.impl("banded_kernel_gradients", _kernel_gradients, "CPU")
LIBRARY.impl("channel_sums", _channel_sums, "CPU")
torch.library.register_fake("convfabric::channel_sums", _channel_sums_shapes, lib=LIBRARY)
torch.library.register_fake("convfabric::banded_sums", _sums_shapes, lib=LIBRARY)
torch.library.register_fake("convfabric::banded_kernel_gradients", _kernel_gradients_shapes, lib=LIBRARY)
torch.library.register_autograd("convfabric::banded_sums", _backward, setup_context=_keep, lib=LIBRARY)
