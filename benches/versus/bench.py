"""What all scenarios use: a database, a working copy, tools, and how each measurement is made."""

import shutil
from pathlib import Path

from backups import Borg
from backups import Repozo
from backups import Restic
from stages import Working
from stages import check
from stages import read_all
from stages import settle
from tools import Cp
from tools import Reflink
from tools import Znap
from tools import Znap2
from tools import ZnapWhole
from tools import Zstd

ALL = (Zstd, Znap, ZnapWhole, Znap2, Repozo, Restic, Borg, Cp, Reflink)

# What takes longer is measured once, whatever was asked for.
LONG = 20.0


def in_turn(tools, number):
    """Each round begins with another tool: the first pays for memory that a machine had taken back."""
    first = number % max(len(tools), 1)
    return [*tools[first:], *tools[:first]]


class Bench:
    """One scenario on one database."""

    def __init__(self, scenario, database, programs, records, options):
        self.scenario = scenario
        self.database = database
        self.programs = programs
        self.records = records
        self.rounds = options.rounds
        self.only = options.only
        self.directory = Path(options.work) / "run" / f"{database.kind}-{scenario}"
        self.wrong = 0

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.working = Working(self.database, self.directory / "db")
        self.working.new_bytes = self.directory / "new-bytes"
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)

    def tools(self, *kinds):
        """Those of them that are installed and asked for."""
        chosen = [kind for kind in kinds if kind.version(self.programs) and (not self.only or kind.name in self.only)]
        tools = [kind(self.programs, self.directory, self.working) for kind in chosen]
        for tool in tools:
            tool.prepare()
        return tools

    def record(self, tool, action, cost=None, **more):
        name = tool if isinstance(tool, str) else tool.name
        return self.records.add(self.scenario, self.database.kind, name, action, cost, **more)

    def warm(self, tool=None):
        """What the next command may read is in the page cache, and nothing waits to be written."""
        self.working.warm()
        if tool:
            files = [path for path in tool.root.rglob("*") if path.is_file() and not path.is_symlink()]
            settle(*files)
            for path in files:
                read_all(path)

    def start(self, tool):
        self.warm()
        self.record(tool, "init", tool.start(), size=tool.size())

    def measure(self, tools, action, operation, stage="", rounds=None, then=None, **more):
        """Does the same with each tool in turn, and that several times, on the same repository each time."""
        rounds = rounds or self.rounds
        if rounds > 1:
            for tool in tools:
                tool.checkpoint()
        slow = set()
        for number in range(rounds):
            for tool in in_turn(tools, number):
                if tool in slow:
                    continue
                if number:
                    tool.rollback()
                self.warm()
                cost = operation(tool)
                self.record(tool, action, cost, stage=stage, round=number, size=tool.size(), **more)
                if cost.wall > LONG:
                    slow.add(tool)
        for tool in tools:
            tool.forget_checkpoint()

    def grow(self, stage):
        """To a stage, of which the new bytes then are a file of their own as well."""
        self.database.extract(*self.database.grown(stage), self.working.new_bytes)
        settle(self.working.new_bytes)
        self.working.put(stage)

    def restore(self, tool, action, begin, end, number):
        """From one stage to another, in place, compared."""
        self.working.put(begin)
        self.warm(tool)
        self.compared(tool, action, tool.restore(end), self.working.directory, end, number)
        (self.working.directory / "Data.fs.lock").unlink(missing_ok=True)

    def restore_to(self, tool, action, stage, number):
        """To a new directory, compared."""
        target = self.directory / "elsewhere"
        shutil.rmtree(target, ignore_errors=True)
        self.warm(tool)
        self.compared(tool, action, tool.restore_to(stage, target), tool.restored(target), stage, number)
        shutil.rmtree(target)

    def compared(self, tool, action, cost, directory, stage, number):
        found = check(directory, self.database, stage, tool.restores_index)
        self.record(tool, action, cost, stage=stage, round=number, check=found or "identical")
        if found:
            self.wrong += 1
            print(f"WRONG: {tool.name} restored {stage}, but {found}", flush=True)
            if directory == self.working.directory:
                self.working.make_again(stage)
        return cost
