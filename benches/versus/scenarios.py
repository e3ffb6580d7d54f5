"""The scenarios, each on one database. What they find is in the records."""

import re
import sqlite3
import subprocess

import bench
from bench import Borg
from bench import Cp
from bench import Repozo
from bench import Restic
from bench import Znap
from bench import Znap2
from bench import ZnapWhole
from bench import Zstd
from measure import run


def stages(at):
    """The life of a database: saves of each stage, restores back and forward, gc, half of it deleted."""
    database, large = at.database, at.database.kind == "4gb"
    tools = at.tools(*bench.ALL)
    for tool in tools:
        if isinstance(tool, Cp) and large:
            tool.keep = 2
    if "tiny" in database.lengths:
        at.working.put("tiny")
        for tool in tools:
            if isinstance(tool, ZnapWhole):
                at.start(tool)
    else:
        tools = [tool for tool in tools if not isinstance(tool, ZnapWhole)]
    at.working.put("s00")
    for tool in tools:
        if not isinstance(tool, ZnapWhole):
            at.start(tool)
    savers = [tool for tool in tools if not isinstance(tool, Zstd)]
    at.measure(savers, "save", lambda tool: tool.save("s00"), "s00", rounds=1)
    twenty = database.about(20)
    at.record("zodb", "stage of about 20 MB", stage=twenty)
    for stage in database.names[1:]:
        at.grow(stage)
        at.record("zodb", "new bytes", stage=stage, size=at.working.new_bytes.stat().st_size)
        # Of a large database the save that the others are compared by, only.
        rounds = 1 if large and stage != twenty else at.rounds
        at.measure(tools, "save", lambda tool: tool.save(stage), stage, rounds)
    one_stream(at, tools)
    restorers = [tool for tool in tools if tool.can_restore]
    restores(at, restorers)
    collectors = [tool for tool in restorers if tool.can_collect]
    at.measure(collectors, "gc", lambda tool: tool.collect(), rounds=1)
    for tool in collectors:
        at.restore(tool, "restore after gc", database.last, database.names[-2], 0)
    deleters = [tool for tool in restorers if tool.can_delete]
    half = database.names[1::2]
    at.measure(deleters, "delete half and gc", lambda tool: tool.delete(half), rounds=1)
    left = [name for name in database.names[:-1] if name not in half][-1]
    for tool in deleters:
        if not isinstance(tool, Cp) or tool.has(left):
            at.restore(tool, "restore after deleting half", database.last, left, 0)
    for tool in tools:
        tool.clean()


def one_stream(at, tools):
    """All new bytes of all stages in one stream of zstd."""
    database = at.database
    for tool in tools:
        if isinstance(tool, Zstd):
            database.extract(database.lengths["s00"], database.lengths[database.last], at.working.new_bytes)
            output = tool.root / "one-stream.zst"
            cost = tool.compress(at.working.new_bytes, output, 1)
            at.record(tool, "all new bytes in one stream", cost, size=output.stat().st_size)


def restores(at, tools):
    database = at.database
    names = database.names
    moves = (
        ("restore one back", names[-1], names[-2]),
        ("restore six back", names[-1], names[-7]),
        ("restore six forward", names[-7], names[-1]),
    )
    slow = set()
    for action, begin, end in moves:
        for number in range(at.rounds):
            if action == "restore six forward":
                written(at, begin, end, number)
            if action == "restore one back":
                cut(at, begin, end, number)
            for tool in bench.in_turn(tools, number):
                if (tool, action) in slow or isinstance(tool, Cp) and not tool.has(end):
                    continue
                at.restore(tool, action, begin, end, number)
                if at.records.rows[-1].wall > bench.LONG:
                    slow.add((tool, action))
    at.working.put(database.last)
    for number in range(at.rounds):
        for tool in bench.in_turn(tools, number):
            if tool.can_restore_to and not isinstance(tool, ZnapWhole):
                at.restore_to(tool, "restore elsewhere", database.last, number)


