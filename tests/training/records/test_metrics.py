"""Loss and errors against their definitions."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from training.processes.ranks import Process
from training.records.metrics import ScoreSums, count_errors

CPU = torch.device("cpu")


def slow_errors(logits, targets, k):
    """A target is an error when k or more other classes score higher."""
    return sum(
        sum(score > row[target] for score in row) >= k
        for row, target in zip(logits.tolist(), targets.tolist(), strict=True)
    )


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 6, 20])
def test_count_errors(classes):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(200, classes, generator=generator)
    targets = torch.randint(classes, (200,), generator=generator)
    wrong1, wrong5 = count_errors(logits, targets)
    assert wrong1 == slow_errors(logits, targets, 1)
    assert wrong5 == slow_errors(logits, targets, 5)
    if classes <= 5:
        assert wrong5 == 0


def test_scores_are_means_over_images_not_over_batches():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 8, generator=generator)
    targets = torch.randint(8, (30,), generator=generator)
    sums = ScoreSums(CPU)
    for part in (slice(0, 27), slice(27, 30)):
        sums.add(cross_entropy(logits[part], targets[part]), logits[part], targets[part])
    scores = sums.scores_of_all(Process(0, 1, CPU))
    assert scores.images == 30
    assert math.isclose(scores.loss, cross_entropy(logits, targets).item(), rel_tol=1e-6)
    assert scores.err1 == pytest.approx(100 * slow_errors(logits, targets, 1) / 30)
    assert scores.err5 == pytest.approx(100 * slow_errors(logits, targets, 5) / 30)


def test_loss_that_is_not_finite_shows():
    for value in (math.nan, math.inf):
        sums = ScoreSums(CPU)
        sums.add(torch.tensor(value), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
        assert not sums.scores().is_finite
