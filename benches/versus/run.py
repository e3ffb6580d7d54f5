"""Compares znap with other tools, whole programs on the same databases.

    python3 benches/versus/run.py [--size 500mb|4gb|zlib|all] [--scenario NAME,...] [--only TOOL,...] [--rounds N]

Writes the raw figures as CSV and a report as Markdown. The exit code is 1 if any restore wasn't identical, or a program failed.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import environment
import report
import stages
from bench import ALL
from bench import Bench
from measure import Failed
from records import Records
from scenarios import SCENARIOS

SIZES = ("500mb", "zlib", "4gb")


def arguments():
    work = environment.TARGET / "versus"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=(*SIZES, "all"), default="500mb", help="which database (default: 500mb)")
    parser.add_argument("--scenario", help=f"of {', '.join(SCENARIOS)}; all unless told")
    parser.add_argument("--only", help=f"of {', '.join(kind.name for kind in ALL)}; all that are installed unless told")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--znap", help="the program, instead of building it")
    parser.add_argument("--work", type=Path, default=work, help="where databases and repositories are made")
    parser.add_argument("--out", type=Path, help="where the results go (default: results in the directory --work)")
    options = parser.parse_args()
    options.scenario = names(parser, options.scenario, SCENARIOS)
    options.only = names(parser, options.only, [kind.name for kind in ALL])
    options.sizes = SIZES if options.size == "all" else (options.size,)
    options.work = options.work.resolve()
    options.out = (options.out or options.work / "results").resolve()
    return options


def names(parser, text, known):
    chosen = text.split(",") if text else []
    for name in chosen:
        if name not in known:
            parser.error(f"{name} is none of {', '.join(known)}")
    return chosen


def main():
    options = arguments()
    begun = time.monotonic()
    programs = environment.Programs(options.znap, options.work)
    for text in programs.missing():
        print(text, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {
        "machine": environment.machine(options.work), "versions": programs.versions, "missing": programs.missing(),
        "command": " ".join(["python3", "benches/versus/run.py", *sys.argv[1:]]), "rounds": options.rounds,
    }
    (options.out / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    records = Records(options.out / "raw.csv")
    wrong, failed = 0, []
    for size in options.sizes:
        database = stages.ensure(size, programs.python, options.work / "databases")
        for name, (scenario, sizes) in SCENARIOS.items():
            if size in sizes and (not options.scenario or name in options.scenario):
                with Bench(name, database, programs, records, options) as bench:
                    try:
                        scenario(bench)
                    except Failed as error:
                        # The others are run all the same, and what was measured so far is reported.
                        failed.append(f"{size} {name}: {error}")
                        print(f"FAILED: {failed[-1]}", flush=True)
                    wrong += bench.wrong
    about["failed"] = failed
    about["minutes"] = round((time.monotonic() - begun) / 60)
    (options.out / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    report.write(options.out)
    print(f"\n{options.out / 'report.md'}")
    if wrong or failed:
        sys.exit(f"{wrong} restores were not identical, {len(failed)} scenarios failed")


if __name__ == "__main__":
    main()
