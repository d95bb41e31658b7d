"""The examples run, and what they show is so."""

import re
import runpy

import pytest
from PIL import Image

from tests.support.paths import REPOSITORY


@pytest.fixture
def output_of(monkeypatch, capsys):
    """Runs an example in this process; returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        path = str(REPOSITORY / "examples" / name)
        monkeypatch.setattr("sys.argv", [path, *arguments])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return run


def test_plain_loop(output_of):
    printed = output_of("plain_loop.py")
    losses = [float(loss) for loss in re.findall(r"mean loss (.*)", printed)]
    assert len(losses) == 5
    assert losses[-1] < 0.1 * losses[0]
    right, of = map(int, re.search(r"(\d+) of (\d+) new digits are right", printed).groups())
    assert of == 357
    assert right > 0.95 * of


def test_lightning_module(output_of):
    pytest.importorskip("lightning", reason="pip install lightning")
    printed = output_of("lightning_module.py")
    assert float(re.search(r"right\W+(\d\.\d+)", printed)[1]) > 0.95


@pytest.mark.slow
def test_fine_tune_torchvision(output_of):
    printed = output_of("fine_tune_torchvision.py")
    assert re.search(r"maxpool +64 +MaxPool2d\(3/2/1\) +GFGPMaxEntPool2d\(3/2/1\)", printed)
    losses = [float(loss) for loss in re.findall(r"loss (.*)", printed)]
    assert losses[-1] < 0.7 * losses[0]


def test_plot_lambdas(output_of, tmp_path):
    picture = tmp_path / "lambdas.png"
    printed = output_of("plot_lambdas.py", str(picture))
    layers = re.findall(r"layer (\d): λ \[(\d+), (\d+)\] from (.*) to (.*)", printed)
    assert [layer[:3] for layer in layers] == [("3", "797", "16"), ("7", "797", "32")]
    for *_, low, high in layers:
        assert 0 < float(low) < float(high) < 1
    with Image.open(picture) as image:
        assert image.width > 400
        assert len(image.convert("RGB").getcolors(maxcolors=image.width * image.height)) > 100
