"""The survey counts right and sees what is wrong, and its committed results are good enough."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experiments import surgery_survey
from experiments.results_page import RESULTS, with_tables
from experiments.rows import read_rows
from experiments.survey import outcome
from experiments.survey.network import Network
from experiments.survey.pooling_calls import Calls, recorded
from experiments.survey.row import SurveyRow
from experiments.survey.tables import outcomes_table, summary, tables
from gfgp_cupy.surgery import Replacements, replace_pooling
from tests.support.paths import REPOSITORY

SHAPE = (2, 4, 16, 16)


class Branches(nn.Module):
    """Calls poolings of every kind, in a module of its own and in the forward."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.block = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.unused = nn.MaxPool2d(2)
        self.auxiliary = nn.AvgPool2d(5, 3)
        self.whole = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = F.avg_pool2d(self.first(x), 3, stride=1, padding=1)
        y = F.max_pool2d(self.block(x), 2) + torch.max_pool2d(self.block(x), (2, 2), 2)
        if self.training:
            y = y + self.auxiliary(x)[..., :4, :4]
        thin = F.max_pool1d(x[:, 0], kernel_size=2).mean()
        pixels = F.max_pool2d(x, 1, 2).mean() + F.avg_pool2d(x, x.shape[-1]).mean()
        quarters = F.adaptive_avg_pool2d(x, (2, 2)).mean() + F.adaptive_avg_pool2d(y, 4).mean()
        return self.whole(y) + thin + pixels + quarters


def test_every_kind_of_pooling_is_counted_where_it_is_called():
    model, calls = Branches(), Calls()
    for training in (False, True):
        with recorded(model.train(training), calls), torch.no_grad():
            model(torch.randn(SHAPE))
    found = {str(each): (each.extent, each.in_module, each.stride_one) for each in calls.poolings}
    assert found == {
        "(root) avg_pool2d(3/1/1)": ("part", False, True),
        "block.1 max_pool2d(3/2/1)": ("part", True, False),
        "(root) max_pool2d(2/2)": ("part", False, False),
        "(root) max_pool1d(2/2)": ("part", False, False),
        "(root) max_pool2d(1/2)": ("pixel", False, False),
        "(root) avg_pool2d(16/16)": ("map", False, False),
        "(root) adaptive_avg_pool2d(to (2, 2))": ("part", False, False),
        "(root) adaptive_avg_pool2d(to 4)": ("same", False, False),
        "whole adaptive_avg_pool2d(to 1)": ("map", True, False),
        "auxiliary avg_pool2d(5/3)": ("part", True, False),
    }
    # The function that is called twice in one forward is in two places; the module is in one.
    assert [each.ordinal for each in calls.partial if each.window == "2/2"][:2] == [0, 1]
    assert sum(each.path == "block.1" for each in calls.partial) == 1
    assert "unused" not in calls.modules and "block.0" in calls.modules


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_code_that_passes_the_functions_by_is_counted_too():
    scripted = torch.jit.script(nn.Sequential(nn.MaxPool2d(2)))
    for call in (scripted, lambda x: torch._C._nn.avg_pool2d(x, 3)):
        calls = Calls()
        with recorded(nn.Identity(), calls), torch.no_grad():
            call(torch.randn(SHAPE))
        assert len(calls.partial) == 1


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        return F.avg_pool2d(self.pool(self.conv(x)), 3, 2)


def network_of(build):
    # Of a library that is there, for its version.
    return Network("torch", "small", build, "torch", SHAPE)


def test_survey_takes_the_options_that_the_untouched_network_needs():
    row = outcome.survey(network_of(Small))
    assert (row.outcome, row.options, row.error) == ("wholly", "functional=True", "")
    assert (row.partial, row.in_forward, row.default_replaced, row.replaced) == (2, 1, 1, 2)
    assert (row.sizes_kept, row.keys_kept, row.silent, row.left) == ("yes", "yes", "", "")
    assert (row.step, row.heads, row.heads_trained) == ("ran", 2, 2)
    assert outcome.survey(network_of(lambda: nn.Conv2d(4, 6, 3))).outcome == "does not pool"
    row = outcome.survey(network_of(lambda: nn.Sequential(nn.Conv2d(5, 6, 3), nn.MaxPool2d(2))))
    assert row.outcome == "does not run"
    assert "channels" in row.error


def unlisted(model, **options):
    return Replacements(replace_pooling(model, **options))


def of_another_size(model, sample_shape, **options):
    done = replace_pooling(model, sample_shape=sample_shape, functional=True)
    model.conv.stride = (2, 2)
    return done


def without_a_weight(model, sample_shape, **options):
    done = replace_pooling(model, sample_shape=sample_shape, functional=True)
    model.conv.bias = None
    return done


def that_raises(model, sample_shape, **options):
    raise KeyError("nothing that is documented")


