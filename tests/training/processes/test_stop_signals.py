"""The first stop signal is noted, its echo is not counted, and a second one ends the process."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support.paths import REPOSITORY
from training.processes.stop_signals import SECONDS_OF_ONE_SIGNAL, caught_stop_signals

PROGRAM = """
import time
from training.processes.interruption import die_of
from training.processes.stop_signals import caught_stop_signals

with caught_stop_signals(second=die_of) as signals:
    print("ready", flush=True)
    seen = 0
    for _ in range(6000):
        if len(signals) > seen:
            seen = len(signals)
            print(f"noted {signals}", flush=True)
        time.sleep(0.01)
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_process(second):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == f"noted [{signal.SIGTERM:d}]\n"
    process.send_signal(signal.SIGTERM)  # as `timeout` sends it: to the process and to its group
    time.sleep(1.2 * SECONDS_OF_ONE_SIGNAL)
    assert process.poll() is None
    process.send_signal(second)
    assert process.wait(timeout=60) == -second
    assert process.stdout.read() == ""


def test_handlers_are_put_back_and_other_threads_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with caught_stop_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    caught = []

    def in_a_thread():
        with caught_stop_signals():
            caught.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert caught == [before]
