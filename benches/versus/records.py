"""All that was measured: rows of one CSV file, written as they come."""

import csv
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from statistics import median


@dataclass
class Record:
    scenario: str
    database: str
    tool: str
    action: str
    # The snapshot that was saved or restored.
    stage: str = ""
    round: int = 0
    wall: float | None = None
    # Without the `sync` that follows, where there is one.
    unsynced: float | None = None
    user: float | None = None
    system: float | None = None
    # Peak memory in bytes.
    rss: int | None = None
    # What read() and write() moved, and what came from and goes to the disk, in bytes.
    rchar: int | None = None
    wchar: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    # All of the repository after it, in bytes; or another figure that was not a run.
    size: int | None = None
    # Of restores: "identical", or what differs.
    check: str = ""


class Records:
    def __init__(self, path):
        self.rows = []
        self.file = open(path, "w", newline="")
        self.writer = csv.DictWriter(self.file, [field.name for field in fields(Record)])
        self.writer.writeheader()

    def add(self, scenario, database, tool, action, cost=None, **more):
        costs = {}
        if cost is not None:
            costs = {
                "wall": round(cost.wall, 6), "user": round(cost.user, 4), "system": round(cost.system, 4),
                "unsynced": getattr(cost, "unsynced", None),
                **{name: getattr(cost, name) for name in ("rss", "rchar", "wchar", "read_bytes", "write_bytes")},
            }
        record = Record(scenario, database, tool, action, **costs, **more)
        self.rows.append(record)
        self.writer.writerow(asdict(record))
        self.file.flush()
        time = f"{record.wall:9.3f} s" if record.wall is not None else ""
        size = record.size if record.size is not None else ""
        size = f"{size / 1e6:10.2f} MB" if size and size > 100_000 else size
        what = f"{database} {scenario}: {tool} {action} {record.stage}"
        print(f"{what:56} {time:>11} {size:>13} {record.check}", flush=True)
        return record


def read(path):
    """The records of an earlier run."""
    kinds = {field.name: field.type for field in fields(Record)}

    def value(name, text):
        if kinds[name] is str:
            return text
        if text == "":
            return None
        return int(text) if "int" in str(kinds[name]) else float(text)

    with open(path, newline="") as file:
        return [Record(**{name: value(name, text) for name, text in row.items()}) for row in csv.DictReader(file)]


def chosen(rows, **wanted):
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def middle(rows, name="wall", **wanted):
    """The median of a column; None if there is nothing."""
    values = [value for row in chosen(rows, **wanted) if (value := getattr(row, name)) is not None]
    return median(values) if values else None


def last(rows, name="size", **wanted):
    values = [value for row in chosen(rows, **wanted) if (value := getattr(row, name)) is not None]
    return values[-1] if values else None