def written(at, begin, end, number):
    """What it takes to copy and sync the bytes that going forward has to write."""
    source, target = at.working.new_bytes, at.directory / "copied-bytes"
    at.database.extract(at.database.lengths[begin], at.database.lengths[end], source)
    at.warm()
    bench.settle(source)
    target.unlink(missing_ok=True)
    copied = run(["cp", "--reflink=never", source, target], at.directory)
    cost = copied + run(["sync", target], at.directory)
    cost.unsynced = copied.wall
    at.record("cp", "copy of the bytes", cost, stage=end, round=number, size=target.stat().st_size)
    target.unlink()


def cut(at, begin, end, number):
    """What it takes to cut the file off, and to copy and sync the index that belongs to what is left."""
    database, target = at.database, at.directory / "copied-index"
    at.working.put(begin)
    at.warm()
    bench.read_all(database.index(end))
    length = database.lengths[end]
    cost = run(["truncate", "--size", str(length), at.working.path], at.directory)
    cost += run(["cp", "--reflink=never", database.index(end), target], at.directory)
    cost += run(["sync", at.working.path, target], at.directory)
    at.record("cp", "cut and copy of the index", cost, stage=end, round=number, size=database.lengths[begin] - length)
    target.unlink()


def small(at):
    """Saves of nothing new and of one small transaction."""
    tools = at.tools(Znap, Znap2, Repozo, Restic, Borg)
    begin, end = at.database.grown("s06")
    ends = at.database.boundaries(begin, end)
    # The first transaction of less than 20 kB.
    number = next(number for number in range(1, len(ends)) if ends[number] - ends[number - 1] < 20_000)
    at.working.put("s05")
    at.working.put_length(ends[number - 1])
    for tool in tools:
        at.start(tool)
    at.measure(tools, "save", lambda tool: tool.save("base"), "base", rounds=1)
    at.measure(tools, "save nothing new", lambda tool: tool.save("again"), "again")
    at.working.put_length(ends[number])
    at.measure(tools, "save one transaction", lambda tool: tool.save("small"), "small")
    at.record("zodb", "bytes of one transaction", size=ends[number] - ends[number - 1])
    if at.programs.strace:
        for tool in tools:
            if isinstance(tool, Znap):
                at.record(tool, "syncs of nothing new", size=syncs(at, tool, "same"))
                at.working.put_length(ends[number + 1])
                at.record(tool, "syncs of one transaction", size=syncs(at, tool, "traced"))


def syncs(at, tool, name):
    """How often a save asks for its writes to be on the disk."""
    output = at.directory / "strace"
    command = [at.programs.strace, "-f", "-c", "-e", "trace=fsync,fdatasync,syncfs,sync", "-o", output]
    subprocess.run([*command, at.programs.znap, "-q", "save", name], cwd=tool.root, check=True)
    pattern = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) .*sync(?:fs)?$", re.MULTILINE)
    return sum(int(calls) for calls in pattern.findall(output.read_text()))


def many(at, number, total, every=None):
    """A save after each of many transactions, of so many bytes in all; then the same in one save of a new repository."""
    (tool,) = at.tools(Znap) or (None,)
    if not tool:
        return
    begin, *ends = at.database.window(number, total)
    begin_for_many(at, tool, begin)
    at.record("zodb", "bytes of all saves", size=ends[-1] - begin)
    for count, end in enumerate(ends, 1):
        at.working.put_length(end)
        at.record(tool, "small save", tool.save(f"n{count:04d}"), stage=f"n{count:04d}", size=tool.size())
        if every and count % every == 0:
            at.record(tool, "gc between", tool.collect(), size=tool.size())
    yield tool
    tool.prepare()
    begin_for_many(at, tool, begin)
    at.working.put_length(ends[-1])
    at.warm()
    at.record(tool, "one save of all", tool.save("all"), size=tool.size())
    at.record(tool, "gc after one save", tool.collect(), size=tool.size())


