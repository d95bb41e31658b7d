"""Results as a figure."""

from matplotlib.figure import Figure

from experiments.comparison import Spread
from experiments.rows import Row


def draw_errors(runs: dict[str, list[Row]]) -> Figure:
    """Return top-1 errors by pooling: a dot a seed, joined over the poolings, and the means.

    The figure belongs to no window.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    places = range(len(runs))
    for same_seed in zip(*runs.values(), strict=True):
        errors = [row.top1_error for row in same_seed]
        axes.plot(places, errors, ".-", linewidth=0.8, label=f"seed {same_seed[0].seed}")
    spreads = [Spread.of([row.top1_error for row in rows]) for rows in runs.values()]
    axes.errorbar(
        places,
        [spread.mean for spread in spreads],
        [spread.deviation for spread in spreads],
        fmt="_",
        color="black",
        markersize=24,
        capsize=6,
        label="mean ± standard deviation",
    )
    axes.set_xticks(places, runs)
    axes.set_xlabel("--pool")
    axes.set_ylabel("top-1 error (%)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    return figure
