"""No room: a file system that is full, or nearly, and a limit on the size of files."""

import resource
import shutil
import signal

from after import LEFT_BASE, NO_BASE, check, done, failed, journal
from disk import Disk
from place import Failure, State, copy_into, need
from script import scripts

# How much room is left.
LEFT = (0, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
LIMITS = (0, 100, 4 << 10, 20 << 10, 64 << 10, 200 << 10, 600 << 10)
SAYS_WHY = ("No space left", "not enough room", "disk is full")
SAYS_WHY_LIMITED = ("File too large", "disk I/O error", "disk is full")


def attack(place, options):
    steps = [step for step in scripts(place) if not options.only or options.only in step.name]
    total = 0
    disk = Disk(place, 24)
    for step in steps:
        for left in LEFT[:: options.every or 1]:
            try:
                on_full_disk(place, disk, step, left)
            except Failure as failure:
                raise failure.at(step.name, f"{left} bytes left") from failure
            total += 1
        for limit in LIMITS[:: options.every or 1]:
            for ignored in (False, True):
                try:
                    limited(place, step, limit, ignored)
                except Failure as failure:
                    raise failure.at(step.name, f"files of up to {limit} bytes, SIGXFSZ ignored: {ignored}") from failure
                total += 1
        print(f"full: {step.name}: {total} until here", flush=True)
    disk.close()
    if not options.only or options.only in "larger":
        disk = Disk(place, 64)
        try:
            larger(place, disk)
        except Failure as failure:
            raise failure.at("larger", "a few megabytes") from failure
        disk.close()
        total += 1
    return total


def on_full_disk(place, disk, step, left):
    """Runs a command there; delete and gc succeed, what can't says so and leaves the database alone."""
    disk.empty()
    copy_into(step.before, disk.site)
    disk.fill(left)
    free = disk.free()
    result = place.znap(disk.site, *step.words)
    if result.code != LEFT_BASE or NO_BASE not in result.err:
        refused(result, SAYS_WHY)
    unfinished = journal(disk.site)
    if result.code in (0, LEFT_BASE):
        done(place, step, disk.site)
    if result.code != 0 and not unfinished:
        need(State.of(disk.site) == step.source, "it failed and changed the database", result)
        failed(step, disk.site)
    if left == 0:
        if step.words[0] in ("save", "init"):
            need(result.code == 1, "there was room", result)
        if step.words[0] in ("delete", "gc"):
            need(result.code == 0, "needs room", result)
            need(disk.free() >= free, "takes room", free, disk.free())
        need(not unfinished, "a restore began without room", result)
    left_over = [path.name for path in (disk.site / ".znap/objects").glob(".tmp-*")]
    need(not left_over, "it failed and left something", left_over)
    world = place.copy(disk.site)
    check(place, step, world)


def limited(place, step, limit, ignored):
    """Runs a command that may not make files longer than this: it is killed by SIGXFSZ, or gets an error if that is ignored."""

    def limits():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if ignored:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    world = place.copy(step.before)
    result = place.znap(world, *step.words, preexec_fn=limits)
    if ignored or result.code != 128 + signal.SIGXFSZ:
        if result.code != LEFT_BASE or NO_BASE not in result.err:
            refused(result, SAYS_WHY_LIMITED, hint="")
        failed(step, world)
    check(place, step, world)


def refused(result, reasons, hint="hint: "):
    """It succeeded, or says why not and what to do."""
    if result.code != 0:
        need(result.code == 1, "another code", result)
        need(any(reason in result.err for reason in reasons) and hint in result.err, "it doesn't say why", result)


def larger(place, disk):
    """A few megabytes, which the reserve doesn't replace: what can be freed is freed, however full the disk is."""
    disk.empty()
    site = disk.site
    place.grow(site, 1, 40, command="make")
    place.znap_ok(site, "init", "Data.fs")
    held = {}
    for number, snapshot in enumerate("abc"):
        place.zodb.run("grow", site / "Data.fs", "--seed", number + 2, "--mb", 2 * number + 2, "--profile", "mixed")
        if snapshot != "c":
            place.znap_ok(site, "save", snapshot)
            held[snapshot] = State.of(site)
    now = State.of(site)
    disk.fill(0)
    refused(failed := place.znap(site, "save", "c"), SAYS_WHY)
    need(failed.code == 1 and State.of(site) == now, "save without room", failed)
    refused(failed := place.znap(site, "restore", "a"), SAYS_WHY)
    need(failed.code == 1 and State.of(site) == now, "restore without room for what it drops", failed)
    need(place.snapshots(site).keys() == held.keys(), "snapshots are gone")
    disk.fill(0)
    place.znap_ok(site, "delete", "a", "b")
    place.znap_ok(site, "gc")
    freed = disk.free()
    need(freed > 200_000, "gc freed only", freed)
    (disk.folder / "filler").unlink()
    place.znap_ok(site, "save", "c")
    place.znap_ok(site, "gc")
    need(place.elsewhere(site, "c") == now, "c comes back wrong")
    # Forward without room.
    place.grow(site, 9, 30)
    place.znap_ok(site, "save", "d")
    last = State.of(site)
    place.zodb.run("grow", site / "Data.fs", "--seed", 10, "--mb", 8, "--profile", "mixed")
    place.znap_ok(site, "save", "e")
    place.znap_ok(site, "restore", "d")
    need(State.of(site) == last, "d comes back wrong")
    for left in (0, 100 << 10, 1 << 20):
        disk.fill(left)
        refused(failed := place.znap(site, "restore", "e"), SAYS_WHY)
        need(failed.code == 1 and "not enough room" in failed.err, "restore without room", failed)
        need(State.of(site) == last and not journal(site), "restore changed it")
    shutil.rmtree(site)
    site.mkdir()
