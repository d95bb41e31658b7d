"""Stages run whatever became of those before, end in time, and their output is on disk."""

import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from benchmarks import stages
from benchmarks.stages import Phase, Session, Stage, wait_until
from training.records.environment import REPOSITORY

SECONDS = 120.0
"""More than anything here takes, however busy the machine: only what hangs gets there."""

LIMIT = SECONDS + 1
"""Of a stage in a session of its own, told from the time that it has when it is interrupted."""

INTERRUPTED = """
import signal
signal.alarm(600)  # where nobody ends it
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until it is waited for
print("begun", flush=True)
signal.sigwait({signal.SIGINT})
print("as far as this")
"""

SESSION = f"""
import sys
from pathlib import Path
from benchmarks import stages

stages.INTERRUPT_SECONDS = stages.READ_SECONDS = {SECONDS}
limited_by, log, code, *names = sys.argv[1:]

def until_a_line_comes(condition, seconds):
    if seconds == {LIMIT}:
        sys.stdin.readline()
    else:  # what the interrupted stage may take
        stages.wait_until(condition, seconds)

wait = until_a_line_comes if limited_by == "line" else stages.wait_until
with stages.Session(Path(log), wait) as session:
    track = [stages.Stage(name, (sys.executable, "-c", code), {LIMIT}) for name in names]
    print([outcome.verdict for outcome in session.run(stages.Phase([track], 2 * {SECONDS}))])
"""


@pytest.fixture(autouse=True)
def _time_for_what_ends_by_itself(monkeypatch):
    monkeypatch.setattr(stages, "INTERRUPT_SECONDS", SECONDS)
    monkeypatch.setattr(stages, "READ_SECONDS", SECONDS)


def python(name, code, seconds=SECONDS, **environment):
    return Stage(name, (sys.executable, "-c", code), seconds, environment)


def run(path, *tracks, seconds=2 * SECONDS, wait=wait_until):
    """The verdicts on stages by name, and the log."""
    with Session(path, wait) as session:
        outcomes = session.run(Phase(tracks, seconds))
    return {outcome.stage: outcome.verdict for outcome in outcomes}, path.read_text()


@contextmanager
def session_of(log, code, *names, limited_by="time", **options):
    """A session in a process of its own whose stages run ``code``, each up to its limit: a time,
    or a line that the process is sent."""
    command = (sys.executable, "-c", SESSION, limited_by, log, code, *names)
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def fifo(tmp_path):
    """Makes a FIFO, and opens it before a process writes there."""
    opened = []

    def make(name):
        os.mkfifo(tmp_path / name)
        opened.append(os.open(tmp_path / name, os.O_RDONLY | os.O_NONBLOCK))
        return tmp_path / name, opened[-1]

    yield make
    for file in opened:
        os.close(file)


def read_up_to(text, file):
    """What comes from a FIFO until the text has come; for None, until no process writes there."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    seen = ""
    while text is None or text not in seen:
        assert poll.poll(1000 * SECONDS), f"no {text!r} after {seen!r}"
        part = os.read(file, 2**16)
        if not part:
            assert text is None, f"no {text!r} after {seen!r}"
            break
        seen += part.decode()
    return seen


def test_stages_run_whatever_became_of_those_before(tmp_path, capsys):
    text, empty = str(tmp_path / "text"), str(tmp_path / "empty")
    os.close(os.open(text, os.O_CREAT, 0o644))
    os.close(os.open(empty, os.O_CREAT, 0o755))
    verdicts, log = run(
        tmp_path / "log",
        [
            Stage("absent", ("no-such-program",), SECONDS),
            Stage("text", (text,), SECONDS),
            Stage("empty", (empty,), SECONDS),
            python("exits", "import sys; sys.exit('went wrong')"),
            python("passes", "import os; print(os.environ['SEEN'])", SEEN="variable seen"),
        ],
        [python("beside", "print('at the same time')")],
    )
    assert verdicts == {
        "absent": "not run: [Errno 2] No such file or directory: 'no-such-program'",
        "text": f"not run: [Errno 13] Permission denied: '{text}'",
        "empty": f"not run: [Errno 8] Exec format error: '{empty}'",
        "exits": "failed: exit code 1",
        "passes": "passed",
        "beside": "passed",
    }
    assert "exits| went wrong\n" in log
    assert "passes| variable seen\n" in log
    assert "beside| at the same time\n" in log
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6
    assert all(f"==== {line}\n" in log for line in printed)


def test_stages_of_a_list_follow_each_other_and_lists_run_side_by_side(tmp_path):
    # Each end of the pipe opens when the other does: alone, a list would wait for ever.
    os.mkfifo(tmp_path / "pipe")
    write = f"open({str(tmp_path / 'pipe')!r}, 'w').write('met')"
    read = f"print(open({str(tmp_path / 'pipe')!r}).read())"
    verdicts, log = run(
        tmp_path / "log",
        [python("one", read), python("two", "print('after')")],
        [python("three", write)],
    )
    assert set(verdicts.values()) == {"passed"}
    assert log.index("one| met") < log.index("==== one: passed") < log.index("two| after")


def test_a_phase_that_is_over_begins_nothing(tmp_path):
    verdicts, log = run(tmp_path / "log", [python("late", "print('ran')", seconds=60)], seconds=1)
    assert verdicts == {"late": "not run: no time was left"}
    assert "ran" not in log


@pytest.mark.parametrize("ignored", [False, True], ids=["as usual", "SIGINT ignored"])
def test_at_its_limit_a_stage_tells_how_far_it_came(fifo, ignored):
    """Where SIGINT is ignored, as in a shell's background job, a child would inherit that."""
    path, log = fifo("session.log")
    with session_of(
        path, INTERRUPTED, "first", limited_by="line",
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    ) as session:  # fmt: skip
        read_up_to("first| begun\n", log)
        printed, _ = session.communicate("the limit is reached\n", SECONDS)
    assert f"['failed: not done in {LIMIT:.0f} s']" in printed
    assert "first| as far as this\n" in read_up_to(None, log)


