"""The report in Markdown, made from raw.csv and about.json alone: `python3 report.py DIRECTORY` makes it again."""

import json
import sys
from pathlib import Path

from bars import NAMES
from bars import Bars
from bars import megabytes
from records import chosen
from records import last
from records import middle
from records import read

ORDER = ("znap", "znap_whole", "znap2", "repozo", "restic", "borg", "cp", "reflink", "zstd")
COMMANDS = {
    "znap": ("`znap save ID`", "`znap restore ID`", "yes"),
    "znap_whole": ("the same in a repository begun on a tiny file: it has everything", "the same", "yes"),
    "znap2": ("`znap2 save ID`", "`znap2 restore ID`", "no"),
    "repozo": ("`repozo -B -Q -r R -f Data.fs`", "`repozo -R -r R -D DATE -o Data.fs`", "save; restore not"),
    "restic": ("`restic backup --compression auto .`", "`restic restore ID --target DIR`, with `--delete` from 0.17 on",
               "save; restore not"),
    "borg": ("`borg create -C zstd,3 ::ID .`, `-e none`", "`borg extract ::ID`", "save; restore not"),
    "cp": ("`cp -a --reflink=never DIR R/ID`, `sync` of the files", "the same back", "by `sync`"),
    "reflink": ("the same with `--reflink=always`", "the same back", "by `sync`"),
    "zstd": ("`zstd -3 --long=27 -T2` of exactly the new bytes: a yardstick", "-", "no"),
}
RESTORES = ("restore one back", "restore six back", "restore six forward", "restore elsewhere", "restore after gc",
            "restore after deleting half")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]) + "\n"


def write(directory):
    rows = read(directory / "raw.csv")
    about = json.loads((directory / "about.json").read_text())
    parts = [head(about), conditions(rows)]
    for database in NAMES:
        if chosen(rows, database=database, scenario="stages"):
            parts.append(stages(rows, database))
    parts += [small(rows), fifty(rows), tail(rows), others(rows), memory(rows)]
    (directory / "report.md").write_text("\n".join(part for part in parts if part))


def head(about):
    machine = "; ".join(f"{name}: {value}" for name, value in about["machine"].items())
    versions = table(("tool", "version"), about["versions"].items())
    failed = [f"**failed:** {text}" for text in about.get("failed", [])]
    missing = "".join(f"- {text}\n" for text in about["missing"] + failed)
    tools = table(("tool", "save", "restore", "synced"),
                  [(tool, *COMMANDS[tool]) for tool in ORDER if tool != "reflink" or "reflink" in about["versions"]])
    return (
        f"# znap and others\n\n`{about['command']}`, {about['rounds']} rounds, {about.get('minutes', '?')} minutes.\n\n"
        f"{machine}.\n\nWhole programs, start-up included, the page cache warm; medians. MB = 10^6 bytes. "
        "Every restore was compared with the database byte by byte, the index as well.\n\n"
        f"{versions}\n{missing}\n{tools}"
    )


def conditions(rows):
    marks = {True: "yes", False: "**no**", None: ""}
    found = [(bar.number, bar.what, bar.found, bar.asked, marks[bar.met]) for bar in Bars(rows).compute()]
    return "## What was asked for\n\n" + table(("row", "what", "found", "asked", "met"), found)


def seconds(rows, **wanted):
    wall = middle(rows, **wanted)
    if wall is None:
        return "-"
    cpu = middle(rows, "user", **wanted) + middle(rows, "system", **wanted)
    return f"{wall:.3f} ({cpu:.2f})"


def present(rows, **wanted):
    known = {row.tool for row in chosen(rows, **wanted)}
    return [tool for tool in ORDER if tool in known]


