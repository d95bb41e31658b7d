"""What `import gfgp_cupy` brings in."""

import subprocess
import sys

from tests.support.paths import REPOSITORY

COSTLY = ("torch._dynamo", "sympy", "numba", "cupy")
"""Each takes as long to import as torch itself, or waits for a driver."""

PROGRAM = """
import sys
import torch
before = set(sys.modules)
import gfgp_cupy
print(*sorted(set(sys.modules) - before))
"""


def test_import_brings_in_nothing_costly():
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    brought = set(process.stdout.split())
    assert "gfgp_cupy.functional" in brought
    assert brought.isdisjoint(COSTLY)
    packages = {module.partition(".")[0] for module in brought} - sys.stdlib_module_names
    assert packages <= {"gfgp_cupy", "torch"}