@pytest.mark.parametrize(
    ("surgery", "expected"),
    [
        (unlisted, "silent"),
        (of_another_size, "broken"),
        (without_a_weight, "broken"),
        (that_raises, "broken"),
    ],
)
def test_survey_sees_what_is_wrong(surgery, expected, monkeypatch):
    monkeypatch.setattr(outcome, "replace_pooling", surgery)
    assert outcome.survey(network_of(Small)).outcome == expected


def test_head_without_gradient_is_seen():
    """The maps of one pooling have no part in the output."""

    class Detached(Small):
        def forward(self, x):
            return F.avg_pool2d(self.pool(self.conv(x)).detach() + self.conv(x)[..., :7, :7], 3, 2)

    row = outcome.survey(network_of(Detached))
    assert (row.outcome, row.heads, row.heads_trained, row.heads_idle) == ("wholly", 2, 1, 1)
    assert not row.trained


ROW = SurveyRow("a:b", "a", "1", 5, "2x3x8x8", partial=1, outcome="wholly", replaced=1, seconds=0.5)


def test_tables_by_hand():
    rows = [
        ROW,
        replace(ROW, options="functional=True", heads=2, heads_trained=2),
        replace(
            ROW,
            group="c",
            outcome="partly",
            heads=2,
            heads_trained=1,
            left="a.b adaptive_avg_pool2d(to 2): adaptive; a.c lp_pool3d(2/2): 3-D",
        ),
        replace(ROW, group="c", outcome="does not pool", partial=0),
        replace(ROW, group="c", outcome="does not run", partial=0),
    ]
    lines = outcomes_table(rows).splitlines()[2:]
    assert lines == [
        "| a | 2 | 0 | 0 | 1 | 1 | 0 | 0 | 0 | 0 |",
        "| c | 3 | 1 | 1 | 0 | 0 | 1 | 0 | 0 | 0 |",
        "| all | 5 | 1 | 1 | 1 | 1 | 1 | 0 | 0 | 0 |",
    ]
    text = summary(rows)
    assert "Of 4 networks that run, 3 pool" in text
    assert "In 2 of these (66.7%) every" in text
    assert "replaced wholly in 3 of 3, 100.0%" in text
    rows[2] = replace(rows[2], left=rows[2].left + "; (root) avg_pool2d(3/1): no")
    assert "replaced wholly in 2 of 3, 66.7%" in summary(rows)
    rows[2] = replace(rows[2], left="a.b adaptive_avg_pool2d(to 2): adaptive", replaced=0)
    assert "replaced wholly in 2 of 2, 100.0%" in summary(rows)
    assert "1 ran forward and backward in training mode, and each of their 2 heads" in text


def committed_rows():
    return read_rows(SurveyRow, RESULTS / "surgery_survey.csv")


def test_committed_page_has_the_committed_results():
    made_with = json.loads((RESULTS / "surgery_survey.json").read_text())
    page = surgery_survey.PAGE.read_text()
    assert with_tables(page, tables(committed_rows(), made_with)) == page


def test_committed_results_are_as_good_as_they_must_be():
    rows = committed_rows()
    # Adaptive poolings, and those of one or three dimensions, have no equivalent and are listed.
    pool = [row for row in rows if row.pools_windows]
    outcomes = [row.outcome for row in rows]
    assert sum(row.outcome != "does not run" for row in rows) >= 300
    assert outcomes.count("broken") == outcomes.count("silent") == 0
    assert sum(row.replaces_windows for row in pool) >= 0.95 * len(pool)
    assert sum(row.trained for row in rows) >= 60
    ran = [row for row in rows if row.step == "ran"]
    assert all(row.heads == row.heads_trained + row.heads_idle for row in ran)
    options = {name for row in pool for name in re.findall(r"(\w+)=", row.options)}
    assert options <= {"functional", "stride_one", "unsupported"}
    assert not [row for row in rows if row.outcome == "wholly" and "unsupported" in row.options]


@pytest.mark.slow  # processes that import torchvision and timm
def test_networks_that_have_a_row_are_left_out(tmp_path, capsys):
    pytest.importorskip("timm", reason="pip install timm")
    page, results = tmp_path / "page.md", tmp_path / "rows.csv"
    page.write_text(surgery_survey.PAGE.read_text())
    options = ["--only", "timm:resnet10t", "--results", str(results), "--page", str(page)]
    command = [sys.executable, REPOSITORY / "experiments/surgery_survey.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1/1 timm:resnet10t: wholly" in done.stdout
    (row,) = read_rows(SurveyRow, results)
    assert row.trained and (row.replaced, row.options) == (4, "")
    assert "Of 1 networks that run, 1 pool" in page.read_text()
    assert surgery_survey.main(options) == 0
    assert capsys.readouterr().out == ""
