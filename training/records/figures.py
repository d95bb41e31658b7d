"""The pictures of a run under way: drawn beside the training, at most once a minute."""

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from training.records.curves import write_curves
from training.records.going_on import going_on
from training.records.history import LOG_NAME, EpochRecord
from training.records.lambdas import LAMBDAS_NAME
from training.records.lambdas_figure import write_lambdas_figure

SECONDS_BETWEEN = 60.0


class Figures:
    """Draws the curves and the λ of a run in a thread of its own.

    Args:
        out_dir: the folder, in which lambdas.csv is up to date.
        pdf_filename: of the curves.
    """

    def __init__(self, out_dir: Path, pdf_filename: str) -> None:
        self.curves = out_dir / pdf_filename
        self.lambdas = out_dir / LAMBDAS_NAME
        self._begun = -math.inf
        self._undrawn: Sequence[EpochRecord] = ()
        self._thread: threading.Thread | None = None

    def update(self, history: Sequence[EpochRecord]) -> None:
        """Begin to draw ``history`` if the last picture is a minute old, and do not wait for it."""
        self._undrawn = list(history)
        drawing = self._thread is not None and self._thread.is_alive()
        if not drawing and time.monotonic() - self._begun >= SECONDS_BETWEEN:
            self._begin()

    def close(self) -> None:
        """Return when the last epoch has been drawn, or could not be."""
        if self._thread is not None:
            self._thread.join()
        if self._undrawn:
            self._begin()
            self._thread.join()

    def _begin(self) -> None:
        history, self._undrawn = self._undrawn, ()
        with going_on("cannot draw the curves"):
            # Here, and all that the thread needs: a worker process that is forked while the thread
            # imports would wait for ever if it needed the same modules.
            import encodings.utf_16_be  # noqa: F401, of the PDF's texts

            import matplotlib.backends.backend_agg
            import matplotlib.backends.backend_pdf  # noqa: F401
            import PIL.Image

            PIL.Image.preinit()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._draw, args=(history,), name="figures")
        self._thread.start()

    def _draw(self, history: Sequence[EpochRecord]) -> None:
        with going_on("cannot draw the curves"):
            write_figures(history, self.curves, self.lambdas)


def draw_if_outdated(history: Sequence[EpochRecord], out_dir: str, pdf_filename: str) -> None:
    """Draw a run that has ended, if it was killed between its last epoch and its picture."""
    log, curves = Path(out_dir, LOG_NAME), Path(out_dir, pdf_filename)
    if log.exists() and (not curves.exists() or curves.stat().st_mtime < log.stat().st_mtime):
        with going_on("cannot draw the curves"):
            write_figures(history, curves, Path(out_dir, LAMBDAS_NAME))


def write_figures(history: Sequence[EpochRecord], curves: Path, lambdas: Path) -> None:
    """Draw ``history`` in ``curves``, and ``lambdas``, a lambdas.csv if there is one, beside it.

    Raises:
        UserError: a picture cannot be written, or ``lambdas`` is not what this program wrote.
    """
    write_curves(history, curves)
    write_lambdas_figure(lambdas)
