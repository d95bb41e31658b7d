"""Where a network's time goes: whose time is counted as whose. No test compares two times but a
part with its whole."""

import time
from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks import network_parts, summary
from benchmarks.results import read_results
from benchmarks.stopwatch import Stopwatch
from models import create_model

FORWARD, BACKWARD = 0.01, 0.02  # seconds
PARTS = ("all", "convolutions", "poolings", "heads", "rest")


class Slow(torch.autograd.Function):
    """The identity, taking its time."""

    @staticmethod
    def forward(ctx, input):
        time.sleep(FORWARD)
        return input.clone()

    @staticmethod
    def backward(ctx, grad_output):
        time.sleep(BACKWARD)
        return grad_output


class SlowLayer(nn.Module):
    def forward(self, input):
        return Slow.apply(input)


class Outer(nn.Module):
    """Calls a slow layer and does nothing else, or one thing that has a backward pass."""

    def __init__(self, scale):
        super().__init__()
        self.inner, self.scale = SlowLayer(), scale

    def forward(self, input):
        output = self.inner(input)
        return output * self.scale if self.scale else output


def times_of(outer, input):
    stopwatch = Stopwatch({"outer": outer, "inner": outer.inner})
    outer(input).sum().backward()
    return (*stopwatch.take(), stopwatch)


def test_forward_and_backward_are_counted():
    forward, backward, stopwatch = times_of(Outer(2), torch.ones(3, requires_grad=True))
    assert FORWARD <= forward["inner"] <= forward["outer"]
    assert backward["inner"] >= BACKWARD
    assert backward["outer"] > 0
    assert stopwatch.shapes == {"outer": (3,), "inner": (3,)}


def test_backward_counts_for_the_inner_module_alone():
    _, backward, _ = times_of(Outer(0), torch.ones(3, requires_grad=True).exp())
    assert set(backward) == {"inner"}


def test_what_lies_before_a_module_is_not_its():
    hidden = Slow.apply(torch.ones(3, requires_grad=True))
    scale = nn.Linear(3, 3)
    stopwatch = Stopwatch({"linear": scale})
    start = time.perf_counter()
    scale(hidden).sum().backward()
    whole = time.perf_counter() - start
    _, backward = stopwatch.take()
    assert 0 < backward["linear"] <= whole - BACKWARD


def test_each_step_begins_at_zero_and_without_gradients_there_is_no_backward():
    layer = SlowLayer()
    stopwatch = Stopwatch({"layer": layer})
    for _ in range(2):
        layer(torch.ones(3, requires_grad=True)).sum().backward()
        assert [set(taken) for taken in stopwatch.take()] == [{"layer"}, {"layer"}]
    layer(torch.ones(3))
    assert [set(taken) for taken in stopwatch.take()] == [{"layer"}, set()]
    assert [set(taken) for taken in stopwatch.take()] == [set(), set()]


def test_whose_part_a_module_is():
    parts = Counter(
        network_parts.part_of(module, path)
        for path, module in create_model("resnet18", pool="max_ent").named_modules()
    )
    # Of the heads' own convolutions, two each, none is the network's.
    assert parts["convolutions"] == 1 + 16 + 3
    assert parts["poolings"] == parts["heads"] == 5


@pytest.fixture(scope="module")
def results_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "parts.json"
    network_parts.main(
        [
            *("--archs", "resnet18", "--image-size", "32", "--batch-size", "2"),
            *("--pools", "max", "max_ent", "--repeats", "1", "--out", str(path)),
        ]
    )
    return path


def test_parts_add_up(results_file):
    results = read_results(results_file)
    seconds = {(one.pool, one.task, one.part): one.seconds.median for one in results.parts}
    for pool in ("max", "max_ent"):
        for task in ("training", "inference"):
            whole, *parts = (seconds.pop((pool, task, part)) for part in PARTS)
            assert sum(parts) == pytest.approx(whole)
            convolutions, poolings, heads, rest = parts
            assert min(convolutions, poolings, rest) > 0
            assert (heads > 0) == (pool == "max_ent")
    assert not seconds


def test_layers_are_those_of_the_network(results_file):
    results = read_results(results_file)
    layers = results.layers
    shapes = ["64x32x32:2/2/0", "64x16x16:3/2/1", "128x8x8:2/2/0", "256x4x4:2/2/0", "512x2x2:2/2/0"]
    for task in ("training", "inference"):
        of_task = [one for one in layers if one.task == task]
        assert [one.shape for one in of_task] == shapes
        assert [one.path for one in of_task][:2] == ["pool1", "pool"]
        # Of one repeat: the layers are the network's poolings, means and heads.
        parts = {
            one.part: one.seconds.median
            for one in results.parts
            if one.task == task and one.pool == "max_ent"
        }
        whole = sum(one.layer.median for one in of_task)
        assert parts["poolings"] + parts["heads"] == pytest.approx(whole)
        assert parts["heads"] == pytest.approx(sum(one.head.median for one in of_task))
    for one in layers:
        assert one.pool == "max_ent"
        assert 0 < one.head.median < one.layer.median


def test_report(results_file, capsys):
    summary.main([str(results_file)])
    text = capsys.readouterr().out
    assert "| resnet18 | training | max_ent |" in text
    assert "| resnet18 | inference | 512x2x2:2/2/0 |" in text
