"""EIO: each system call about a file of a database or of the repository fails, once, or it and all like it from then on; SQLite's too.

strace makes them fail, before they do anything. It counts for each thread by itself, and only calls about that file; but for new
object files and a new repository, whose names are not known before: there, all of one thread. For each failure it is checked that
there was one.
"""

import re
import shutil
from collections import Counter
from dataclasses import dataclass

import kills
from after import LEFT_BASE, NO_BASE, check, done, failed, journal
from place import Failure, State, need

CALLS = (
    *kills.CALLS, "open", "openat", "read", "readv", "pread64", "preadv", "getdents64", "statx", "newfstatat", "statfs", "access",
)
SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs")
EVERY = 35
MISTAKES = ("differ", "too short", "the catalog is wrong", "changed", "replaced")
# A restore is done all the same: the databases may be in use.
LEFT_BLOBS = "blobs that don't belong there could not all be removed"
# What it says of itself.
NOT_CHANGED = re.compile(r"\b(nothing|no \w+) was changed")
# What is made there has a name that nobody knows before.
NEW = (".znap/objects/", ".znap-init-")
ABOUT = re.compile(r'(AT_FDCWD(<[^<>]*>)?, )?(\d+<(?P<file>/[^<>]*)>|"(?P<name>[^"]*)")')


@dataclass(frozen=True)
class Error:
    """The so many'th such call about a file; without a file, of all that the first thread makes."""

    call: str
    number: int
    path: str | None
    # SQLite goes on if it can't sync the folder of its journal.
    may_pass: bool
    for_ever: bool

    def __str__(self):
        return f"EIO at {self.call} {self.number} of {self.path or 'all'}{', for ever' * self.for_ever}"


def attack(place, options):
    total = ignored = 0
    for step in kills.all_steps(place):
        if options.only and options.only not in step.name:
            continue
        chosen = errors(place, step)[:: options.every or EVERY]
        for error in chosen:
            try:
                ignored += fail(place, step, error)
            except Failure as failure:
                raise failure.at(step.name, error) from failure
        total += len(chosen)
        print(f"errors: {step.name}: {len(chosen)}; without effect until here: {ignored}", flush=True)
    return total


def errors(place, step):
    """What can fail."""
    world = place.copy(step.before)
    result, lines = kills.traced(place, world, step.words, CALLS)
    need(result.code == 0, step.name, "fails under strace", result)
    calls = kills.entered(lines)
    first = calls[0][0]
    counts = Counter()
    found, opened = Counter(), {}
    for thread, call, arguments in calls:
        if call == "openat":
            opened[thread] = arguments
        path = about(arguments, world)
        counts[thread, call, None] += 1
        if path is None:
            continue
        counts[thread, call, path] += 1
        # It opens its folder by its full name.
        by_sqlite = path.startswith(".znap") and "/" not in path and f'"{world}/{path}"' in opened.get(thread, "")
        may_pass = call not in SYNCS or by_sqlite
        if path.startswith(NEW) and not (step.before / path).exists():
            if thread != first:
                continue
            path = None
        found[call, counts[thread, call, path], path, may_pass] += 1
    shutil.rmtree(world)
    return [Error(*each, for_ever) for for_ever in (False, True) for each in found]


def about(arguments, world):
    """The file or folder of the world that a call is about, if it is about one."""
    found = ABOUT.match(arguments)
    path = found and (world / (found["file"] or found["name"])).resolve()
    return str(path.relative_to(world)) if path and path.is_relative_to(world) else None


def fail(place, step, error):
    """Runs the command; whether it went on all the same."""
    world = place.copy(step.before)
    only = ["-P", world / error.path, "-P", error.path] if error.path else []
    inject = f"inject={error.call}:error=EIO:when={error.number}{'+' * error.for_ever}"
    result, lines = kills.traced(place, world, step.words, [error.call], *only, "-e", inject)
    need(any("(INJECTED)" in line for line in lines), "nothing failed", result)
    err = "\n".join(line for line in result.err.splitlines() if not line.startswith("strace: "))
    need("panicked" not in err, "it panics", result)
    if result.code == 6 and step.is_damaged:
        # What couldn't be read was set aside, and isn't damaged at all.
        need("the disk cannot read it" in result.out or f" {error.path}: " in err, "it doesn't say why", result)
        place.znap_ok(world, "repair", "--from", ".znap/damaged")
    elif result.code == LEFT_BASE and NO_BASE in result.err:
        done(place, step, world)
    elif result.code == 6 and LEFT_BLOBS in result.err:
        now = State.of(world)
        need(not journal(world) and all(now[name].opens_as(step.target[name]) for name in now), "it isn't what it says", result)
        shutil.rmtree(world)
        return True
    elif result.code == 0:
        need(error.may_pass, "something wasn't synced, and it says it is done", result)
        done(place, step, world)
    else:
        need(result.code in (1, 3), "it ends in another way", result)
        failed(step, world)
        # What check finds is its result.
        says = "".join(line for line in err.splitlines() if "error: " in line)
        says += result.out if step.words[0] == "check" else ""
        names = (".fs", ".znap", f" {error.path}: ", f"/{error.path}: ")
        need(any(name in says for name in names), "it doesn't say which file", result)
    wrong = [words for words in MISTAKES if words in NOT_CHANGED.sub("", result.out + err)]
    need(not wrong, "it takes what can't be read for something else", wrong, result)
    check(place, step, world)
    return result.code == 0
