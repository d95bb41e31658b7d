"""The poolings that take the place of a module's calls of pooling functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..torchscript import sizes_of
from .call_arguments import PoolingCall, covers_the_map

__all__ = ["NAME", "CallKey", "PoolingCalls", "Slot"]

NAME = "pooling_calls"
"""The attribute of a calling module that holds its :class:`PoolingCalls`."""


Slot = tuple[bool, int]
Made = dict[tuple[PoolingCall, int] | PoolingCall, int]
"""How many calls there were: of each key, and with the same arguments of any number of channels."""


class CallKey(NamedTuple):
    """What a call tells of itself.

    Attributes:
        call: its arguments.
        num_features: the number of channels of its input.
    """

    call: PoolingCall
    num_features: int


class PoolingCalls(nn.ModuleList):
    """The poolings that take the place of a module's calls of pooling functions.

    A call is known by its key and its slot: the calling module's mode, and how many calls of this
    key come before it in one forward.

    Attributes:
        path: the calling module's, when they were replaced.
        sites: in training and in evaluation mode, for the arguments of each call, the calls by
            their number of channels, in the order in which one forward makes them: a pooling's
            index, or None where the function stays.
        channels: in each mode, for the arguments of each call and how many such calls of any number
            of channels come before it in one forward, its numbers of channels: several where the
            module is called in several places.
        whole_map: the kinds of calls that pool whole maps, with windows as large as those.
        made_before: for the mode and each method in which calls are made, how many of them the
            forward makes before it.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.sites: dict[bool, dict[PoolingCall, dict[int, list[int | None]]]]
        self.sites = {False: {}, True: {}}
        self.channels: dict[bool, dict[tuple[PoolingCall, int], set[int]]]
        self.channels = {False: {}, True: {}}
        self.whole_map: set[str] = set()
        self.made_before: dict[tuple[bool, str], Made] = {}

    def forward(self, input: Any) -> Any:
        """``input``: a network that runs all of its children in a row is not to run these."""
        return input

    def expect(
        self, key: CallKey, slots: Iterable[Slot], positions: Iterable[Slot],
        methods: Iterable[str], whole_map: bool,
    ) -> None:  # fmt: skip
        """The call is made; the function stays, if no pooling has been put there.

        Args:
            key, slots: what tells it from the others.
            positions: as slots, but that calls with other numbers of channels count as well.
            methods: in which it is made.
            whole_map: whether it pools whole maps.
        """
        for training, ordinal in slots:
            indices = self.sites[training].setdefault(key.call, {}).setdefault(key.num_features, [])
            indices += [None] * (ordinal + 1 - len(indices))
            self._note_made_before(key, training, ordinal, methods)
        for training, position in positions:
            seen = self.channels[training].setdefault((key.call, position), set())
            seen.add(key.num_features)
            self._note_made_before(key.call, training, position, methods)
        if whole_map:
            self.whole_map.add(key.call.kind)

    def _note_made_before(
        self, counted: CallKey | PoolingCall, training: bool, number: int, methods: Iterable[str]
    ) -> None:
        for method in methods:
            before = self.made_before.setdefault((training, method), {})
            before[counted] = min(number, before.get(counted, number))

    def put(self, key: CallKey, slots: Iterable[Slot], pooling: nn.Module) -> None:
        """``pooling`` takes the place of an expected call."""
        for training, ordinal in slots:
            self.sites[training][key.call][key.num_features][ordinal] = len(self)
        self.append(pooling)

    def index_of(self, key: CallKey, slots: Iterable[Slot]) -> int | None:
        """Which pooling has been put in a call's place; None if none has."""
        for training, ordinal in slots:
            indices = self.sites[training].get(key.call, {}).get(key.num_features, [])
            if ordinal < len(indices) and indices[ordinal] is not None:
                return indices[ordinal]
        return None

    def find(self, call: PoolingCall, input: Tensor, training: bool, made: Made) -> int | None:
        """Which pooling takes the place of a call that is being made; None: the function stays.

        Args:
            call, input: its arguments.
            training: the calling module's mode.
            made: how many such calls this forward has made so far; counts this one.

        Raises:
            RuntimeError: there was no such call when the poolings were replaced.
        """
        # A forward that asks for targets in training was seen in evaluation mode alone.
        seen = training if call in self.sites[training] else not training
        position = made.get(call, 0)
        made[call] = position + 1
        if isinstance(input, Tensor):
            channels = sizes_of(input)[-1 - len(call.kernel_size)]
        else:
            channels = self._channels_in_order(seen, call, position)
        indices = self.sites[seen].get(call, {}).get(channels, [])
        ordinal = made.get((call, channels), 0)
        made[(call, channels)] = ordinal + 1
        if ordinal < len(indices):
            return indices[ordinal]
        if isinstance(input, Tensor) and covers_the_map(call, input):
            return None
        raise RuntimeError(self._unseen(call, channels, ordinal if channels else position))

    def _channels_in_order(self, training: bool, call: PoolingCall, position: int) -> int:
        """The number of channels of a call by its place alone, for torch.fx knows no shapes; 0 if
        no such call was seen there.

        Raises:
            RuntimeError: it has several.
        """
        numbers = self.channels[training].get((call, position), set())
        if len(numbers) > 1:
            raise RuntimeError(
                f"torch.fx knows no shapes, and {self._name()} is called with several: "
                f"{_described(call)} is of {' and '.join(map(str, sorted(numbers)))} channels, "
                "each with a pooling of its own; use torch.export or torch.jit.trace, or have the "
                f"tracer take {self._name()} for a leaf"
            )
        return next(iter(numbers), 0)

    def find_unknown(self, function: Callable[..., Any]) -> None:
        """None, for a call whose window is not known, as one of the whole map.

        Raises:
            RuntimeError: there was none of the whole map when the poolings were replaced.
        """
        if function.__name__.partition("_")[0] not in self.whole_map:
            raise RuntimeError(
                f"{self._name()} calls {function.__name__} with a window that depends on the size "
                "of the image, and its calls were replaced for one size: trace or export the "
                "network before replace_pooling, or give the call a window of numbers"
            )

    def _name(self) -> str:
        return repr(self.path) if self.path else "the network"

    def _unseen(self, call: PoolingCall, channels: int, ordinal: int) -> str:
        again = f" {ordinal + 1} times in one forward" if ordinal else ""
        of = f" of {channels} channels" if channels else ""
        return (
            f"{self._name()} calls {_described(call)}{of}{again}, which it did not when "
            "replace_pooling(…, functional=True) replaced its calls: give that a sample_shape for "
            "which it does, or leave the module out with "
            f"where=lambda path, module: path != {self.path!r}"
        )


def _described(call: PoolingCall) -> str:
    return (
        f"{call.kind}_pool{len(call.kernel_size)}d(kernel_size={call.kernel_size}, "
        f"stride={call.stride}, padding={call.padding}, ceil_mode={call.ceil_mode})"
    )
