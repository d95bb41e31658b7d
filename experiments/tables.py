"""Results as Markdown tables."""

from collections.abc import Sequence

from experiments.comparison import PairedDifference, Spread
from experiments.lambdas import LayerLambdas
from experiments.rows import Row

TITLES = {
    "skip": "none: convolutions stride",
    "max": "max",
    "avg": "average",
    "soft": "Max-Ent, λ = 1 (SoftPool)",
    "max_ent_unguided": "Max-Ent, λ learned per channel",
    "max_ent": "Max-Ent, λ by GFGP",
}


def results_table(runs: dict[str, list[Row]]) -> str:
    """Return mean and standard deviation over the seeds of each pooling."""
    columns = ("pooling", "`--pool`", "top-1 error, %", "top-5 error, %", "loss", "parameters")
    return table(
        columns,
        [
            (
                TITLES.get(pool, pool),
                f"`{pool}`",
                _spread([row.top1_error for row in rows], 2),
                _spread([row.top5_error for row in rows], 2),
                _spread([row.loss for row in rows], 3),
                f"{rows[0].parameters:,}",
            )
            for pool, rows in runs.items()
        ],
    )


def differences_table(differences: Sequence[PairedDifference]) -> str:
    """Return what each comparison came to, in points of the top-1 error."""
    columns = ("compared with", "difference", "95% interval", "lower in", "p", "p, Holm")
    return table(
        columns,
        [
            (
                f"`{each.pool}`",
                f"{each.mean:+.2f}",
                f"{each.low:+.2f} to {each.high:+.2f}",
                f"{each.lower} of {each.seeds}",
                f"{each.p:.2g}",
                f"{each.p_holm:.2g}",
            )
            for each in differences
        ],
    )


def lambdas_table(lambdas: Sequence[LayerLambdas]) -> str:
    """Return the λ of each layer of each pooling, means over the seeds."""
    between = ("between channels", "between images")
    columns = ("`--pool`", "layer", "λ", "least, most", *between, "position")
    groups: dict[tuple[str, str], list[LayerLambdas]] = {}
    for each in lambdas:
        groups.setdefault((each.pool, each.layer), []).append(each)
    return table(
        columns,
        [
            (
                f"`{pool}`",
                f"`{layer}`",
                _spread([each.mean for each in seeds], 2),
                f"{min(each.least for each in seeds):.2f}, {max(each.most for each in seeds):.2f}",
                f"{_mean([each.between_channels for each in seeds]):.3f}",
                f"{_mean([each.between_images for each in seeds]):.3f}",
                _spread([each.position for each in seeds], 2),
            )
            for (pool, layer), seeds in groups.items()
        ],
    )


def _spread(values: Sequence[float], digits: int) -> str:
    spread = Spread.of(values)
    return f"{spread.mean:.{digits}f} ± {spread.deviation:.{digits}f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [_line(columns), f"|{'---|' * len(columns)}", *(_line(cells) for cells in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