def stages(rows, database):
    rows = chosen(rows, database=database, scenario="stages")
    names = list(dict.fromkeys(row.stage for row in chosen(rows, action="save")))
    tools = present(rows, action="save")
    text = f"## {NAMES[database]}: the stages\n\n"
    grown = ["", *(megabytes_or_dash(last(rows, tool="zodb", action="new bytes", stage=name)) for name in names)]
    text += "Each save, wall seconds (CPU seconds):\n\n" + table(
        ("tool", *names, "most memory"),
        [("new bytes", *grown[1:], "")]
        + [(tool, *(seconds(rows, tool=tool, action="save", stage=name) for name in names),
            most(rows, tool=tool, action="save")) for tool in tools],
    )
    text += "\nAll of the repository after each save, MB:\n\n" + table(
        ("tool", *names, "after gc", "half deleted"),
        [(tool, *(size(rows, tool=tool, action="save", stage=name) for name in names),
          size(rows, tool=tool, action="gc"), size(rows, tool=tool, action="delete half and gc")) for tool in tools],
    )
    text += "\nBytes written by each save, MB (pages that became dirty):\n\n" + table(
        ("tool", *names),
        [(tool, *(megabytes_or_dash(middle(rows, "write_bytes", tool=tool, action="save", stage=name)) for name in names))
         for tool in tools],
    )
    for action in RESTORES:
        done = present(rows, action=action)
        text += f"\n{action.capitalize()}:\n\n" + costs(rows, [(tool, tool, action) for tool in done], checked=True)
    for action in ("gc", "delete half and gc"):
        text += f"\n{action.capitalize()}:\n\n" + costs(rows, [(t, t, action) for t in present(rows, action=action)])
    return text


def megabytes_or_dash(value):
    return "-" if value is None else f"{value / 1e6:.1f}"


def size(rows, **wanted):
    return megabytes_or_dash(last(rows, **wanted))


def most(rows, **wanted):
    values = [row.rss for row in chosen(rows, **wanted) if row.rss]
    return f"{max(values) / 1e6:.0f} MB" if values else "-"


def costs(rows, lines, checked=False):
    """A table of commands with all that was measured; `lines` has a name, a tool and an action for each."""
    head = ["", "wall s", "without sync", "CPU s", "memory", "read MB", "written MB"] + (["restored"] if checked else [])
    body = []
    for name, tool, action in lines:
        wanted = {"tool": tool, "action": action}
        if middle(rows, **wanted) is None:
            continue
        unsynced = middle(rows, "unsynced", **wanted)
        line = [
            name, f"{middle(rows, **wanted):.3f}", "" if unsynced is None else f"{unsynced:.3f}",
            f"{middle(rows, 'user', **wanted) + middle(rows, 'system', **wanted):.2f}", most(rows, **wanted),
            megabytes_or_dash(middle(rows, "rchar", **wanted)), megabytes_or_dash(middle(rows, "write_bytes", **wanted)),
        ]
        if checked:
            line.append("; ".join(sorted({row.check for row in chosen(rows, **wanted)})))
        body.append(line)
    return table(head, body)


def section(rows, title, scenario, *actions):
    rows = chosen(rows, scenario=scenario)
    lines = [(f"{tool}: {action}", tool, action) for action in actions for tool in present(rows, action=action)]
    return f"## {title}\n\n{costs(rows, lines)}\n" if lines else ""


def small(rows):
    return section(rows, "Saves of nothing and of little", "small", "save nothing new", "save one transaction")


def fifty(rows):
    return section(rows, "Half of fifty snapshots deleted, and gc", "fifty", "save", "delete half and gc")


def tail(rows):
    return section(rows, "All stages of the 4 GB database in one save", "tail", "save all stages")


def others(rows):
    text = section(rows, "A thousand saves, a gc after every fifty", "thousand", "small save", "gc between", "list",
                   "show", "status", "one save of all", "gc after one save")
    text += section(rows, "Five hundred small saves, then gc", "fivehundred", "small save", "gc", "one save of all",
                    "gc after one save")
    for database in ("500mb", "4gb"):
        of_it = chosen(rows, database=database)
        text += section(of_it, f"init, {NAMES[database]}", "init", "init with index", "init without index")
    return text


def memory(rows):
    """Peak memory of every command of znap, the largest of all runs."""
    words = {"init": "init", "save": "save", "small save": "save", "one save": "save", "restore elsewhere": "restore --to",
             "restore": "restore", "gc": "gc", "delete": "delete, gc", "list": "list", "show": "show", "status": "status"}
    peaks = {}
    for row in rows:
        if row.tool in ("znap", "znap_whole") and row.rss:
            command = next(words[word] for word in words if row.action.startswith(word))
            of_command = peaks.setdefault(command, {})
            of_command[row.database] = max(of_command.get(row.database, 0), row.rss)
    databases = [name for name in NAMES if chosen(rows, database=name)]
    body = [(f"znap {command}", *(megabytes(of[name]) if name in of else "-" for name in databases))
            for command, of in peaks.items()]
    note = "\nLess than about 9 MB can't be told from the program that starts the measured one.\n"
    return "## Peak memory of each command\n\n" + table(("command", *(NAMES[name] for name in databases)), body) + note


if __name__ == "__main__":
    write(Path(sys.argv[1]))
