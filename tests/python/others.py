"""What other tools make: the real repozo, told what time it is."""

import datetime

from ZODB.scripts import repozo


def options_of(*arguments):
    return repozo.parseargs([argument for argument in arguments if argument])


def back_up(args):
    """As `repozo -B` does it at that moment."""
    options = options_of(
        "-B", "-r", args.repository, "-f", args.path, *(f"-{letter}" for letter in args.options)
    )
    options.test_now = datetime.datetime.fromisoformat(args.at).timetuple()[:6]
    repozo.do_backup(options)


def recover(args):
    """As `repozo -R -w` does it."""
    repozo.do_recover(options_of("-R", "-w", "-r", args.repository, "-o", args.path, "-D", args.date))
