"""Symmetrization of two alignments of a sentence pair, one per direction (Och & Ney 2003, section 4.5)."""

from collections.abc import Callable, Iterable

from nmt.alignment.pharaoh import Link

Links = set[Link]
_NEIGHBORS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def symmetrize(forward: Iterable[Link], backward: Iterable[Link], method: str) -> list[Link]:
    """Join two alignments into one.

    Args:
        forward, backward: links (source word, target word) of the two directions.
        method: a key of `METHODS`.

    Returns:
        links in source order; whatever the method, they lie between the intersection and the union of both.
    """
    return sorted(METHODS[method](set(forward), set(backward)))


def _grow_diag(forward: Links, backward: Links) -> Links:
    """Grow the intersection by adjacent links of the union, diagonals included, one of whose words has no link yet.

    The procedure of Koehn et al. (2005, section 3): pass over all links in source order until nothing is added.
    """
    links, union = forward & backward, forward | backward
    sources, targets = {i for i, _ in links}, {j for _, j in links}
    ordered = sorted(union)
    grows = True
    while grows:
        grows = False
        for i, j in ordered:
            # A link added in this pass grows in turn when the pass has yet to reach it.
            for new in ((i + di, j + dj) for di, dj in _NEIGHBORS if (i, j) in links):
                if new in union and new not in links and (new[0] not in sources or new[1] not in targets):
                    links.add(new)
                    sources.add(new[0])
                    targets.add(new[1])
                    grows = True
    return links


def _grow_diag_final(forward: Links, backward: Links, condition: Callable[[Iterable[bool]], bool] = any) -> Links:
    """Add to grow-diag each link of either direction of whose words any (or all, as `condition`) have no link yet."""
    links = _grow_diag(forward, backward)
    sources, targets = {i for i, _ in links}, {j for _, j in links}
    for direction in (forward, backward):
        for i, j in sorted(direction):
            if condition((i not in sources, j not in targets)):
                links.add((i, j))
                sources.add(i)
                targets.add(j)
    return links


METHODS: dict[str, Callable[[Links, Links], Links]] = {
    "intersection": lambda forward, backward: forward & backward,
    "union": lambda forward, backward: forward | backward,
    "grow-diag": _grow_diag,
    "grow-diag-final": _grow_diag_final,
    "grow-diag-final-and": lambda forward, backward: _grow_diag_final(forward, backward, all),
}
"""Symmetrization methods by name."""
