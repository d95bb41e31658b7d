"""Results as a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from benchmarks.contenders import AVG_POOL, COMPILED, COMPOSED, EAGER, FUSED, MAX_POOL, OP
from benchmarks.results import (
    InputPipelineResults,
    NetworkParts,
    NetworkResults,
    PoolingResults,
    Results,
    Spread,
)
from benchmarks.tables import title

__all__ = ["draw"]

COLOURS = {
    OP: "#1b6ca8",
    FUSED: "#2e9e6b",
    COMPOSED: "#a6d9c0",
    EAGER: "#c0392b",
    COMPILED: "#eba59c",
    MAX_POOL: "#4d4d4d",
    AVG_POOL: "#b3b3b3",
}


@dataclass(frozen=True)
class Bar:
    """A height, and the quartiles around it."""

    height: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """Bars of one colour, by the group that they stand in."""

    label: str
    colour: str
    bars: dict[str, Bar]
    hatch: str | None = None


def draw(several: Sequence[Results]) -> Figure:
    """One or two panels for each of the results; the figure belongs to no window.

    The parts of networks are a table only.
    """
    several = [results for results in several if not isinstance(results, NetworkParts)]
    panels = [2 if isinstance(results, PoolingResults) else 1 for results in several]
    figure = Figure(figsize=(15, 4 * sum(panels)), layout="constrained")
    parts = figure.subfigures(len(several), height_ratios=panels, squeeze=False)[:, 0]
    for part, results in zip(parts, several, strict=True):
        part.suptitle(title(results), fontweight="bold")
        if isinstance(results, PoolingResults):
            _pooling(results, *part.subplots(2))
        elif isinstance(results, InputPipelineResults):
            _input_pipeline(results, part.subplots())
        else:
            _networks(results, part.subplots())
    return figure


def _pooling(results: PoolingResults, upper: Axes, lower: Axes) -> None:
    groups = results.settings.shapes
    _grouped_bars(
        upper,
        groups,
        [Series(name, colour, _milliseconds(results, name)) for name, colour in COLOURS.items()],
    )
    upper.set_yscale("log")
    upper.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    upper.set_ylabel("forward + backward, ms")
    _grouped_bars(
        lower,
        groups,
        [
            Series(f"{OP}, forward", COLOURS[OP], _shares(results, OP, "forward")),
            Series(f"{OP}, backward", COLOURS[OP], _shares(results, OP, "backward"), hatch="///"),
            *(
                Series(f"{name}, both", COLOURS[name], _shares(results, name, "both"))
                for name in (FUSED, MAX_POOL, AVG_POOL)
            ),
        ],
    )
    lower.axhline(1, color="black", linewidth=1)
    lower.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    lower.set_ylabel("bandwidth at the least traffic,\nshare of a copy's")


def _networks(results: NetworkResults, axes: Axes) -> None:
    def images_per_second(seconds: float) -> float:
        return results.settings.batch_size / seconds

    _grouped_bars(axes, list(dict.fromkeys(one.task for one in results.times)), [
        Series(pool, colour, {
            one.task: _bar(one.seconds, images_per_second)
            for one in results.times if one.pool == pool
        })
        for pool, colour in zip(results.settings.pools, COLOURS.values(), strict=False)
    ])  # fmt: skip
    axes.set_ylabel("images/s")


def _input_pipeline(results: InputPipelineResults, axes: Axes) -> None:
    def images_per_second(seconds: float) -> float:
        return results.settings.images / seconds

    _grouped_bars(axes, ["one core"], [
        Series(one.pipeline, colour, {"one core": _bar(one.seconds, images_per_second)})
        for one, colour in zip(results.times, COLOURS.values(), strict=False)
    ])  # fmt: skip
    axes.set_ylabel("images/s")


def _milliseconds(results: PoolingResults, contender: str) -> dict[str, Bar]:
    return {
        one.shape: _bar(one.seconds, lambda seconds: 1000 * seconds)
        for one in results.times
        if one.contender == contender and one.direction == "both"
    }


def _shares(results: PoolingResults, contender: str, direction: str) -> dict[str, Bar]:
    return {
        one.shape: _bar(
            one.seconds,
            lambda seconds, one=one: one.fraction_of_copy * one.seconds.median / seconds,
        )
        for one in results.times
        if one.contender == contender and one.direction == direction
    }


def _bar(spread: Spread, scale: Callable[[float], float]) -> Bar:
    low, high = sorted((scale(spread.q1), scale(spread.q3)))
    return Bar(scale(spread.median), low, high)


def _grouped_bars(axes: Axes, groups: Sequence[str], series: Sequence[Series]) -> None:
    width = 0.85 / len(series)
    for place, one in enumerate(series):
        offset = (place - (len(series) - 1) / 2) * width
        present = [(index, one.bars[name]) for index, name in enumerate(groups) if name in one.bars]
        axes.bar(
            [index + offset for index, _ in present],
            [bar.height for _, bar in present],
            width,
            yerr=[
                [bar.height - bar.low for _, bar in present],
                [bar.high - bar.height for _, bar in present],
            ],
            error_kw={"elinewidth": 0.8},
            label=one.label,
            color=one.colour,
            hatch=one.hatch,
            edgecolor="white",
            linewidth=0.3,
        )
    axes.set_xticks(range(len(groups)), [name.replace(":", "\n") for name in groups])
    axes.set_axisbelow(True)
    axes.grid(axis="y", alpha=0.3)
    axes.margins(x=0.01)
    axes.legend(ncols=len(series), loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
