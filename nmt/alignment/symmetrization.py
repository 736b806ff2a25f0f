"""Two alignments of the same sentence, made in either direction, joined into one (Och & Ney 2003, section 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nmt.alignment.pharaoh import Link

Links = set[Link]
_STRAIGHT = ((-1, 0), (0, -1), (1, 0), (0, 1))
_NEIGHBOURS = (*_STRAIGHT, (-1, -1), (-1, 1), (1, -1), (1, 1))


def symmetrize(forward: Iterable[Link], backward: Iterable[Link], method: str) -> list[Link]:
    """Joins two alignments.

    Args:
        forward, backward: links (source word, target word), of either direction.
        method: a key of `METHODS`.

    Returns:
        links in source order. Between the intersection and the union of both, whatever the method.
    """
    return sorted(METHODS[method](set(forward), set(backward)))


def _intersection(forward: Links, backward: Links) -> Links:
    return forward & backward


def _union(forward: Links, backward: Links) -> Links:
    return forward | backward


def _grow_diag(forward: Links, backward: Links) -> Links:
    """The intersection, grown by links of the union next to it, diagonals too, one of whose words has no link yet.

    The procedure of Koehn et al. (2005, section 3): over all links in source order, again until nothing is added.
    """
    links, union = forward & backward, forward | backward
    sources, targets = {i for i, _ in links}, {j for _, j in links}
    ordered = sorted(union)
    grows = True
    while grows:
        grows = False
        for i, j in ordered:
            # A link that this pass has added grows in its turn, when it lies ahead.
            for new in ((i + di, j + dj) for di, dj in _NEIGHBOURS if (i, j) in links):
                if new in union and new not in links and (new[0] not in sources or new[1] not in targets):
                    links.add(new)
                    sources.add(new[0])
                    targets.add(new[1])
                    grows = True
    return links


def _grow_diag_final(forward: Links, backward: Links) -> Links:
    """Then every link of either direction one of whose words has no link yet."""
    return _final(_grow_diag(forward, backward), forward, backward, any)


def _grow_diag_final_and(forward: Links, backward: Links) -> Links:
    """Then every link of either direction both of whose words have no link yet."""
    return _final(_grow_diag(forward, backward), forward, backward, all)


def _final(links: Links, forward: Links, backward: Links, needed: Callable[[Iterable[bool]], bool]) -> Links:
    sources, targets = {i for i, _ in links}, {j for _, j in links}
    for direction in (forward, backward):
        for i, j in sorted(direction):
            if needed((i not in sources, j not in targets)):
                links.add((i, j))
                sources.add(i)
                targets.add(j)
    return links


METHODS: dict[str, Callable[[Links, Links], Links]] = {
    "intersection": _intersection,
    "union": _union,
    "grow-diag": _grow_diag,
    "grow-diag-final": _grow_diag_final,
    "grow-diag-final-and": _grow_diag_final_and,
}
"""The ways of joining, from few links to many."""
