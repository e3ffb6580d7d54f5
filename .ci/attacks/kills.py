"""kill -9 at every system call that changes something: SQLite's and the runtime library's too, which no seam in the program sees.

strace counts calls for each thread by itself and kills the whole program before the so many'th call is carried out. (With its
option --seccomp-bpf it doesn't, in the first thread; every kill is checked.) The calls of other threads than the first are chosen by the file that they are about.
"""

import re
import shutil
from collections import Counter
from dataclasses import dataclass

from after import check, journal
from place import Failure, State, need
from script import Step, scripts

CALLS = (
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "copy_file_range", "sendfile", "splice", "ftruncate", "truncate",
    "fallocate", "fsync", "fdatasync", "sync_file_range", "syncfs", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "chown", "fchown",
    "fchownat",
)
CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
PATH = re.compile(r"<(/[^<>]*)>")


@dataclass(frozen=True)
class Moment:
    """Before the so many'th such call; of any thread, or of those that are about a file."""

    call: str
    number: int
    path: str | None = None

    def __str__(self):
        about = f" of {self.path}" if self.path else ""
        return f"killed at {self.call} {self.number}{about}"


def attack(place, options):
    total = 0
    for step in all_steps(place):
        if options.only and options.only not in step.name:
            continue
        count = 0
        for moment in list(moments(place, step))[:: options.every or 1]:
            try:
                check(place, step, killed(place, step, moment))
            except Failure as failure:
                raise failure.at(step.name, moment) from failure
            count += 1
        print(f"kills: {step.name}: {count}", flush=True)
        # A check changes next to nothing.
        need(options.every or count > (0 if step.words[0] == "check" else 5), step.name, "nothing was killed")
        total += count
    return total


def all_steps(place):
    """Those of the scripts, and those that finish a restore that was interrupted."""
    steps = scripts(place)
    restores = [step for step in steps if step.words[0] in ("restore", "undo")]
    return steps + [more for step in restores for more in interrupted(place, step)]


def traced(place, world, words, calls, *more):
    """Runs znap and writes down these system calls."""
    log = place.root / "trace"
    strace = ["strace", "-f", "-y", "-q", "-o", log, "-e", f"trace={','.join(calls)}", *more]
    result = place.run([*strace, place.program, *words], world)
    return result, log.read_text(errors="replace").splitlines()


def entered(lines):
    """Thread, name and arguments of each call, in the order in which they began."""
    return [found.groups() for line in lines if (found := CALL.match(line))]


def moments(place, step):
    """Every moment of a command at which something is about to be changed."""
    world = place.copy(step.before)
    result, lines = traced(place, world, step.words, [*CALLS, "openat"])
    need(result.code == 0, step.name, "fails under strace", result)
    calls = entered(lines)
    first = calls[0][0]
    counts = Counter()
    for thread, name, arguments in calls:
        path = None
        if thread != first:
            found = PATH.search(arguments)
            path = found.group(1).removeprefix(f"{world}/") if found else None
        counts[thread, name, path] += 1
        # Opening something is a change where that creates it.
        if name != "openat" or "O_CREAT" in arguments:
            yield Moment(name, counts[thread, name, path], path)
    shutil.rmtree(world)


def killed(place, step, moment, world=None):
    """A copy of what was before, in which the command was killed then."""
    world = world or place.copy(step.before)
    only = ["-P", world / moment.path] if moment.path else []
    inject = f"inject={moment.call}:signal=KILL:when={moment.number}"
    result, lines = traced(place, world, step.words, [moment.call], *only, "-e", inject)
    need(result.code == 137 and any("killed by SIGKILL" in line for line in lines), "it was not killed", result)
    return world


def interrupted(place, step):
    """Steps that finish a restore, and take it back: one that was killed as late as it can still go either way; and, of several
    databases, also when only the first of them was fenced."""
    worlds = []
    for number in range(1, 1000):
        try:
            world = killed(place, step, Moment("fsync", number))
        except Failure:
            break
        if journal(world) and State.of(world).is_fenced() and place.znap(place.copy(world), "restore", "--abort").code == 0:
            worlds.append(world)
    need(worlds, step.name, "can't be killed in the middle")
    chosen = {"": worlds[-1]} | ({"early in ": worlds[0]} if len(step.source) > 1 else {})
    for when, world in chosen.items():
        snapshots = place.snapshots(world)
        held = dict(step.held) | {snapshot: step.back for snapshot in snapshots.keys() - step.held.keys()}
        for way, goal in (("--resume", step.target), ("--abort", step.back)):
            words = ("restore", way)
            name = f"{' '.join(words)} after {when}{step.name}"
            yield Step(
                name, words, world, step.source, goal, goal, snapshots, snapshots, held, step.other, finishes=step,
            )
