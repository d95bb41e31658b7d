"""The experiments' statistics, files and pages."""

import math
from dataclasses import dataclass, replace

import pytest

from experiments import results_page
from experiments.comparison import PairedDifference, Spread, compare, holm
from experiments.rows import read_rows, write_rows
from training.errors import UserError


def test_spread_divides_by_one_less_than_the_count():
    # Deviations -3, -1, -1, 0, 5 of the mean: squares 9 + 1 + 1 + 0 + 25 = 36, over 4.
    assert Spread.of([2.0, 4.0, 4.0, 5.0, 10.0]) == Spread(mean=5.0, deviation=3.0)


def test_paired_difference_by_hand():
    # Differences -1, -2, -3: mean -2, deviation 1, t = -2 √3 with 2 degrees of freedom, for which
    # p = 1 - |t| / √(2 + t²) and the 97.5% point is 0.95 √(2 / (1 - 0.95²)) = 4.30265.
    found = PairedDifference.of("max", [10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert (found.pool, found.mean, found.seeds) == ("max", -2.0, 3)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert (found.low, found.high) == pytest.approx((-2 - half, -2 + half))


def test_holm_by_hand():
    # In order: 4 × 0.01, 3 × 0.02, 2 × 0.03 (as large as the one before), 1 × 0.9.
    assert holm([0.03, 0.01, 0.9, 0.02], 4) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7], 2) == [1.0, 1.0]
    # Two that have been made of three: 3 × 0.01, 2 × 0.02.
    assert holm([0.02, 0.01], 3) == pytest.approx([0.04, 0.03])


def test_no_difference_at_all_is_none():
    found = PairedDifference.of("max", [10.0, 20.0], [10.0, 20.0])
    assert found == PairedDifference("max", 0.0, 0.0, 0.0, seeds=2, p=1.0, p_holm=1.0)


def test_comparison_is_over_common_seeds_and_allows_for_the_number_of_others():
    values = {
        "a": {0: 5.0, 1: 7.0, 2: 8.0},
        "b": {2: 4.5, 1: 2.0, 0: 1.0, 3: 9.0},
        "c": {0: 5.5, 2: 8.5, 1: 6.5},
        "one": {0: 1.0},
    }
    found = compare(values, "b", ["a", "c", "one", "none"])
    assert [each.pool for each in found] == ["a", "c"]
    alone = [
        PairedDifference.of("a", [1.0, 2.0, 4.5], [5.0, 7.0, 8.0]),
        PairedDifference.of("c", [1.0, 2.0, 4.5], [5.5, 6.5, 8.5]),
    ]
    adjusted = holm([each.p for each in alone], family=4)
    assert found == [replace(each, p_holm=p) for each, p in zip(alone, adjusted, strict=True)]


@dataclass(frozen=True)
class Row:
    name: str
    count: int
    share: float


@dataclass(frozen=True)
class OtherRow:
    height: int


@dataclass(frozen=True)
class SameTypesRow:
    title: str
    count: int
    share: float


def test_rows_come_back_from_the_file_as_they_were(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [Row('with, a comma and a "quote"', 3, 0.1 + 0.2), Row("", 0, -1e-30)]
    write_rows(rows, path)
    assert read_rows(Row, path) == rows
    with pytest.raises(UserError, match=r"rows\.csv: holds no rows of OtherRow"):
        read_rows(OtherRow, path)
    with pytest.raises(UserError, match=r"rows\.csv: holds no rows of SameTypesRow"):
        read_rows(SameTypesRow, path)
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(Row, tmp_path / "none.csv")


@pytest.mark.parametrize("kept", [0, 5, -1, -3, -12, -20])
def test_file_that_is_not_whole_is_refused(tmp_path, kept):
    path = tmp_path / "rows.csv"
    write_rows([Row("first", 3, 0.5), Row("second", 40, 12.25)], path)
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n")[:kept])
    with pytest.raises(UserError, match=r"rows\.csv: holds no rows of Row"):
        read_rows(Row, path)


def test_table_takes_its_place_in_the_page():
    page = "before\n<!-- a -->\nold\ntable\n<!-- end of a -->\nafter <!-- end of a -->\n"
    expected = "before\n<!-- a -->\nnew\n<!-- end of a -->\nafter <!-- end of a -->\n"
    assert results_page.with_tables(page, {"a": "new"}) == expected
    with pytest.raises(UserError, match="has no <!-- b -->"):
        results_page.with_tables(page, {"b": "new"})
