"""Real ZODB as the oracle of znap's tests: each subcommand prints one JSON document.

`serve` reads lists of arguments, one JSON list a line, and answers each with one line: it spares the tests
the time it takes to start Python and import ZODB.
"""

import argparse
import datetime
import gc
import json
import sys
import traceback

import blobs
import configuration
import content
import inspection
import live
import others
import tails
import together


def time_of(text):
    """2026-05-01T12:00:00 (UTC) as a Unix time."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc).timestamp()


def parser():
    root = argparse.ArgumentParser(prog="zodb_tool.py", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)

    def command(name, function, summary):
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(function=function)
        sub.add_argument("path", metavar="PATH", help="the Data.fs")
        return sub

    for name, function, summary in (
        ("make", content.make, "Make a FileStorage with real ZODB, repeatable by its seed."),
        ("grow", content.grow, "Append more of the same to a FileStorage."),
    ):
        sub = command(name, function, summary)
        sub.add_argument("--seed", type=int, required=True)
        sub.add_argument("--transactions", type=int, default=0, help="exactly so many are appended")
        sub.add_argument("--profile", choices=sorted(content.PROFILES), default="mixed")
        sub.add_argument("--mb", type=float, help="and then on, until the file has so many megabytes")
        sub.add_argument("--start", type=time_of, help="the time of the first transaction, UTC")

    sub = command("pack", content.pack, "Pack up to its last transaction, less so many days.")
    sub.add_argument("--days", type=float, default=0)

    sub = command("undo-last", content.undo_last, "Undo the last transactions in one.")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--number", type=int, default=1)

    sub = command("check", inspection.check, "Open it, load everything, find nothing wrong, change nothing.")
    sub.add_argument("--expect-index", action="store_true", help="its index must be the one that ZODB uses")

    sub = command("index", inspection.index, "Write the index that real ZODB has for the first bytes of a file.")
    sub.add_argument("--length", type=int, help="so many bytes; all of them unless told")
    sub.add_argument("out", metavar="OUT")

    command("boundaries", inspection.boundaries, "Where the transactions end, and their ids.")
    command("features", inspection.features, "How often what is tested is in the file.")

    command("zconfig", configuration.parse, "What ZConfig's parser finds in a file, or which line it refuses.")
    command("zope-conf", configuration.zope, "Open the databases of a zope.conf, and say where they are.")
    command("zeo-conf", configuration.zeo, "Open the storages of a zeo.conf, and say where they are.")

    sub = command("open", inspection.open_it, "How ZODB opens it, and what it then has done to it.")
    sub.add_argument("--read-only", action="store_true")

    sub = commands.add_parser("torn", help="Damage a file the way crashes do.")
    sub.set_defaults(function=tails.torn)
    sub.add_argument("kind", choices=sorted(tails.KINDS))
    sub.add_argument("path", metavar="PATH")

    command("fs21", tails.fs21, "A copy of the frozen FileStorage of ZODB 5 under Python 2, with its index.")

    sub = command("writer", live.writer, "Commit, or vote and abort, without pause until told to stop.")
    sub.add_argument("--mode", choices=("commit", "abort", "mixed"), default="commit")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--profile", choices=sorted(content.PROFILES), default="small")
    sub.add_argument("--seconds", type=float)
    sub.add_argument("--transactions", type=int)
    sub.add_argument("--pause-ms", type=float, default=0)
    sub.add_argument("--packed", action="store_true", help="it will be packed meanwhile, when told to")

    sub = command("hold", live.hold, "Have it open until standard input ends.")
    sub.add_argument("--read-only", action="store_true")

    for name, function, summary in (
        ("blobs", blobs.grow, "Make or grow a site with blobs."),
        ("blobs-put", blobs.put, "Put one more blob there, with the bytes of a file."),
        ("blobs-pack", blobs.pack, "Pack it."),
        ("blobs-current", blobs.current, "The files of its current blobs."),
        ("blobs-check", blobs.check, "Open it, read everything, all blobs included."),
    ):
        sub = command(name, function, summary)
        sub.add_argument("--blobs", help="the blob directory; blobstorage beside the file unless told")
        sub.add_argument("--layout", choices=("bushy", "lawn"), help="of a new directory")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--transactions", type=int, default=10)
        sub.add_argument("--size", type=int, default=100_000, help="of the largest blob")
        sub.add_argument("--undo", action="store_true")
        sub.add_argument("--from", dest="source", help="the file")
        sub.add_argument("--tomorrow", action="store_true", help="by a clock that is a day ahead")
        sub.add_argument("--live", action="store_true", help="pack it twice, in between")
        sub.add_argument("--read-only", action="store_true")

    for name, function, summary in (
        ("together", together.make, "Count in several FileStorages at once, so often."),
        ("together-counts", together.counts, "What each of several FileStorages has counted to."),
        ("together-writer", together.writer, "Count in several FileStorages at once, until told to stop."),
        ("together-half", together.half, "Stop in the middle of a commit to several FileStorages, until told to go on."),
    ):
        sub = command(name, function, summary)
        sub.add_argument("others", metavar="PATH", nargs="*")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--transactions", type=int, default=5)
        sub.add_argument("--pause-ms", type=float, default=30)

    sub = command("back-up", others.back_up, "Back it up with real repozo.")
    sub.add_argument("--repository", required=True)
    sub.add_argument("--at", required=True, help="the time, UTC: 2026-05-01T12:00:00")
    sub.add_argument("--options", default="", help="letters: F full, Q quick, z gzip, k kill old ones")

    sub = command("recover", others.recover, "Recover it with real repozo, with its own verification.")
    sub.add_argument("--repository", required=True)
    sub.add_argument("--date", required=True, help="2026-05-01-12-00-00")

    sub = commands.add_parser("serve", help="Answer commands from standard input.")
    sub.set_defaults(function=None)
    return root


def serve(commands):
    for line in sys.stdin:
        try:
            args = commands.parse_args(json.loads(line))
            answer = {"ok": args.function(args)}
        except (Exception, SystemExit):
            answer = {"error": traceback.format_exc()}
        # A storage that failed to open still has its lock until it is collected.
        gc.collect()
        print(json.dumps(answer), flush=True)


def main():
    commands = parser()
    args = commands.parse_args()
    if args.command == "serve":
        serve(commands)
    else:
        print(json.dumps(args.function(args)), flush=True)


if __name__ == "__main__":
    main()
