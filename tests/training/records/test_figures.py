"""Pictures that are drawn in a thread, beside the training."""

import subprocess
import sys

import pytest

from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG

DRAW = """
import sys
from pathlib import Path

import torch

from training.records import figures
from training.records.histograms import histogram_of
from training.records.history import COLUMNS, EpochRecord
from training.records.lambdas import LAMBDAS_NAME, write_lambdas

out_dir = Path(sys.argv[1])
for epoch in range(1, 8):
    write_lambdas({"pool": histogram_of(torch.rand(50))}, epoch, out_dir / LAMBDAS_NAME)
history = [EpochRecord(*([epoch] * len(COLUMNS))) for epoch in range(1, 8)]
write_figures = figures.write_figures


def tell_imports(*arguments):
    before = {*sys.modules}
    write_figures(*arguments)
    print(*sorted({*sys.modules} - before))


figures.write_figures = tell_imports
pictures = figures.Figures(out_dir, "curves.pdf")
pictures.update(history)
pictures.close()
"""


@pytest.mark.slow
def test_thread_imports_nothing(tmp_path):
    """A worker process that is forked meanwhile would wait for ever for the same modules."""
    command = [sys.executable, "-c", DRAW, str(tmp_path)]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=HANG, cwd=REPOSITORY)
    assert drawn.stdout == "\n", drawn.stdout + drawn.stderr
    pictures = {path.name for path in tmp_path.iterdir()} - {"lambdas.csv"}
    assert pictures == {"curves.pdf", "curves.png", "lambdas.pdf", "lambdas.png"}
