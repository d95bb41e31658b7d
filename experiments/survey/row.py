"""A row of the survey's results."""

import re
from dataclasses import dataclass

OUTCOMES = ("wholly", "partly", "refused", "silent", "broken", "does not pool", "does not run")


@dataclass(frozen=True)
class SurveyRow:
    """What came of ``replace_pooling`` in one network.

    Poolings are counted in places: a pooling module, or a call of a pooling function in a module's
    forward. Empty texts and 0 where the survey did not get that far.

    Attributes:
        network: library and name in it.
        group: of the table.
        version: of the library.
        parameters: of the network.
        sample_shape: of the images that it was given.
        partial: poolings of a part of the map, of any kind that PyTorch has, in evaluation or
            training mode.
        stride_one: those of them that lower no size.
        in_forward: those of them that are calls of a function, not modules.
        whole: poolings of the whole map (global ones), which stay.
        default_replaced: poolings replaced by ``replace_pooling(model)``.
        replaced: poolings replaced with ``options``.
        options: which it took, such as ``"functional=True"``; empty for none.
        left: the partial poolings that stay, each with the reason in ``Replacements.left``.
        silent: those that stay and are not in ``Replacements.left``.
        sizes_kept: whether all outputs and all pooled maps have the sizes that they had.
        keys_kept: whether the state dict has all tensors that it had.
        step: whether a training step with data ``"ran"``, or why not: ``"too large"`` a network,
            or one that ``"does not train"`` as it is.
        heads: of the new poolings.
        heads_trained: those whose weights the step gave a gradient that is not 0.
        heads_idle: those whose pooled maps have no part in the network's outputs (DLA has some).
        seconds: of the processor that ``replace_pooling`` took.
        outcome: one of ``OUTCOMES``. ``"wholly"``: no pooling of a part of the map is left.
            ``"partly"``: some stay, and are listed, or it took ``unsupported="skip"``.
            ``"silent"``: one stays that is not listed.
            ``"broken"``: the network, its sizes or its state dict are not as they should be.
        error: of the refusal, or of what does not run.
        device: ``"meta"`` if sizes were found without data, ``"cpu"`` if with.
        commit: of this repository.
    """

    network: str
    group: str
    version: str
    parameters: int
    sample_shape: str
    partial: int = 0
    stride_one: int = 0
    in_forward: int = 0
    whole: int = 0
    default_replaced: int = 0
    replaced: int = 0
    options: str = ""
    left: str = ""
    silent: str = ""
    sizes_kept: str = ""
    keys_kept: str = ""
    step: str = ""
    heads: int = 0
    heads_trained: int = 0
    heads_idle: int = 0
    seconds: float = 0.0
    outcome: str = "does not run"
    error: str = ""
    device: str = ""
    commit: str = ""

    @property
    def pools(self) -> bool:
        """Whether it pools a part of its map anywhere."""
        return self.partial > 0

    @property
    def pools_windows(self) -> bool:
        """Whether it does so by max or average pooling of windows of one size."""
        return self.pools and (self.outcome != "partly" or self.replaced > 0 or self.left_windows)

    @property
    def left_windows(self) -> bool:
        """Whether one of these stays, not only adaptive poolings."""
        return re.search(r"(^|[ ;])(max|avg)_pool[123]d\(", self.left) is not None

    @property
    def replaces_windows(self) -> bool:
        """Whether none of these stays, and nothing had to be skipped."""
        replaced = self.outcome == "wholly" or (self.outcome == "partly" and not self.left_windows)
        return replaced and "unsupported" not in self.options

    @property
    def trained(self) -> bool:
        """Whether a training step gave every head a gradient."""
        return 0 < self.heads == self.heads_trained