def test_what_ignores_the_interrupt_is_killed_with_its_children(tmp_path, fifo, monkeypatch):
    path, alive = fifo("alive")
    stubborn = f"""
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})
pipe = open({str(path)!r}, "w", buffering=1)
os.fork()
signal.alarm(600)
pipe.write("process\\n")
while True:
    signal.sigwait({{signal.SIGINT}})
    pipe.write("interrupted\\n")
"""
    limits = []

    def up_to_the_limit(condition, seconds):
        limits.append(seconds)
        read_up_to(2 * ("process\n", "interrupted\n")[len(limits) - 1], alive)
        assert not condition()

    monkeypatch.setattr(stages, "INTERRUPT_SECONDS", 7)
    verdicts, _ = run(tmp_path / "log", [python("stubborn", stubborn)], wait=up_to_the_limit)
    assert verdicts == {"stubborn": "failed: not done in 120 s"}
    assert limits == [SECONDS, 7]
    assert not read_up_to(None, alive)


def test_a_wait_ends_at_its_limit_or_with_what_is_waited_for():
    wait_until(lambda: False, 0.1)
    wait_until(lambda: True, float("inf"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_session_that_is_ended_ends_its_stages_and_keeps_their_output(fifo, number):
    path, log = fifo("session.log")
    with session_of(path, INTERRUPTED, "first", "next") as session:
        read_up_to("first| begun\n", log)
        session.send_signal(number)
        printed, _ = session.communicate(timeout=SECONDS)
        assert session.returncode == 0
    assert "'failed: the session was ended', 'not run: the session was ended'" in printed
    assert "first| as far as this\n" in read_up_to(None, log)


def test_output_is_on_disk_when_the_session_is_killed(fifo):
    """What can be read at the other end of a log that is a pipe has left the session."""
    path, log = fifo("session.log")
    code = "import os; print('process', os.getpid())\n" + INTERRUPTED
    with session_of(path, code, "first") as session:
        seen = read_up_to("first| begun\n", log)
        session.kill()
    begun, first, second = seen.splitlines()
    os.kill(int(first.removeprefix("first| process ")), signal.SIGKILL)  # nobody else does
    assert (begun, second) == ("==== first: begun", "first| begun")
    assert not read_up_to(None, log)


def test_of_too_much_output_the_first_and_the_last_lines_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "HEAD_BYTES", 1000)
    monkeypatch.setattr(stages, "TAIL_BYTES", 500)
    code = "[print('line', number) for number in range(2000)]; print('x' * 9000); print('end')"
    verdicts, log = run(tmp_path / "log", [python("talks", code)])
    assert verdicts == {"talks": "passed"}
    kept = [line for line in log.splitlines() if line.startswith("talks| ")]
    assert kept[:2] == ["talks| line 0", "talks| line 1"]
    assert kept[-1] == "talks| end"
    (left_out,) = (line for line in kept if "left out" in line)
    assert int(left_out.split("[")[1].split()[0]) == 2002 - (len(kept) - 1)
    assert len(log) < 2000


def test_output_that_is_no_text_is_kept(tmp_path):
    path = tmp_path / "log"
    with Session(path) as session:
        session.run(
            Phase([[python("bytes", r"import sys; sys.stdout.buffer.write(b'\xff\x00')")]], SECONDS)
        )
    assert b"bytes| \xff\x00\n" in path.read_bytes()
