"""What holds for every test: the same random numbers on every run, room for other processes, little
done twice, the longest first, and no test that needs a GPU where there is none."""

import gc
import importlib.util
import os
import re
import signal
import sys

# Before PyTorch is imported, for this process and those it starts: tests run side by side, and
# OpenMP's threads would keep the cores busy with waiting.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Inductor would start processes of its own to compile what few kernels the tests have.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Nor need the C++ compiler vectorise and optimise them: that takes longer. The same options for all
# tests, so that PyTorch's headers are compiled once.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
os.environ.setdefault("AOT_INDUCTOR_DEBUG_COMPILE", "1")

import hypothesis
import pytest
import torch

# A shell's background job and nohup ignore Ctrl-C, and so would every process that a test starts
# and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A first example compiles kernels, so examples have no deadline; fixed examples make a failure
# appear on every machine or on none.
hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")

FAILED = pytest.StashKey[bool]()
OWN_PACKAGES = ("benchmarks", "experiments", "gfgp_cupy", "models", "tests", "training")


def pytest_addoption(parser):
    parser.addoption(
        "--skip-not-installed",
        action="store_true",
        help="skip, rather than fail, test files that import a package which is not installed",
    )
    parser.addoption(
        "--failures-at-once",
        action="store_true",
        help="show each failure when it happens, too, for a run that may be killed",
    )


@pytest.hookimpl(trylast=True)  # the terminal is there by then
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        # Workers share the cores. Their children choose for themselves.
        torch.set_num_threads(1)
        if sys.platform == "linux" and importlib.util.find_spec("numba") is not None:
            from tests.support import numba_compilation

            numba_compilation.compile_once()
    if config.getoption("failures_at_once") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config.get_terminal_writer()))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collects no garbage while all that is imported and collected is made, and never looks through
    that again: each time would take most of a second in each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


class FailuresAtOnce:
    def __init__(self, terminal):
        self._terminal = terminal

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._terminal.line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    # For what a file draws while it is imported.
    torch.default_generator.manual_seed(0)
    report = yield
    if report.failed and collector.config.getoption("skip_not_installed"):
        missing = re.search(r"ModuleNotFoundError: .*", str(report.longrepr))
        if missing and not any(f"'{name}" in missing[0] for name in OWN_PACKAGES):
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), None, f"Skipped: {missing[0]}")
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skips a test marked ``gpu`` where there are too few of them."""
    counts = [marker.args[0] if marker.args else 1 for marker in item.iter_markers("gpu")]
    needed = max(counts, default=0)
    if needed and torch.cuda.device_count() < needed:
        pytest.skip(f"needs {needed} CUDA GPU{'s' * (needed > 1)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    """Ends one of xdist's processes whose GPU context a test has broken: no other test can pass in
    it, and xdist starts another."""
    on_gpu = item.get_closest_marker("gpu") is not None and "PYTEST_XDIST_WORKER" in os.environ
    if on_gpu and FAILED in item.stash:
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"the GPU context is lost: {error}", file=sys.stderr, flush=True)
            os._exit(1)


@pytest.fixture(autouse=True)
def _fixed_seed():
    """What ``torch.manual_seed(0)`` does, which without a GPU would take a millisecond a test for
    the stack traces of seeds that wait for one."""
    torch.default_generator.manual_seed(0)
    if torch.cuda.device_count():
        torch.cuda.manual_seed_all(0)
