"""Places that links lead between."""

from collections.abc import Mapping

from convfabric.graph.parts import Place


def reached(starts: set[Place], links: set[tuple[Place, Place]]) -> set[Place]:
    """Everything that can be reached from the starts along the links, the starts included.

    >>> a, b, c = (Place(layer, 0) for layer in range(3))
    >>> reached({a}, {(a, b), (c, a)}) == {a, b}
    True
    """
    onward: dict[Place, list[Place]] = {}
    for source, target in links:
        onward.setdefault(source, []).append(target)
    found, fresh = set(starts), list(starts)
    while fresh:
        for target in onward.get(fresh.pop(), ()):
            if target not in found:
                found.add(target)
                fresh.append(target)
    return found


def grouped(links: Mapping[Place, list[Place]]) -> list[frozenset[Place]]:
    """The places, those together that links lead between.

    >>> a, b, c = (Place(layer, 0) for layer in range(3))
    >>> [len(group) for group in grouped({a: [c], b: [], c: [a]})]
    [2, 1]
    """
    groups, seen = [], set[Place]()
    for place in sorted(links):
        if place not in seen:
            group, fresh = {place}, [place]
            while fresh:
                new = {other for other in links[fresh.pop()] if other not in group}
                group |= new
                fresh += new
            seen |= group
            groups.append(frozenset(group))
    return groups