def begin_for_many(at, tool, begin):
    at.working.put("s00")
    at.working.put_length(begin)
    at.start(tool)
    at.record(tool, "save", tool.save("base"), stage="base", size=tool.size())


def catalog(at, tool):
    """How large the catalog is, and how much is in it."""
    path = tool.repository / "catalog.db"
    at.record(tool, "catalog", size=path.stat().st_size)
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    for view in ("snapshots", "chunks"):
        (count,) = connection.execute(f"SELECT count(*) FROM {view}").fetchone()
        at.record(tool, f"catalog {view}", size=count)
    connection.close()


def thousand(at):
    """A thousand saves with a gc after every fifty; then what it takes to look at them."""
    for tool in many(at, 1000, 170_000_000, every=50):
        for number in range(max(at.rounds, 5)):
            at.record(tool, "list", tool.znap("list"), round=number)
            at.record(tool, "show", tool.znap("show", "n0500"), round=number)
            at.record(tool, "status", tool.znap("status"), round=number)
        catalog(at, tool)


def fivehundred(at):
    """Five hundred saves of 100 kB, as near as the transactions allow; then gc."""
    for tool in many(at, 500, 50_000_000):
        catalog(at, tool)
        at.measure([tool], "gc", lambda tool: tool.collect(), rounds=1)
        at.record(tool, "catalog after gc", size=(tool.repository / "catalog.db").stat().st_size)


def fifty(at):
    """Fifty saves, of which every other is deleted."""
    tools = at.tools(Znap, Restic, Borg)
    database = at.database
    begin, end = database.lengths["s00"], database.lengths[database.last]
    cuts = database.cuts(begin, end, (end - begin) // 51)[:50]
    names = [f"n{number:02d}" for number in range(1, len(cuts) + 1)]
    at.working.put("s00")
    for tool in tools:
        at.start(tool)
    for name, cut in zip(names, cuts):
        at.working.put_length(cut)
        at.measure(tools, "save", lambda tool: tool.save(name), name, rounds=1)
    at.measure(tools, "delete half and gc", lambda tool: tool.delete(names[::2]))


def tail(at):
    """A save of all stages at once: about a gigabyte."""
    tools = at.tools(Zstd, Znap, Repozo)
    database = at.database
    at.working.put("s00")
    for tool in tools:
        at.start(tool)
    savers = [tool for tool in tools if not isinstance(tool, Zstd)]
    at.measure(savers, "save", lambda tool: tool.save("s00"), "s00", rounds=1)
    database.extract(database.lengths["s00"], database.lengths[database.last], at.working.new_bytes)
    at.working.put(database.last)
    bench.settle(at.working.new_bytes)
    at.measure(tools, "save all stages", lambda tool: tool.save("all"), "all")
    at.record("zodb", "bytes of all stages", size=at.working.new_bytes.stat().st_size)


def init(at):
    """The beginning of a repository, with an index that fits and without."""
    (tool,) = at.tools(Znap) or (None,)
    if not tool:
        return
    at.working.put(at.database.last)
    at.record("zodb", "bytes of the database", size=at.working.path.stat().st_size)
    for action in ("init with index", "init without index"):
        for number in range(at.rounds):
            tool.prepare()
            at.warm()
            at.record(tool, action, tool.start(), round=number, size=tool.size())
        at.working.index.unlink(missing_ok=True)


SCENARIOS = {
    "stages": (stages, ("500mb", "4gb", "zlib")),
    "small": (small, ("500mb",)),
    "thousand": (thousand, ("500mb",)),
    "fivehundred": (fivehundred, ("500mb",)),
    "fifty": (fifty, ("500mb",)),
    "tail": (tail, ("4gb",)),
    "init": (init, ("500mb", "4gb")),
}
