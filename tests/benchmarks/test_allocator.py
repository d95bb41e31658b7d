"""Memory that was freed is used again, and not asked of the system a second time."""

import subprocess
import sys

import pytest

from tests.support.paths import REPOSITORY

PAGES = """
import resource, sys
import torch
from benchmarks.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):  # holes that small tensors leave are filled after a few
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    last = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(last)
"""


def pages_of_a_large_tensor(how: str) -> int:
    """Pages that a process is given for a tensor of 64 MiB after it has freed others."""
    run = subprocess.run(
        [sys.executable, "-c", PAGES, how],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_is_kept():
    assert pages_of_a_large_tensor("keep") < 100 < pages_of_a_large_tensor("as it is")
