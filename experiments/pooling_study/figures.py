"""The study's two figures."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
from experiments.pooling_study.networks import NETWORKS
from experiments.pooling_study.plan import COMPARED, GUIDED
from experiments.pooling_study.poolings import POOLINGS
from experiments.pooling_study.rows import EpochRow, ExampleRow, LambdaRow, RunRow, ShiftRow


def draw_answers(runs: Sequence[RunRow], shifts: Sequence[ShiftRow]) -> Figure:
    """Return guided Max-Ent pooling's differences from the others, and errors of moved images.

    Figures belong to no window.
    """
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    panels = figure.subplot_mosaic([["differences", "fashion"], ["differences", "canvas"]])
    _draw_differences(panels["differences"], runs)
    # Outside, where it covers no interval.
    handles = panels["differences"].get_legend_handles_labels()
    figure.legend(*handles, fontsize="small", loc="outside lower left", ncols=5)
    for task in ("fashion", "canvas"):
        _draw_shifts(panels[task], [row for row in shifts if row.task == task], task)
    panels["fashion"].legend(fontsize="small")
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
    figure = Figure(figsize=(10, 9), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5, 4))
    for axes, cell in zip(upper.subplots(2, 2, sharex=True).flat, CELLS, strict=True):
        _draw_training(axes, _of(epochs, cell), _of(lambdas, cell))
        axes.set_title(TITLES_OF_CELLS[cell], fontsize="medium")
    upper.supxlabel("epochs", fontsize="medium")
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
    for index, (title, errors, color) in enumerate(groups):
        found = {each.pool: each for each in differences(errors, others)}
        places = [place + 0.16 * index for place, other in enumerate(others) if other in found]
        _draw_intervals(axes, places, list(found.values()), color, title)
    of_means = differences(means, COMPARED) + differences(means, BESIDE)
    _limit_to_the_question(axes, of_means, others)
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_yticks(
        [place + 0.32 for place in range(len(others))],
        [POOLINGS[other].title for other in others],
    )
    axes.invert_yaxis()
    axes.set_xlabel("error under guided Max-Ent pooling less that under …, points")
    axes.set_title("left of 0: guided is better (95% intervals)", fontsize="medium")


def _limit_to_the_question(
    axes: Axes, found: Sequence[PairedDifference], others: Sequence[str]
) -> None:
    """Show twice as much as the question's intervals take, and of a mean that is farther its
    number."""
    reached = [max(-each.low, each.high) for each in found if each.pool in COMPARED]
    limit = 2 * max(reached, default=1.0)
    axes.set_xlim(-limit, limit)
    for each in found:
        if abs(each.mean) > limit:
            side = 1 if each.mean > 0 else -1
            axes.annotate(
                f"{each.mean:+.1f}",
                (side * limit, others.index(each.pool)),
                ha="right" if side > 0 else "left",
                fontsize="small",
            )


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


def _draw_shifts(axes: Axes, shifts: Sequence[ShiftRow], task: str) -> None:
    """Draw errors over the distance, means over networks and seeds, of the question's poolings."""
    of_both = _finished_by_both(shifts)
    for pooling in (GUIDED, *COMPARED):
        by_distance: dict[int, list[float]] = {}
        for row in shifts:
            if row.pooling == pooling and row.seed in of_both:
                by_distance.setdefault(row.distance, []).append(row.top1_error)
        distances = sorted(by_distance)
        errors = [fmean(by_distance[distance]) for distance in distances]
        axes.plot(distances, errors, ".-", label=POOLINGS[pooling].title.replace("*", ""))
    axes.set_xlabel("test images moved by, pixels")
    axes.set_ylabel("top-1 error, %")
    names = {"fashion": "Fashion-MNIST", "canvas": "canvas"}
    axes.set_title(f"{names[task]}, mean of both networks", fontsize="medium")
    axes.grid(alpha=0.3)


def _finished_by_both(shifts: Sequence[ShiftRow]) -> set[int]:
    """Return the seeds of ``shifts`` that both networks have of every pooling of the question."""
    made = {(row.network, row.pooling, row.seed) for row in shifts}
    return {
        row.seed
        for row in shifts
        if all(
            (network, pooling, row.seed) in made
            for network in NETWORKS
            for pooling in (GUIDED, *COMPARED)
        )
    }


def _draw_training(axes: Axes, epochs: Sequence[EpochRow], lambdas: Sequence[LambdaRow]) -> None:
    """Draw λ of each layer over the epochs, mean over the seeds, and the test error beside it."""
    for layer in sorted({row.layer for row in lambdas}):
        of_layer = [row for row in lambdas if row.layer == layer]
        done = sorted({row.done for row in of_layer})
        mean, channels, images = (
            np.array(
                [fmean(getattr(row, name) for row in of_layer if row.done == at) for at in done]
            )
            for name in ("mean", "between_channels", "between_images")
        )
        (line,) = axes.plot(done, mean, label=f"pooling {layer}")
        axes.fill_between(done, mean - images, mean + images, color=line.get_color(), alpha=0.15)
        axes.plot(done, mean + channels, ":", color=line.get_color(), linewidth=0.8)
        axes.plot(done, mean - channels, ":", color=line.get_color(), linewidth=0.8)
    axes.set_ylabel("λ")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    done = sorted({row.done for row in epochs})
    errors = [fmean(row.test_error for row in epochs if row.done == at) for at in done]
    beside = axes.twinx()
    beside.plot(done, errors, "--", color="gray", label="test error")
    beside.set_yscale("log")
    for set_formatter in (beside.yaxis.set_major_formatter, beside.yaxis.set_minor_formatter):
        set_formatter("{x:.0f}")
    beside.set_ylabel("top-1 error, %")
    if lambdas:
        axes.legend(fontsize="x-small", loc="upper right")


def _of(rows: Iterable, cell: tuple[str, str]) -> list:
    return [row for row in rows if (row.task, row.network) == cell and row.pooling == GUIDED]
