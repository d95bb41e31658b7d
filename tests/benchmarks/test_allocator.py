"""Memory that was freed is used again, and not asked of the system a second time."""

import platform
import subprocess
import sys

import pytest

from tests.support.paths import REPOSITORY

PAGES = """
import ctypes, resource, sys
from benchmarks.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: in large pages 64 MiB are few
for _ in range(20):  # holes that smaller memory leaves are filled after a few
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = ctypes.c_void_p(c.malloc(2**26))
    ctypes.memset(memory, 1, 2**26)
    c.free(memory)
    last = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(last)
"""


def pages_of_64_mib(how: str) -> int:
    """Pages that a process is given for 64 MiB after it has freed as much."""
    run = subprocess.run(
        [sys.executable, "-c", PAGES, how],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    assert pages_of_64_mib("keep") < 100 < pages_of_64_mib("as it is")
