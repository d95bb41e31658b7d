"""lambdas.pdf and .png: a panel per layer, its quantiles over the epochs."""

import pytest
import torch
from PIL import Image

from training.errors import UserError
from training.records.histograms import histogram_of
from training.records.lambdas import read_lambdas, write_lambdas
from training.records.lambdas_figure import draw_lambdas, write_lambdas_figure


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lambdas.csv"
    for epoch in (1, 2, 3):
        uniform = torch.linspace(0, 1, 4001) / epoch
        wide = torch.linspace(-10, 10, 4001)
        write_lambdas({"pool1": histogram_of(uniform), "pool2": histogram_of(wide)}, epoch, path)
    return path


def test_panels_are_the_quantiles(path):
    first, second = draw_lambdas(read_lambdas(path)).axes
    assert [axes.get_title() for axes in (first, second)] == ["pool1", "pool2"]
    (median,) = first.lines
    assert median.get_xdata().tolist() == [1, 2, 3]
    assert median.get_ydata().tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 6], abs=0.01)
    outer, inner = (band.get_paths()[0].vertices.tolist() for band in first.collections)
    for band, share in ((outer, 0.05), (inner, 0.25)):
        for epoch in (1, 2, 3):
            ends = [y for x, y in band if x == epoch]
            assert min(ends) == pytest.approx(share / epoch, abs=0.01)
            assert max(ends) == pytest.approx((1 - share) / epoch, abs=0.01)
    assert first.get_ylim() == (0, 1) and second.get_ylim()[0] < -9


def test_file_of_many_layers_and_of_none(tmp_path, path):
    write_lambdas_figure(path)
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with Image.open(path.with_suffix(".png")) as image:
        assert image.format == "PNG"
    write_lambdas_figure(tmp_path / "missing.csv")
    assert not (tmp_path / "missing.pdf").exists()
    many = {1: {rf"$\layer${n}": histogram_of(torch.rand(50)) for n in range(9)}}
    panels = [axes for axes in draw_lambdas(many).axes if axes.has_data()]
    assert len(panels) == 9
    panels[0].figure.draw_without_rendering()  # a layer's name is drawn, and is no formula


def test_file_that_is_not_ours(tmp_path):
    path = tmp_path / "lambdas.csv"
    for text in ("notes\n", "epoch,layer,low,high,count\n1,a,x,1,2\n"):
        path.write_text(text)
        with pytest.raises(UserError, match="is not what this program wrote"):
            write_lambdas_figure(path)
