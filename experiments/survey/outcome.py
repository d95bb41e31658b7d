"""``replace_pooling`` in one network, and what became of each of its poolings."""

import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from experiments.survey.network import Network
from experiments.survey.pooling_calls import Calls, Pooling, recorded
from experiments.survey.row import SurveyRow
from gfgp_cupy import GFGPMaxEntPool2d
from gfgp_cupy.surgery import Replacements, replace_pooling

DISTRIBUTIONS = {"smp": "segmentation-models-pytorch"}
MOST_PARAMETERS = 12_000_000
"""Of a network that is trained a step: larger ones take long, and pool as their smaller kin do."""
STEPS = 3
"""Training steps at most, until every head has had a gradient: stochastic depth drops branches, and
the last norm of a branch can have a weight that starts at 0."""


def survey(network: Network) -> SurveyRow:
    """Build the network, replace its poolings, run it before and after, and compare.

    What is replaced, and with which options, follows from the poolings that the untouched network
    calls: first without options, then with those that could replace what stayed.

    It runs on PyTorch's meta device, which computes sizes alone, and anew with data if it cannot,
    or if something is wrong. The training step always has data.
    """
    row = _survey(network, "meta")
    return row if row.outcome in ("wholly", "does not pool", "partly") else _survey(network, "cpu")


def _survey(network: Network, device: str) -> SurveyRow:
    torch.manual_seed(0)
    row = replace(empty_row(network), device=device)
    try:
        model = _build(network, device)
        row = replace(row, parameters=sum(each.numel() for each in model.parameters()))
        before = _run(model, network)
    except Exception as error:  # of other people's code, which can fail in any way
        return replace(row, error=_line(error))
    poolings = before.calls.partial
    row = replace(
        row,
        partial=len(poolings),
        stride_one=sum(each.stride_one for each in poolings),
        in_forward=sum(not each.in_module for each in poolings),
        whole=sum(each.extent == "map" for each in before.calls.poolings),
    )
    if not poolings:
        return _attempt(model, network, before, row, {})
    trained_on = "cpu" if _is_small(row) else device
    options = _options(poolings)
    first = row = _attempt(
        _build(network, device if options else trained_on), network, before, row, {}
    )
    for more in (options, {**options, "unsupported": "skip"}):
        refusal = row.error
        if more and (row.outcome == "refused" or (row.outcome == "partly" and more is options)):
            row = _attempt(_build(network, trained_on), network, before, row, more)
            row = replace(row, default_replaced=first.default_replaced)
    if "unsupported" in row.options:
        row = replace(row, error=row.error or refusal)
    return row


def _build(network: Network, device: str) -> nn.Module:
    with torch.device(device):
        return network.build()


def _is_small(row: SurveyRow) -> bool:
    return row.parameters <= MOST_PARAMETERS


def empty_row(network: Network) -> SurveyRow:
    """Return the row of a network that does not run."""
    return SurveyRow(
        network=network.title,
        group=network.group,
        version=version(DISTRIBUTIONS.get(network.library, network.library)),
        parameters=0,
        sample_shape="x".join(map(str, network.sample_shape)),
    )


@dataclass(frozen=True)
class _Run:
    """Forward passes in evaluation mode and, if there are modules that it does not call, training.

    Attributes:
        calls: of both.
        outputs: sizes of the outputs in evaluation mode.
        pooled: sizes of the partial poolings' outputs in evaluation mode.
        error: of the training mode, which not every network has.
    """

    calls: Calls
    outputs: list[tuple[int, ...]]
    pooled: dict[tuple[int, ...], int]
    error: str


def _run(model: nn.Module, network: Network) -> _Run:
    device = next(model.parameters()).device
    images, calls, error = torch.randn(network.sample_shape, device=device), Calls(), ""
    with torch.no_grad(), recorded(model, calls, GFGPMaxEntPool2d):
        output = network.call(model.eval(), images[:1])
        pooled = dict(calls.sizes)
        if any(path not in calls.modules for path in _leaves(model)):
            try:
                network.call(model.train(), images)
            except Exception as failure:  # of other people's code
                error = _line(failure)
    return _Run(calls, [tuple(each.shape) for each in _tensors(output)], pooled, error)


def _leaves(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if not any(module.children())]


