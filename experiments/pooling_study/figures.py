"""The study's two figures."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from experiments.comparison import PairedDifference
from experiments.pooling_study.answers import (
    BESIDE,
    CELLS,
    TITLES_OF_CELLS,
    differences,
    errors_in,
    mean_errors,
)
from experiments.pooling_study.examples import CELL_OF_EXAMPLES, examples_shown
from experiments.pooling_study.plan import COMPARED, GUIDED
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import EpochRow, ExampleRow, LambdaRow, RunRow, ShiftRow

COURSES = (
    "λ, mean",
    "λ, deviation\nbetween images",
    "λ, deviation\nbetween channels",
    "top-1 error, %",
)
"""What is drawn over the epochs."""


def draw_answers(runs: Sequence[RunRow], shifts: Sequence[ShiftRow]) -> Figure:
    """Return guided Max-Ent pooling's differences from the others, and errors of moved images.

    Figures belong to no window.
    """
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(6, 5))
    axes = left.subplots()
    _draw_differences(axes, runs)
    # Below, where it covers no interval.
    left.legend(
        *axes.get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=3
    )
    panels = right.subplots(2, 2, sharex=True)
    for axes, cell in zip(panels.flat, CELLS, strict=True):
        of_cell = [row for row in shifts if (row.task, row.network) == cell]
        _draw_shifts(axes, of_cell)
        axes.set_title(TITLES_OF_CELLS[cell], fontsize="medium")
    for axes in panels[-1]:
        axes.set_xlabel("test images moved by, pixels")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[:, 0]:
        axes.set_ylabel("top-1 error, %")
    handles = panels[0, 0].get_legend_handles_labels()
    right.legend(*handles, fontsize="small", loc="outside lower center", ncols=2)
    return figure


def draw_lambdas(
    epochs: Sequence[EpochRow],
    lambdas: Sequence[LambdaRow],
    examples: Sequence[ExampleRow],
    images: Mapping[int, np.ndarray],
) -> Figure:
    """Return λ of the guided networks over training, and the images with the most and least of it.

    Args:
        epochs, lambdas, examples: rows of the study.
        images: [H, W] of bytes of each image of ``examples_shown``, by its index.
    """
    shown = examples_shown(examples)
    figure = Figure(figsize=(12, 11), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(6, 4))
    panels = upper.subplots(len(COURSES), len(CELLS), sharex="col", sharey="row")
    for column, cell in zip(panels.T, CELLS, strict=True):
        _draw_training(column, _of(epochs, cell), _of(lambdas, cell))
        column[0].set_title(TITLES_OF_CELLS[cell], fontsize="medium")
    for axes, title in zip(panels[:, 0], COURSES, strict=True):
        axes.set_ylabel(title)
    upper.supxlabel("epochs", fontsize="medium")
    # The network with the most poolings names them all.
    most = max(panels[0], key=lambda axes: len(axes.lines))
    upper.legend(
        *most.get_legend_handles_labels(), fontsize="small", loc="outside upper center", ncols=4
    )
    if not shown:
        return figure
    layers = sorted({row.layer for row in shown})
    columns = len(shown) // len(layers)
    grid = lower.subplots(len(layers), columns, squeeze=False)
    for row_of_axes, layer in zip(grid, layers, strict=True):
        of_layer = sorted((row for row in shown if row.layer == layer), key=lambda row: -row.lam)
        for axes, row in zip(row_of_axes, of_layer, strict=True):
            axes.imshow(images[row.image], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{row.lam:.2f}", fontsize="x-small", pad=2)
            axes.set_axis_off()
    lower.suptitle(
        f"{TITLES_OF_CELLS[CELL_OF_EXAMPLES]}, seed {shown[0].seed}: the test images with the "
        "highest and the lowest λ of each pooling (from above), mean over the channels",
        fontsize="medium",
    )
    return figure


def _draw_differences(axes: Axes, runs: Sequence[RunRow]) -> None:
    """Draw intervals of the differences: of the means in black, of each pair in a colour."""
    means = mean_errors(runs)
    others = [pooling for pooling in (*COMPARED, *BESIDE) if len(means.get(pooling, {})) >= 2]
    groups = [("mean of the four", means, "black")]
    groups += [
        (TITLES_OF_CELLS[cell], errors_in(runs, cell), f"C{index}")
        for index, cell in enumerate(CELLS)
    ]
    by_group = [differences(errors, others) for _, errors, _ in groups]
    limit = _limit_of_the_question(by_group)
    axes.set_xlim(-limit, limit)
    for index, ((title, _, color), found) in enumerate(zip(groups, by_group, strict=True)):
        places = [others.index(each.pool) + 0.16 * index for each in found]
        _draw_intervals(axes, places, found, color, title)
        # Beside each other where they would lie on one another.
        _name_those_outside(axes, places, found, color, limit * (1 - 0.2 * (index % 2)))
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_yticks(
        [place + 0.32 for place in range(len(others))],
        [POOLINGS[other].title for other in others],
    )
    axes.invert_yaxis()
    axes.set_xlabel("points of top-1 error; left of 0: guided is better")
    axes.set_title("guided Max-Ent pooling less … (95% intervals)", fontsize="medium")


def _limit_of_the_question(by_group: Iterable[Sequence[PairedDifference]]) -> float:
    """Return how far the farthest interval of the question reaches, and a little more."""
    reached = [
        max(-each.low, each.high) for found in by_group for each in found if each.pool in COMPARED
    ]
    return 1.05 * max(reached, default=1.0)


def _name_those_outside(
    axes: Axes, places: Sequence[float], found: Sequence[PairedDifference], color: str, at: float
) -> None:
    """Write the numbers of differences that are outside, at a distance of ``at`` from 0, and mark
    the edge where an interval goes on behind it."""
    _, limit = axes.get_xlim()
    for place, each in zip(places, found, strict=True):
        if abs(each.mean) > limit:
            below = each.mean < 0
            axes.annotate(
                f" ◂ {each.mean:+.1f}" if below else f"{each.mean:+.1f} ▸ ",
                (-at if below else at, place),
                ha="left" if below else "right",
                va="center",
                fontsize="x-small",
                color=color,
            )
        for edge, marker in ((-limit, "<"), (limit, ">")):
            if each.low < edge < each.high:
                axes.plot(edge, place, marker, color=color, markersize=4, clip_on=False)


def _draw_intervals(
    axes: Axes, places: Sequence[float], found: Sequence[PairedDifference], color: str, title: str
) -> None:
    middles = [each.mean for each in found]
    reach = [
        [each.mean - each.low for each in found],
        [each.high - each.mean for each in found],
    ]
    axes.errorbar(
        middles, places, xerr=reach, fmt="o", markersize=3, color=color, label=title, linewidth=1
    )


def _draw_shifts(axes: Axes, shifts: Sequence[ShiftRow]) -> None:
    """Draw errors over the distance, means over the seeds, of the question's poolings."""
    seeds = [
        {row.seed for row in shifts if row.pooling == pooling} for pooling in (GUIDED, *COMPARED)
    ]
    of_all = set.intersection(*seeds)
    for pooling in (GUIDED, *COMPARED):
        by_distance: dict[int, list[float]] = {}
        for row in shifts:
            if row.pooling == pooling and row.seed in of_all:
                by_distance.setdefault(row.distance, []).append(row.top1_error)
        distances = sorted(by_distance)
        errors = [fmean(by_distance[distance]) for distance in distances]
        axes.plot(distances, errors, ".-", label=POOLINGS[pooling].title.replace("*", ""))
    axes.grid(alpha=0.3)


