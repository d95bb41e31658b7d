"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.contenders import COMPILED, COMPOSED, EAGER, FUSED, MAX_POOL, OP
from benchmarks.environment import Environment
from benchmarks.results import (
    InputPipelineResults,
    NetworkParts,
    NetworkResults,
    PassTime,
    PoolingResults,
    Results,
    Spread,
)

__all__ = ["markdown", "title"]


def markdown(results: Results, source: str) -> str:
    """All that the file named ``source`` holds."""
    bodies = {
        PoolingResults: _pooling,
        NetworkResults: _networks,
        NetworkParts: _network_parts,
        InputPipelineResults: _input_pipeline,
    }
    described = f"{_described(results.environment)} From `{source}`."
    body = bodies[type(results)](results)
    return "\n\n".join([f"## {title(results)}", described, *body]) + "\n"


def title(results: Results) -> str:
    """What was measured, on what, in a few words."""
    settings = results.settings
    if isinstance(results, PoolingResults):
        what = (settings.dtype, settings.layout, f"batch {settings.batch_size}")
    elif isinstance(results, InputPipelineResults):
        size = "×".join(map(str, settings.size or ["ImageNet's sizes"]))
        what = (
            "input pipeline",
            f"{settings.images} JPEG files of {size}, {settings.bytes_per_image / 1000:.0f} kB",
        )
    elif isinstance(results, NetworkParts):
        what = (
            "parts of networks",
            "float32",
            f"batch {settings.batch_size} of {settings.image_size}×{settings.image_size}",
        )
    else:
        pixels = f"{settings.image_size}×{settings.image_size}"
        precision = f"autocast {settings.amp}" if settings.amp else "float32"
        what = (
            settings.arch,
            precision,
            settings.layout,
            f"batch {settings.batch_size} of {pixels}",
        )
    return f"{results.environment.device}: {', '.join(what)}"


def _described(environment: Environment) -> str:
    versions = {
        "driver": environment.driver,
        "CUDA": environment.cuda,
        "PyTorch": environment.torch,
        "CuPy": environment.cupy,
        "Numba": environment.numba,
        "Python": environment.python,
    }
    words = [f"{name} {version}" for name, version in versions.items() if version is not None]
    commit = "" if environment.commit is None else f", commit {environment.commit[:12]}"
    modified = " (modified)" if environment.dirty else ""
    return (
        f"{environment.platform}, {', '.join(words)}; backend {environment.backend}, "
        f"{environment.threads} CPU threads; {environment.date[:10]}{commit}{modified}. "
        f"`{environment.command}`."
    )


def _pooling(results: PoolingResults) -> list[str]:
    blocks = [
        "Ratios of median times, forward + backward. Shares of the bandwidth of a copy, at the "
        "least traffic of the pass. Memory beside input, output and gradients, in outputs.",
        _table(*_ratios(results)),
        "Median times in milliseconds, quartiles in brackets, and the share of the copy's "
        "bandwidth.",
        _table(*_times(results)),
        "Peak memory of forward + backward over the size of the input, the output and the "
        "gradients included.",
        _table(*_memory(results)),
    ]
    if results.launches:
        costs = (f"{one.contender} {_spread(one.host_seconds, 1e6)}" for one in results.launches)
        blocks.append(f"Host time of a forward call in microseconds: {', '.join(costs)}.")
    missing: dict[tuple[str, str], list[str]] = {}
    for one in results.unavailable:
        missing.setdefault((one.contender, one.reason), []).append(one.shape)
    blocks += [
        f"Not measured: {contender} at {', '.join(shapes)}: {reason}."
        for (contender, reason), shapes in missing.items()
    ]
    return blocks


def _ratios(results: PoolingResults) -> tuple[list[str], list[list[str]]]:
    header = [
        "shape", "op forward", "op backward", "max_pool2d / op", "composed / fused layer",
        "eager / op", "compiled / op", "op keeps", "fused layer keeps", "max_pool2d keeps",
    ]  # fmt: skip
    times = _by_key(results)
    kept = {
        (one.shape, one.contender): one.saved_bytes / one.output_bytes for one in results.memory
    }

    def ratio(shape: str, slower: str, faster: str) -> str:
        pair = [times.get((shape, name, "both")) for name in (slower, faster)]
        if None in pair:
            return "–"
        return f"{pair[0].seconds.median / pair[1].seconds.median:.2f}×"

    return header, [
        [
            shape,
            *(_share(times.get((shape, OP, direction))) for direction in ("forward", "backward")),
            ratio(shape, MAX_POOL, OP),
            ratio(shape, COMPOSED, FUSED),
            ratio(shape, EAGER, OP),
            ratio(shape, COMPILED, OP),
            *(_cell(kept.get((shape, name)), ".2f") for name in (OP, FUSED, MAX_POOL)),
        ]
        for shape in results.settings.shapes
    ]