def _attempt(
    model: nn.Module, network: Network, before: _Run, row: SurveyRow, options: dict[str, Any]
) -> SurveyRow:
    """Return the row with what came of ``replace_pooling(model, **options)``."""
    row = replace(row, options=", ".join(f"{name}={value!r}" for name, value in options.items()))
    tensors = {name: tensor.shape for name, tensor in model.state_dict().items()}
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = replace_pooling(model, sample_shape=network.sample_shape, **options)
    except (TypeError, ValueError) as error:
        outcome = "refused" if before.calls.partial else "does not pool"
        return replace(row, outcome=outcome, error=_line(error))
    except Exception as error:  # none other is documented
        return replace(row, outcome="broken", error=_line(error))
    row = replace(
        row,
        replaced=len(done),
        default_replaced=row.default_replaced if options else len(done),
        seconds=round(time.process_time() - start, 2),
    )
    if not done and not before.calls.partial:
        return replace(row, outcome="does not pool")
    try:
        after = _run(deepcopy(model).to(row.device), network)
    except Exception as error:  # whatever the replacements cause
        return replace(row, outcome="broken", error=_line(error))
    now, stays = model.state_dict(), after.calls.partial
    row = replace(
        row,
        left="; ".join(_reasons(stays, done)),
        silent="; ".join(str(each) for each in stays if not _entries(each, done)),
        sizes_kept=_yes(after.outputs == before.outputs and after.pooled == before.pooled),
        keys_kept=_yes(all(name in now and now[name].shape == tensors[name] for name in tensors)),
        error=after.error if after.error != before.error else "",
    )
    row = replace(row, outcome=_outcome(row, before, after))
    return _train(model, network, row, runs=not before.error) if row.outcome == "wholly" else row


def _outcome(row: SurveyRow, before: _Run, after: _Run) -> str:
    not_called = row.replaced != len(after.calls.replaced)
    if row.error or not_called or "no" in (row.sizes_kept, row.keys_kept):
        return "broken"
    if row.silent:
        return "silent"
    if not before.calls.partial:
        return "broken" if row.replaced else "does not pool"
    skipped = "unsupported" in row.options
    return "partly" if after.calls.partial or skipped else "wholly"


def _options(poolings: Sequence[Pooling]) -> dict[str, Any]:
    """Return the options that may replace more of ``poolings`` than none does."""
    options: dict[str, Any] = {}
    if not all(each.in_module for each in poolings):
        options["functional"] = True
    if any(each.stride_one for each in poolings):
        options["stride_one"] = True
    return options


def _train(model: nn.Module, network: Network, row: SurveyRow, runs: bool) -> SurveyRow:
    """Run a training step and tell how many heads it gave a gradient."""
    heads = [module for module in model.modules() if isinstance(module, GFGPMaxEntPool2d)]
    if not heads:
        return row
    if not runs or not _is_small(row):
        return replace(row, step="too large" if runs else "does not train", heads=len(heads))
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trained: set[int] = set()
    in_use: set[int] = set()
    for i, head in enumerate(heads):
        head.register_forward_hook(partial(_note_gradient, in_use, i))
    for _ in range(STEPS):
        images = torch.randn(network.sample_shape)
        try:
            outputs = [each for each in _tensors(network.call(model, images)) if each.requires_grad]
            # Random weights, lest the gradient of what is normalised vanish.
            sum((each * torch.randn_like(each)).mean() for each in outputs).backward()
        except Exception as error:  # whatever the replacements cause
            return replace(row, outcome="broken", error=_line(error))
        trained |= {i for i, head in enumerate(heads) if _has_gradient(head)}
        if len(trained) == len(heads):
            break
        optimizer.step()
        optimizer.zero_grad()
    return replace(
        row,
        step="ran",
        heads=len(heads),
        heads_trained=len(trained),
        heads_idle=len(heads) - len(in_use | trained),
    )


def _note_gradient(in_use: set[int], i: int, head: nn.Module, args: Any, output: Tensor) -> None:
    def note(gradient: Tensor) -> None:
        in_use.add(i)

    if output.requires_grad:
        output.register_hook(note)


def _has_gradient(head: nn.Module) -> bool:
    return all(each.grad is not None for each in head.parameters()) and any(
        bool(each.grad.abs().sum() > 0) for each in head.parameters()
    )


def _reasons(stays: Sequence[Pooling], done: Replacements) -> list[str]:
    return [f"{each}: {_entries(each, done)[0]}" for each in stays if _entries(each, done)]


def _entries(pooling: Pooling, done: Replacements) -> list[str]:
    """Return the reasons that ``done`` lists for a pooling that stays."""
    return [each.reason for each in done.left if each.path == pooling.path]


def _tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of an output, whatever they are in."""
    if hasattr(output, "__dataclass_fields__"):
        output = vars(output)
    return [
        each
        for each in tree_leaves(output)
        if isinstance(each, Tensor) and each.is_floating_point()
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
