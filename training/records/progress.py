"""What a person sees of an epoch while it runs: a bar on a terminal, otherwise lines."""

import math
import sys
import time
from types import TracebackType

from tqdm import tqdm

from training.records.metrics import Scores

SECONDS_BETWEEN_SCORES = 0.5


class Progress:
    """Shows scores, images/s and time left of one pass over ``images`` images.

    On a terminal a tqdm bar on the standard error; otherwise a line on the standard output
    every ``print_freq`` batches. ``shown=False`` shows nothing. Used as a context manager.

    Call ``advance`` after every batch; when it returns True, read the scores and ``show`` them:
    reading them waits for the device, so it is not done each time.
    """

    def __init__(self, title: str, images: int, print_freq: int, shown: bool) -> None:
        self.title = title
        self.images = images
        self.print_freq = print_freq
        self.shown = shown
        on_terminal = shown and sys.stderr.isatty()
        self.bar = tqdm(
            total=images, desc=title, unit=" images", leave=False, disable=not on_terminal
        )
        self.start = time.perf_counter()
        self.last_scores = -math.inf  # the first batch's are due
        self.batches_done = self.images_done = 0

    def advance(self, images: int) -> bool:
        """Count a batch of ``images`` images (of all processes); True when scores are due."""
        self.batches_done += 1
        self.images_done += images
        self.bar.update(images)
        if self.bar.disable:
            return self.batches_done % self.print_freq == 0
        return time.perf_counter() - self.last_scores > SECONDS_BETWEEN_SCORES

    def show(self, scores: Scores) -> None:
        self.last_scores = time.perf_counter()
        if not self.bar.disable:
            self.bar.set_postfix_str(str(scores))
        elif self.shown:
            rate = self.images_done / (self.last_scores - self.start)
            left = tqdm.format_interval((self.images - self.images_done) / rate)
            print(
                f"{self.title} [{self.images_done}/{self.images}] {scores} "
                f"{rate:.1f} images/s {left} left",
                flush=True,
            )

    def note(self, line: str) -> None:
        """Print ``line`` on the standard output, above the bar where there is one."""
        if self.shown:
            tqdm.write(line)
            sys.stdout.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.refresh()  # tqdm leaves out what comes within a tenth of a second
        self.bar.close()