def _draw_training(
    column: Sequence[Axes], epochs: Sequence[EpochRow], lambdas: Sequence[LambdaRow]
) -> None:
    """Draw ``COURSES`` over the epochs, means over the seeds, those of λ for each layer."""
    of_mean, of_images, of_channels, of_errors = column
    for layer in sorted({row.layer for row in lambdas}):
        of_layer = [row for row in lambdas if row.layer == layer]
        done = sorted({row.done for row in of_layer})
        for axes, name in (
            (of_mean, "mean"),
            (of_images, "between_images"),
            (of_channels, "between_channels"),
        ):
            values = [
                fmean(getattr(row, name) for row in of_layer if row.done == at) for at in done
            ]
            axes.plot(done, values, ".-", markersize=3, label=f"pooling {layer}")
    done = sorted({row.done for row in epochs})
    errors = [fmean(row.test_error for row in epochs if row.done == at) for at in done]
    of_errors.plot(done, errors, ".-", markersize=3, color="gray")
    of_errors.set_yscale("log")
    of_errors.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    of_errors.yaxis.set_major_formatter("{x:.0f}")
    of_errors.yaxis.set_minor_formatter(NullFormatter())
    for axes in column:
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _of(rows: Iterable, cell: tuple[str, str]) -> list:
    return [row for row in rows if (row.task, row.network) == cell and row.pooling == GUIDED]
