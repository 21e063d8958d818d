"""How many steps several machines need for one image: the distributed cost of Budgeted Super Networks.

Greedy, as in Veniat & Denoyer 2018, section 4: whatever is ready starts, in topological order, as long as a machine
is free; every convolution, addition and classifier takes one step, an identity none.
"""

from collections.abc import Iterator

from convfabric.graph.structure import Graph

Piece = str
"""The name of an edge, of a place where responses are added, of the entry or of a head."""


def parallel_steps(graph: Graph, workers: int) -> int:
    """Steps until every head has answered, on so many machines.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> chain = weave_trellis(Trellis(layers=3, scales=1, channels=4))
    >>> parallel_steps(chain, 1), parallel_steps(chain, 8)
    (4, 4)
    """
    needs = {piece: set(before) for piece, before in _pieces(graph)}
    costly = {piece for piece in needs if not _passes(graph, piece)}
    waiting, steps = list(needs), 0
    done: set[Piece] = set()
    while waiting:
        _finish_free(waiting, done, needs, costly)
        started = [piece for piece in waiting if piece in costly and needs[piece] <= done][:workers]
        done |= set(started)
        waiting = [piece for piece in waiting if piece not in done]
        steps += bool(started)
    return steps


def _finish_free(waiting: list[Piece], done: set[Piece], needs: dict[Piece, set[Piece]], costly: set[Piece]) -> None:
    """Everything that takes no step and whose sources are there; in topological order once is enough."""
    for piece in waiting:
        if piece not in costly and needs[piece] <= done:
            done.add(piece)


def _pieces(graph: Graph) -> Iterator[tuple[Piece, list[Piece]]]:
    """Every piece with those that it waits for, in topological order."""
    yield "entry", []
    for place in graph.order:
        arriving = graph.arriving(place)
        for edge in arriving:
            yield edge.name, [str(edge.source)]
        yield str(place), [*(edge.name for edge in arriving), *(["entry"] if place == graph.entry.place else [])]
    for head in graph.heads:
        yield head.name, [str(place) for place in head.reads]


def _passes(graph: Graph, piece: Piece) -> bool:
    """Whether a piece takes no step: an identity, or a node where a single response arrives."""
    single = {
        str(node.place)
        for node in graph.nodes
        if len(graph.arriving(node.place)) + (node.place == graph.entry.place) == 1
    }
    return piece in single or piece in graph.free_edges
