"""The figures that znap is held to, each computed from the records of the same run."""

from dataclasses import dataclass
from functools import partial

from records import chosen
from records import last
from records import middle

MIB = 1 << 20
# 100 MB, and two frames with what zstd needs for each: tables of 13 MB at level 9, of 4 MB for long distances.
GC_MEMORY = 100e6 + 2 * (64 * MIB + 17e6)


@dataclass
class Bar:
    number: str
    what: str
    # What was found, in words, and what is asked for.
    found: str
    asked: str
    # Whether it is met; None if something to compare with is missing.
    met: bool | None


class Bars:
    def __init__(self, rows):
        self.rows = rows
        self.bars = []
        self.middle = partial(middle, rows)
        self.last = partial(last, rows)

    def compute(self):
        for number, method in enumerate(
            (self.tails, self.whole, self.save, self.large_save, self.tiny_saves, self.big_tail, self.one_back,
             self.forward, self.elsewhere, self.looking, self.fivehundred, self.fifty, self.init, self.memory,
             self.thousand), 1
        ):
            self.number = str(number)
            method()
        return self.bars

    def add(self, what, found, asked, met, *needed):
        if any(value is None for value in needed):
            self.bars.append(Bar(self.number, what, "-", asked, None))
        else:
            self.bars.append(Bar(self.number, what, found(), asked, met() if met else None))

    def at_most(self, what, value, limit, text, asked):
        """A row where less is better; `value` and `limit` may be missing."""
        self.add(what, lambda: text(value), asked, lambda: value <= limit, value, limit)

    def ratio(self, what, above, below, asked, limit=None, least=None, unit="s"):
        """One figure by another, both shown."""
        def found():
            return f"{above / below:.2f} ({show(above, unit)} / {show(below, unit)})"

        def met():
            return above / below <= limit if limit else above / below >= least

        self.add(what, found, asked, met if limit or least else None, above, below)

    # The rows.

    def tails(self):
        one_stream = self.last(database="500mb", scenario="stages", tool="zstd", action="all new bytes in one stream")
        saved = self.last(database="500mb", scenario="stages", tool="znap", action="save")
        collected = self.last(database="500mb", scenario="stages", tool="znap", action="gc")
        self.ratio("repository after 12 saves / all new bytes in one stream of zstd -3 --long=27",
                   saved, one_stream, "<= 1.7", limit=1.7, unit="B")
        self.ratio("the same after gc", collected, one_stream, "<= 1.2", limit=1.2, unit="B")

    def whole(self):
        size = {
            tool: self.last(database="500mb", scenario="stages", tool=tool, action="gc")
            for tool in ("znap_whole", "borg", "restic")
        }
        self.ratio("repository with the base in it, after gc / borg's", size["znap_whole"], size["borg"],
                   "<= 0.4", limit=0.4, unit="B")
        self.ratio("the same / restic's", size["znap_whole"], size["restic"], "<= 0.3", limit=0.3, unit="B")

    def twenty(self, database):
        """The stage of about 20 MB, by how often or how much of it was measured."""
        rows = chosen(self.rows, database=database, scenario="stages", tool="zodb", action="stage of about 20 MB")
        return rows[0].stage if rows else None

    def save_of(self, tool, database):
        return self.middle(database=database, scenario="stages", tool=tool, action="save", stage=self.twenty(database))

    def save(self):
        znap = self.save_of("znap", "500mb")
        self.to_yardstick("save of 20 MB, 500 MB database", "500mb", 1.0)
        self.ratio("repozo -Q / znap", self.save_of("repozo", "500mb"), znap, "> 1", least=1.0)
        for tool in ("restic", "borg"):
            self.ratio(f"{tool} / znap", self.save_of(tool, "500mb"), znap, ">= 8", least=8)

    def to_yardstick(self, what, database, factor):
        znap, zstd = self.save_of("znap", database), self.save_of("zstd", database)
        limit = None if zstd is None else factor * (1.5 * zstd + 0.030)
        asked = f"<= {'1.1 x (' if factor > 1 else ''}1.5 x zstd -3 --long=27 -T2 + 30 ms{')' if factor > 1 else ''}"
        self.add(what, lambda: f"{show(znap)} (zstd: {show(zstd)}; so at most {show(limit)})", asked,
                 lambda: znap <= limit, znap, zstd)

    def large_save(self):
        znap = self.save_of("znap", "4gb")
        self.to_yardstick("save of 20 MB, 4 GB database", "4gb", 1.1)
        for tool in ("restic", "borg"):
            self.ratio(f"{tool} / znap", self.save_of(tool, "4gb"), znap, ">= 40", least=40)

    def tiny_saves(self):
        for what, limit in (("nothing new", 0.030), ("one transaction", 0.060)):
            wall = self.middle(scenario="small", tool="znap", action=f"save {what}")
            self.at_most(f"save of {what}", wall, limit, show, f"<= {limit * 1000:.0f} ms")
            syncs = self.last(scenario="small", tool="znap", action=f"syncs of {what}")
            self.at_most("its syncs", syncs, 8, str, "<= 8")

    def big_tail(self):
        wanted = {"scenario": "tail", "action": "save all stages"}
        znap, zstd = self.middle(tool="znap", **wanted), self.middle(tool="zstd", **wanted)
        self.ratio("throughput of a save of 1 GB / that of zstd -3 --long=27 -T2", zstd, znap, ">= 0.8", least=0.8)
        memory = self.middle("rss", tool="znap", **wanted)
        self.at_most("its memory", memory, 400e6, megabytes, "<= 400 MB")

    def one_back(self):
        for database, limit, times in (("500mb", 0.050, 20), ("4gb", 0.120, 30)):
            wanted = {"database": database, "action": "restore one back"}
            znap, restic = self.middle(tool="znap", **wanted), self.middle(tool="restic", **wanted)
            self.at_most(f"restore one snapshot back, {NAMES[database]}", znap, limit, show, f"<= {limit * 1000:.0f} ms")
            cut = {"database": database, "tool": "cp", "action": "cut and copy of the index"}
            length = self.last(**cut)
            what = f"the same / truncate of {megabytes(length)}, cp of the index, sync" if length else "the same / truncate, cp, sync"
            self.ratio(what, znap, self.middle(**cut), "(for comparison)")
            self.ratio("restic in place / znap", restic, znap, f">= {times}", least=times)

    def forward(self):
        wanted = {"database": "500mb", "scenario": "stages"}
        znap = self.middle(tool="znap", action="restore six forward", **wanted)
        cp = self.middle(tool="cp", action="copy of the bytes", **wanted)
        self.ratio("restore six forward / cp and sync of the bytes", znap, cp, "<= 1.4", limit=1.4)
        self.ratio("the same / cp without sync", znap,
                   self.middle("unsynced", tool="cp", action="copy of the bytes", **wanted), "(for comparison)")

    def elsewhere(self):
        for database in ("500mb", "4gb"):
            wanted = {"database": database, "action": "restore elsewhere"}
            znap = self.middle(tool="znap", **wanted)
            self.ratio(f"restore --to, {NAMES[database]} / cp and sync", znap, self.middle(tool="cp", **wanted),
                       "<= 1.5", limit=1.5)
            self.ratio("the same / cp without sync", znap, self.middle("unsynced", tool="cp", **wanted),
                       "(for comparison)")

    def looking(self):
        for action in ("list", "show"):
            wall = self.middle(scenario="thousand", action=action)
            self.at_most(f"{action} with 1,000 snapshots", wall, 0.015, show, "<= 15 ms")

    def fivehundred(self):
        wanted = {"scenario": "fivehundred", "tool": "znap"}
        collected, at_once = self.last(action="gc", **wanted), self.last(action="one save of all", **wanted)
        bytes_each = (self.last(scenario="fivehundred", action="bytes of all saves") or 0) / 500
        self.ratio(f"500 saves of {bytes_each / 1e3:.0f} kB and gc / one save of it all", collected, at_once, "<= 1.3", limit=1.3, unit="B")
        self.ratio("the same / one save of it all and gc", collected, self.last(action="gc after one save", **wanted),
                   "(for comparison)", unit="B")
        catalog, snapshots, chunks = (
            self.last(action=action, **wanted) for action in ("catalog", "catalog snapshots", "catalog chunks")
        )
        limit = None if chunks is None else 1000 * snapshots + 100 * chunks
        self.add("its catalog, before gc", lambda: f"{catalog / 1e3:.0f} kB ({snapshots} snapshots, {chunks} chunks; "
                 f"so at most {limit / 1e3:.0f} kB)", "<= 1 kB a snapshot and 100 bytes a chunk",
                 lambda: catalog <= limit, catalog, limit)

    def fifty(self):
        wanted = {"scenario": "fifty", "action": "delete half and gc"}
        znap = self.middle(tool="znap", **wanted)
        self.ratio("restic forget --prune of 25 of 50 snapshots / znap delete and gc",
                   self.middle(tool="restic", **wanted), znap, "> 1", least=1.0)
        self.at_most("its memory", self.middle("rss", tool="znap", **wanted), GC_MEMORY, megabytes,
                     f"<= 100 MB, two frames of 64 MiB and their compressors: {megabytes(GC_MEMORY)}")
        most = max((row.rss for row in self.rows if row.tool == "znap" and "gc" in row.action and row.rss), default=None)
        self.add("most memory of any gc", lambda: megabytes(most), "(for comparison)", None, most)

    def init(self):
        wanted = {"database": "4gb", "tool": "znap"}
        self.at_most("init with an index, 4 GB", self.middle(action="init with index", **wanted), 0.050, show, "<= 50 ms")
        wall = self.middle(action="init without index", **wanted)
        size = self.last(database="4gb", tool="zodb", action="bytes of the database")
        self.add("init without an index, 4 GB", lambda: f"{size / wall / 1e9:.2f} GB/s ({show(wall)})", ">= 1 GB/s",
                 lambda: size / wall >= 1e9, wall, size)

    def memory(self):
        """The largest; all of them are in a table of the report."""
        rows = [row for row in self.rows if row.tool in ("znap", "znap_whole") and row.rss]
        row = max(rows, key=lambda row: row.rss, default=None)
        self.add("most memory of any command", lambda: f"{megabytes(row.rss)} ({row.action}, {NAMES[row.database]})",
                 "(see the table at the end)", None, row)

    def thousand(self):
        wanted = {"scenario": "thousand", "tool": "znap"}
        for name, what in (("wchar", "passed to write()"), ("write_bytes", "in pages that became dirty")):
            saves = sum(getattr(row, name) for action in ("small save", "gc between")
                        for row in chosen(self.rows, action=action, **wanted))
            at_once = self.last(name, action="one save of all", **wanted)
            self.ratio(f"bytes written by 1,000 saves and 20 gc / by one save of it all ({what})", saves or None, at_once,
                       "(reported)", unit="B")


NAMES = {"500mb": "500 MB", "4gb": "4 GB", "zlib": "zlib"}


def show(value, unit="s"):
    if unit == "B":
        return megabytes(value)
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def megabytes(value):
    return f"{value / 1e6:.1f} MB"
