"""Runs one program and says what it cost.

Used in two ways: `run()` from the others, and as a program of its own, which `run()` starts for each measurement:
Linux hands the peak memory of a process on to the program that it turns into, so the process that starts the
measured program has to be small itself (about 6 MB; less can't be measured).
"""

import json
import os
import sys
import time


class Cost:
    """What one or several programs cost: times and sums of bytes are added up, of the memory the largest counts."""

    FIELDS = ("wall", "user", "system", "rss", "rchar", "wchar", "read_bytes", "write_bytes")

    def __init__(self, **fields):
        for name in self.FIELDS:
            setattr(self, name, fields.get(name, 0))

    def __add__(self, other):
        total = {name: getattr(self, name) + getattr(other, name) for name in self.FIELDS}
        total["rss"] = max(self.rss, other.rss)
        return Cost(**total)

    @property
    def cpu(self):
        return self.user + self.system


class Failed(Exception):
    """The measured program did not end as it should."""


def run(argv, cwd, env=None, accepted=(0,)):
    """Runs a program, its output thrown away; raises `Failed` with what it said on stderr if it fails."""
    import subprocess  # Here, to keep the launcher small.

    request = json.dumps({"argv": [str(part) for part in argv], "cwd": str(cwd), "env": env or {}})
    launcher = [sys.executable, "-I", "-S", "-E", __file__]
    ended = subprocess.run(launcher, input=request, capture_output=True, text=True, check=True)
    answer = json.loads(ended.stdout)
    if answer["code"] not in accepted:
        raise Failed(f"{' '.join(map(str, argv))}: exit code {answer['code']}\n{answer['stderr'].strip()}")
    return Cost(**answer["cost"])


def counters(pid):
    """/proc/PID/io of a process that has ended, but wasn't waited for yet: its children are in it."""
    with open(f"/proc/{pid}/io") as file:
        return {name: int(value) for name, value in (line.split(": ") for line in file)}


def child(request, output):
    """Turns into the measured program."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(output, 2)
    os.chdir(request["cwd"])
    try:
        os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})
    except OSError as error:
        os.write(2, str(error).encode())
        os._exit(127)


def launch():
    request = json.loads(sys.stdin.read())
    # A file, so that nothing has to read while it runs.
    output = os.memfd_create("stderr")
    begun = time.perf_counter()
    # A copy of this small process, not vfork: that would hand our memory's peak on.
    pid = os.fork()
    if pid == 0:
        child(request, output)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    wall = time.perf_counter() - begun
    io = counters(pid)
    _, status, usage = os.wait4(pid, 0)
    cost = {
        "wall": wall, "user": usage.ru_utime, "system": usage.ru_stime, "rss": usage.ru_maxrss * 1024,
        **{name: io[name] for name in ("rchar", "wchar", "read_bytes", "write_bytes")},
    }
    said = os.pread(output, 4000, max(0, os.fstat(output).st_size - 4000))
    answer = {"code": os.waitstatus_to_exitcode(status), "stderr": said.decode(errors="replace"), "cost": cost}
    print(json.dumps(answer))


if __name__ == "__main__":
    launch()
