"""The first stop signal is noted, its echo is not counted, and a second one ends the process."""

import signal
import subprocess
import sys
import threading

import pytest

from tests.support.paths import REPOSITORY
from tests.support.warm_python import HANG
from training.processes.stop_signals import SECONDS_OF_ONE_SIGNAL, STOP_SIGNALS, caught_stop_signals

PROGRAM = """
import sys, time
from training.processes.interruption import die_of
from training.processes.stop_signals import caught_stop_signals

now = 100.0
time.monotonic = lambda: now  # its clock stands at what the test says
with caught_stop_signals(second=die_of) as signals:
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        now = float(line)
        print(f"noted {signals} by {now}", flush=True)
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_process(second):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=REPOSITORY,
    ) as process:

        def assert_goes_on(seconds):
            process.stdin.write(f"{100 + seconds}\n")
            noted = f"noted [{signal.SIGTERM:d}] by {100 + seconds}\n"
            assert process.stdout.readline() == noted

        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert_goes_on(0.9 * SECONDS_OF_ONE_SIGNAL)
        process.send_signal(signal.SIGTERM)  # as `timeout` sends it: to the process and its group
        assert_goes_on(1.1 * SECONDS_OF_ONE_SIGNAL)
        process.send_signal(second)
        assert process.wait(HANG) == -second
        assert process.stdout.read() == ""


def handlers():
    return [signal.getsignal(each) for each in STOP_SIGNALS]


def test_handlers_are_put_back_and_other_threads_left_alone():
    before = handlers()
    with caught_stop_signals():
        assert not set(before) & set(handlers())
    assert handlers() == before
    caught = []

    def in_a_thread():
        with caught_stop_signals():
            caught.append(handlers())

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert caught == [before]
