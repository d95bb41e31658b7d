"""The experiments on digits: norms of the head, and starts after replace_pooling."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments import head_norms, results_page, safe_start
from experiments.digits import Digits, load_digits
from experiments.head_norms import NormRow
from experiments.rows import read_rows, write_rows
from experiments.safe_start import StartRow
from experiments.tables import norms_table, starts_table

NORM = NormRow(
    norm="layer",
    batch_size=2,
    seed=0,
    epochs=3,
    lr=0.00625,
    top1_error=6.0,
    loss=0.25,
    between_images=0.125,
    between_modes=0.0,
    commit="0123abc",
    torch="2.14.1",
    python="3.11.7",
    device="Processor",
    threads=1,
)
START = StartRow(
    network="vgg",
    start="as_was",
    seed=0,
    before=1.5,
    after=1.75,
    tuned=1.0,
    loss_before=0.05,
    loss_after=0.0625,
    loss_tuned=0.04,
    lambda_after="1000 0.00091",
    lambda_tuned="999 0.002",
    epochs=12,
    batch_size=32,
    lr=0.05,
    fine_tuning_lr=0.005,
    commit="0123abc",
    torch="2.14.1",
    torchvision="0.29.1",
    python="3.11.7",
    device="Processor",
    threads=1,
)


def few(digits, count=64):
    return Digits(digits.images[:count], digits.targets[:count])


def test_tables_by_hand():
    norms = [NORM, replace(NORM, seed=1, top1_error=8.0, between_images=0.375)]
    # Deviations of two values: their distance over the root of 2.
    assert norms_table(norms).splitlines()[-1] == (
        "| 2 | layer | 7.0 ± 1.4 | 0.25 ± 0.00 | 0.250 | 0.000 |"
    )
    starts = [START, replace(START, seed=1, tuned=2.0, lambda_tuned="1001 0.004")]
    assert starts_table(starts).splitlines()[-1] == (
        "| vgg | as_was | 1.50 ± 0.00 | 1.75 ± 0.00 | 1.50 ± 0.71 | 0.040 ± 0.000 | 1000, 0.003 |"
    )


def test_committed_page_has_the_committed_results():
    page = (results_page.REPOSITORY / "docs" / "networks.md").read_text()
    norms = read_rows(NormRow, results_page.RESULTS / "head_norms.csv")
    starts = read_rows(StartRow, results_page.RESULTS / "safe_start.csv")
    tables = results_page.network_tables(norms, starts)
    assert results_page.with_tables(page, tables) == page


def test_committed_starts_keep_the_accuracy():
    """Within half a point right after, and after an epoch better than the plain start."""
    rows = read_rows(StartRow, results_page.RESULTS / "safe_start.csv")
    by_start = {(row.network, row.seed, row.start): row for row in rows}
    kept = [row for row in rows if row.start == "as_was"]
    assert len(kept) >= 5 * len(safe_start.NETWORKS)
    for row in kept:
        plain = by_start[row.network, row.seed, "plain"]
        assert row.before == plain.before
        assert abs(row.after - row.before) <= 0.5
        assert row.tuned < plain.tuned and row.loss_tuned < plain.loss_tuned


def test_digits_are_split_the_same_way_each_time():
    train, test = load_digits(size=16, channels=3)
    assert (len(train.targets), len(test.targets)) == (898, 899)
    assert train.images.shape == (898, 3, 16, 16)
    assert train.images.min() == 0 and train.images.max() == 1
    counts = train.targets.bincount() - test.targets.bincount()
    assert counts.abs().max() <= 1
    assert torch.equal(load_digits(size=16, channels=3)[0].images, train.images)


def test_a_run_of_each_start(tmp_path):
    train, test = load_digits(safe_start.SIZE, channels=3)
    rows = safe_start.run("densenet", 0, few(train), few(test), epochs=1)
    assert [row.start for row in rows] == list(safe_start.STARTS)
    untouched, plain, kept = rows
    assert untouched.after == untouched.before == plain.before == kept.before
    assert kept.loss_after == pytest.approx(kept.loss_before, rel=1e-4)
    assert kept.lambda_after == "1000 0.00091105 0.00091105"
    assert plain.loss_after != pytest.approx(plain.loss_before, rel=1e-3)
    write_rows(rows, tmp_path / "rows.csv")
    assert read_rows(StartRow, tmp_path / "rows.csv") == rows


def test_a_run_of_each_norm():
    train, test = load_digits()
    data = few(train, 32), few(test, 32)
    rows = {norm: head_norms.run(norm, 2, 0, *data) for norm in ("batch", "layer")}
    assert rows["batch"].between_modes > 0.1
    assert rows["layer"].between_modes < 1e-4 < rows["layer"].between_images


def test_norms_of_the_networks_heads_alone_differ():
    for name, norm_layer in head_norms.NORMS.items():
        model = head_norms.network(norm_layer)
        trunk = [module for module in model if not hasattr(module, "head")]
        assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk)
        heads = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert bool(heads) == (name == "batch")
