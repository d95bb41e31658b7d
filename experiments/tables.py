"""Results as Markdown tables."""

from collections.abc import Sequence

from experiments.comparison import Spread
from experiments.head_norms import NormRow
from experiments.safe_start import StartRow


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
                spread([row.top1_error for row in seeds], 1),
                spread([row.loss for row in seeds], 2),
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
                spread([row.before for row in seeds], 2),
                spread([row.after for row in seeds], 2),
                spread([row.tuned for row in seeds], 2),
                spread([row.loss_tuned for row in seeds], 3),
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


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation; a single value has none.

    Example:
        >>> spread([1.0, 2.0, 3.0], 1), spread([1.0], 1)
        ('2.0 ± 1.0', '1.0')
    """
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    found = Spread.of(values)
    return f"{found.mean:.{digits}f} ± {found.deviation:.{digits}f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [_line(columns), f"|{'---|' * len(columns)}", *(_line(cells) for cells in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
