"""A table of 64-bit hashes that is filled and read by blocks."""

import numpy as np
from numpy.typing import NDArray

from nmt.data.cleaning.text_block import Flags, Hashes, Ints

_BITS = 22


class HashTable:
    """Hashes, each once, with rows of numbers: open addressing, in which 0 is an empty place.

    A hash takes 16 to 32 bytes, and twice to four times its row.

    Args:
        columns: of the float32 rows.
    """

    def __init__(self, columns: int = 0) -> None:
        self.size, self.hashes = 0, np.zeros(1 << 12, np.uint64)
        self.rows, self.seen = np.zeros((1 << 12, columns), np.float32), np.zeros(1 << _BITS, np.bool_)

    def add(self, hashes: Hashes) -> Flags:
        """Add hashes and return which are new: of equal ones, in the table or here, only the first."""
        unique, first = np.unique(np.maximum(hashes, np.uint64(1)), return_index=True)
        while 2 * (self.size + len(unique)) > len(self.hashes):
            kept, rows = self.hashes[self.hashes > 0], self.rows[self.hashes > 0]
            self.hashes = np.zeros(2 * len(self.hashes), np.uint64)
            self.rows = np.zeros((len(self.hashes), rows.shape[1]), np.float32)
            self.rows[self._place(kept)[0]] = rows
        new = np.zeros(len(hashes), np.bool_)
        new[first] = self._place(unique)[1]
        self.size += int(new.sum())
        return new

    def set(self, hashes: Hashes, rows: NDArray[np.float32]) -> None:
        """Add hashes, each once, with their rows."""
        self.add(hashes)
        self.rows[self._place(hashes)[0]] = rows
        self.seen[hashes >> np.uint64(64 - _BITS)] = True

    def find(self, hashes: Hashes) -> tuple[Ints, NDArray[np.float32]]:
        """Return which of K hashes have a row, and these rows, (found, columns)."""
        which = np.flatnonzero(self.seen[hashes >> np.uint64(64 - _BITS)])  # most that have none: without a cache miss
        at = self._find(hashes[which])
        there = self.hashes[at] == hashes[which]
        return which[there], self.rows[at[there]]

    def _find(self, hashes: Hashes) -> Ints:
        """Return the place of each hash, or an empty one where it would be."""
        at, pending = hashes.astype(np.int64) & (len(self.hashes) - 1), np.arange(len(hashes))
        while len(pending):
            there = self.hashes[at[pending]]
            pending = pending[(there != 0) & (there != hashes[pending])]
            at[pending] = (at[pending] + 1) & (len(self.hashes) - 1)
        return at

    def _place(self, unique: Hashes) -> tuple[Ints, Flags]:
        """Give every hash a place, and return it and whether the hash is new."""
        at = self._find(unique)
        new = self.hashes[at] == 0
        while len(pending := np.flatnonzero(self.hashes[at] != unique)):  # of several in one place the last one stays
            at[pending] = self._find(unique[pending])
            self.hashes[at[pending]] = unique[pending]
        return at, new
