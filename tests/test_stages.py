"""Stages run whatever became of those before, end in time, and their output is on disk."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import stages
from benchmarks.stages import Phase, Session, Stage
from training.environment import REPOSITORY

SECONDS = 120.0
"""More than anything here takes, however busy the machine."""

ENDLESS = """
import signal, sys
print("begun", flush=True)
try:
    signal.pause()
finally:
    print("as far as this")
"""

DRIVER = """
import sys
from pathlib import Path
from benchmarks.stages import Phase, Session, Stage

folder, code = sys.argv[1:]
with Session(Path(folder, "session.log")) as session:
    tracks = [[Stage(name, (sys.executable, "-c", code), {seconds}) for name in ("first", "next")]]
    print([outcome.verdict for outcome in session.run(Phase(tracks, {seconds} + 1))])
"""


def python(name, code, seconds=SECONDS, **environment):
    return Stage(name, (sys.executable, "-c", code), seconds, environment)


def run(path, *tracks, seconds=SECONDS):
    """The verdicts on stages by name, and the log."""
    with Session(path) as session:
        outcomes = session.run(Phase(tracks, seconds))
    return {outcome.stage: outcome.verdict for outcome in outcomes}, path.read_text()


def start(folder, code, seconds=SECONDS, **options):
    """A session of two stages that run ``code``, in a process of its own."""
    command = (sys.executable, "-c", DRIVER.format(seconds=seconds), folder, code)
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, **options)


def wait_for(text, path):
    """Returns when the file has the text; a test that waits in vain fails by its own limit."""
    deadline = time.monotonic() + SECONDS
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"no {text!r} in {path}"
        time.sleep(0.02)


def test_stages_run_whatever_became_of_those_before(tmp_path, capsys):
    verdicts, log = run(
        tmp_path / "log",
        [
            Stage("absent", ("no-such-program",), SECONDS),
            python("exits", "import sys; sys.exit('went wrong')"),
            python("passes", "import os; print(os.environ['SEEN'])", SEEN="variable seen"),
        ],
        [python("beside", "print('at the same time')")],
    )
    assert verdicts == {
        "absent": "not run: there is no no-such-program here",
        "exits": "failed: exit code 1",
        "passes": "passed",
        "beside": "passed",
    }
    assert "exits| went wrong\n" in log
    assert "passes| variable seen\n" in log
    assert "beside| at the same time\n" in log
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
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
    verdicts, log = run(
        tmp_path / "log", [python("late", "print('ran')", seconds=60)], seconds=1
    )
    assert verdicts == {"late": "not run: no time was left"}
    assert "ran" not in log


@pytest.mark.parametrize("ignored", [False, True], ids=["as usual", "SIGINT ignored"])
def test_at_its_limit_a_stage_tells_how_far_it_came(tmp_path, ignored):
    """Where SIGINT is ignored, as in a shell's background job, a child would inherit that."""
    driver = start(
        tmp_path, ENDLESS, seconds=8,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    )  # fmt: skip
    printed, _ = driver.communicate(timeout=SECONDS)
    log = (tmp_path / "session.log").read_text()
    assert "first| begun\n" in log
    assert "first| as far as this\n" in log
    assert "'failed: not done in 8 s', 'not run: no time was left'" in printed


def test_what_ignores_the_interrupt_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "INTERRUPT_SECONDS", 1)
    os.mkfifo(tmp_path / "alive")
    stubborn = f"""
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
pipe = open({str(tmp_path / 'alive')!r}, "w")
os.fork()
print("process", file=pipe, flush=True)
signal.pause()
"""
    with ThreadPoolExecutor() as pool:
        alive = pool.submit((tmp_path / "alive").read_text)  # until no process holds it open
        verdicts, _ = run(tmp_path / "log", [python("stubborn", stubborn, seconds=8)])
        assert verdicts == {"stubborn": "failed: not done in 8 s"}
        assert alive.result(SECONDS) == "process\n" * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_session_that_is_ended_ends_its_stages_and_keeps_their_output(tmp_path, number):
    driver = start(tmp_path, ENDLESS)
    wait_for("first| begun", tmp_path / "session.log")
    driver.send_signal(number)
    printed, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0
    assert "'failed: the session was ended', 'not run: the session was ended'" in printed
    assert "first| as far as this\n" in (tmp_path / "session.log").read_text()


def test_output_is_on_disk_when_the_session_is_killed(tmp_path):
    driver = start(tmp_path, "import os; print('process', os.getpid())\n" + ENDLESS)
    wait_for("first| begun", tmp_path / "session.log")
    driver.kill()
    driver.communicate(timeout=SECONDS)
    _, first, second = (tmp_path / "session.log").read_text().splitlines()
    assert second == "first| begun"
    os.kill(int(first.removeprefix("first| process ")), signal.SIGKILL)  # nobody else does


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
        session.run(Phase(
            [[python("bytes", r"import sys; sys.stdout.buffer.write(b'\xff\x00')")]], SECONDS
        ))
    assert b"bytes| \xff\x00\n" in path.read_bytes()