def _times(results: PoolingResults) -> tuple[list[str], list[list[str]]]:
    times = _by_key(results)
    names = _contenders(one.contender for one in results.times)

    def cell(time: PassTime | None) -> str:
        return "–" if time is None else f"{_spread(time.seconds, 1000)}, {_share(time)}"

    return ["shape", "pass", *names], [
        [shape, direction, *(cell(times.get((shape, name, direction))) for name in names)]
        for shape in results.settings.shapes
        for direction in ("forward", "backward", "both")
    ]


def _memory(results: PoolingResults) -> tuple[list[str], list[list[str]]]:
    peaks = {(one.shape, one.contender): one.peak_bytes / one.input_bytes for one in results.memory}
    names = _contenders(one.contender for one in results.memory)
    return ["shape", *names], [
        [shape, *(_cell(peaks.get((shape, name)), ".2f") for name in names)]
        for shape in results.settings.shapes
    ]


def _networks(results: NetworkResults) -> list[str]:
    first = {
        one.task: one.images_per_second
        for one in results.times
        if one.pool == results.settings.pools[0]
    }
    header = [
        "pooling", "task", "images/s", "ms per batch",
        f"of {results.settings.pools[0]}'s images/s", "repeats",
    ]  # fmt: skip
    rows = [
        [
            one.pool,
            one.task,
            f"{one.images_per_second:.4g}",
            _spread(one.seconds, 1000),
            f"{one.images_per_second / first[one.task]:.0%}",
            str(one.seconds.repeats),
        ]
        for one in results.times
    ]
    return [_table(header, rows)]


PARTS = ("all", "convolutions", "poolings", "heads", "rest")


def _network_parts(results: NetworkParts) -> list[str]:
    parts = {(one.arch, one.pool, one.task, one.part): one.seconds for one in results.parts}
    rows = []
    for arch, pool, task, _ in filter(lambda key: key[3] == "all", parts):
        seconds = {part: parts[arch, pool, task, part].median for part in PARTS}
        first = parts[arch, results.settings.pools[0], task, "all"].median
        rows.append(
            [
                arch,
                task,
                pool,
                _spread(parts[arch, pool, task, "all"], 1000),
                f"{seconds['all'] / first:.2f}×",
                *(
                    f"{1000 * seconds[part]:.3g}, {seconds[part] / seconds['all']:.0%}"
                    for part in PARTS[1:]
                ),
            ]
        )
    header = [
        "network", "task", "pooling", "ms per batch", f"to {results.settings.pools[0]}",
        "convolutions", "poolings and means", "heads", "rest",
    ]  # fmt: skip
    layers = [
        [
            one.arch, one.task, one.shape, _spread(one.layer, 1000), _spread(one.head, 1000),
            f"{one.head.median / one.layer.median:.0%}",
        ]
        for one in results.layers
    ]  # fmt: skip
    return [
        "Medians in milliseconds, quartiles in brackets, and each part's share of the batch.",
        _table(header, sorted(rows, key=lambda row: (row[0], row[1]))),
        "The guided layers by themselves.",
        _table(["network", "task", "map", "layer, ms", "its head, ms", "head / layer"], layers),
    ]


def _input_pipeline(results: InputPipelineResults) -> list[str]:
    settings = results.settings
    libraries = (
        f"One core's CPU time, interleaved. torchvision {settings.torchvision}, Pillow "
        f"{settings.pillow}, libjpeg-turbo {settings.libjpeg_turbo}. Quartiles in brackets."
    )
    header = ["pipeline", "images/s per core", "ms per image", "speed-up", "repeats"]
    rows = [
        [
            one.pipeline,
            f"{one.images_per_second:.4g}",
            _spread(one.seconds, 1000 / settings.images),
            _spread(one.speedup, 1),
            str(one.seconds.repeats),
        ]
        for one in results.times
    ]
    return [libraries, _table(header, rows)]


def _by_key(results: PoolingResults) -> dict[tuple[str, str, str], PassTime]:
    return {(one.shape, one.contender, one.direction): one for one in results.times}


def _contenders(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _share(time: PassTime | None) -> str:
    return "–" if time is None else f"{time.fraction_of_copy:.0%}"


def _spread(spread: Spread, scale: float) -> str:
    low, middle, high = (f"{scale * value:.3g}" for value in (spread.q1, spread.median, spread.q3))
    return f"{middle} ({low}–{high})"


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
