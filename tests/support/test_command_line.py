"""What is judged of a command's standard error: what the program says, and all of that."""

import subprocess
import sys

import pytest

from tests.support.command_line import checked_error, said_by_program

ERROR = "train_imagenet.py: error: --lr 0: must be positive\n"

IN_A_FINALIZER = """
import sys

class Left:
    def __del__(self):
        raise ValueError("nobody hears")

left = Left()
print("before", file=sys.stderr, flush=True)
del left
print("after", file=sys.stderr)
"""


def errors_of(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_what_python_ignores_is_left_out():
    assert "Exception ignored in" in errors_of(IN_A_FINALIZER)
    assert said_by_program(errors_of(IN_A_FINALIZER)) == "before\nafter\n"
    of_a_thread = "Exception ignored in thread started by: <bound method>\n"
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in run\nSystemExit: 0\n'
    for ignored in (of_a_thread, of_a_thread + trace, of_a_thread + "\n" + trace):
        assert checked_error(2, ignored + ERROR + ignored) == ERROR


def test_all_that_the_program_says_counts():
    bug = errors_of("raise ValueError('a bug')")
    assert bug.startswith("Traceback")
    for stderr in (bug, ERROR + bug, ERROR + ERROR, "a warning\n" + ERROR, ""):
        assert said_by_program(stderr) == stderr
        with pytest.raises(AssertionError):
            checked_error(2, stderr)
