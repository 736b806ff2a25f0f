"""Sets of 64-bit hashes as sorted arrays, 8 bytes for each."""

import numpy as np

from nmt.data.cleaning.text_block import Flags, Hashes, Ints

_SHIFT = np.uint64(64 - 22)


class SortedKeys:
    """Keys in ascending order; most of those that are not among them are found missing without a search."""

    def __init__(self, keys: Hashes) -> None:
        self.keys, self.seen = keys, np.zeros(1 << 22, np.bool_)
        self.seen[_slots(keys)] = True

    def find(self, keys: Hashes) -> tuple[Ints, Ints]:
        """Return which of these keys are there, and the place of each of them."""
        which = np.flatnonzero(self.seen[_slots(keys)])
        places, found = _search(self.keys, keys[which])
        return which[found], places[found]


class HashSet:
    """Hashes in sorted arrays, each longer than the next."""

    def __init__(self) -> None:
        self.arrays = list[Hashes]()

    def add(self, hashes: Hashes) -> Flags:
        """Add hashes and return which are new: of equal ones, in the set or here, only the first."""
        (added, first), new = np.unique(hashes, return_index=True), np.zeros(len(hashes), np.bool_)
        for array in self.arrays:
            is_new = ~_search(array, added)[1]
            added, first = added[is_new], first[is_new]
        new[first] = True
        while len(added) and self.arrays and len(self.arrays[-1]) <= len(added):
            added = np.sort(np.concatenate([self.arrays.pop(), added]), kind="stable")  # which merges
        self.arrays += [added] if len(added) else []
        return new


def _slots(keys: Hashes) -> Hashes:
    return (keys * np.uint64(0x9E3779B97F4A7C15)) >> _SHIFT


def _search(array: Hashes, keys: Hashes) -> tuple[Ints, Flags]:
    places = np.searchsorted(array, keys)
    return places, array[np.minimum(places, len(array) - 1)] == keys
