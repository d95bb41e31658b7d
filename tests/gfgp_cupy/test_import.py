"""What `import gfgp_cupy` and `import models` bring in."""

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
import models
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
    brought, with_models = (set(line.split()) for line in process.stdout.splitlines())
    assert "gfgp_cupy.functional" in brought
    assert "models.pretrained" in with_models
    assert with_models.isdisjoint(COSTLY)
    assert packages(brought) <= {"gfgp_cupy", "torch"}
    assert packages(with_models) <= {"gfgp_cupy", "torch", "models"}


def packages(modules):
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
