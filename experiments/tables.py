"""Results as Markdown tables."""

from collections.abc import Sequence

from experiments.comparison import PairedDifference, Spread
from experiments.head_norms import NormRow
from experiments.lambdas import LayerLambdas
from experiments.rows import Row
from experiments.safe_start import StartRow

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


def norms_table(rows: Sequence[NormRow]) -> str:
    """Return mean and standard deviation over the seeds of each norm and batch size."""
    columns = ("batch", "norm", "top-1 error, %", "loss", "λ between images", "λ off in training")
    groups: dict[tuple[int, str], list[NormRow]] = {}
    for row in sorted(rows, key=lambda row: row.batch_size):
        groups.setdefault((row.batch_size, row.norm), []).append(row)
    return table(
        columns,
        [
            (
                str(batch_size),
                norm,
                _spread([row.top1_error for row in seeds], 1),
                _spread([row.loss for row in seeds], 2),
                f"{_mean([row.between_images for row in seeds]):.3f}",
                f"{_mean([row.between_modes for row in seeds]):.3f}",
            )
            for (batch_size, norm), seeds in groups.items()
        ],
    )


def starts_table(rows: Sequence[StartRow]) -> str:
    """Return mean and standard deviation over the seeds of each network and start."""
    columns = ("network", "start", "before", "right after", "after an epoch", "loss", "λ")
    groups: dict[tuple[str, str], list[StartRow]] = {}
    for row in rows:
        groups.setdefault((row.network, row.start), []).append(row)
    return table(
        columns,
        [
            (
                network,
                start,
                _spread([row.before for row in seeds], 2),
                _spread([row.after for row in seeds], 2),
                _spread([row.tuned for row in seeds], 2),
                _spread([row.loss_tuned for row in seeds], 3),
                _means_of_lambdas([row.lambda_tuned for row in seeds]) or "–",
            )
            for (network, start), seeds in groups.items()
        ],
    )


def _means_of_lambdas(rows: Sequence[str]) -> str:
    """Return the mean over the seeds of each layer's λ, ``rows`` of numbers apart by spaces."""
    layers = zip(*([float(lam) for lam in row.split()] for row in rows), strict=True)
    return ", ".join(
        f"{_mean(layer):.2g}" if _mean(layer) < 1 else f"{_mean(layer):.0f}" for layer in layers
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
