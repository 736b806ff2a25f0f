"""Memory of the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from nmt.runtime.memory import resident_memory, trim_memory
from nmt.runtime.process import setup_process
setup_process()
usual = trim_memory(0)
kept = []
for i in range(300):  # freed memory between kept tensors stays with the process
    gone = torch.ones(1 << 18)
    kept.append(torch.ones(1 << 10))
    kept.append(gone)
before = resident_memory()
kept = kept[::2]
del gone
freed = resident_memory()
same = trim_memory({usual})
print(usual, before, freed, resident_memory(), same)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's memory")
@pytest.mark.parametrize("grown", [True, False])
def test_fragmented_memory_is_returned_when_it_has_grown(grown: bool) -> None:
    usual = "usual" if grown else "before"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(usual=usual)], capture_output=True, text=True, check=True
    )
    start, before, freed, after, returned = map(int, done.stdout.split())
    assert returned == (start if grown else before)
    assert before - start > 280 << 20
    assert before - freed < 20 << 20  # kept for the next tensors
    assert (before - after > 250 << 20) == grown
