"""Files as crashes, old versions and bad disks leave them: `torn`, `fs21`."""

import shutil
import struct
import tempfile
from pathlib import Path

from inspection import Reader
from inspection import boundaries
from storage import SteadyStorage
from storage import beside

from ZODB.Connection import TransactionMetaData

FIXTURES = Path(__file__).parent.parent / "fixtures"


def voted_tail(path):
    """The bytes that real ZODB has appended to this file after a vote, before the end of the commit."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "Data.fs"
        shutil.copyfile(path, copy)
        storage = SteadyStorage(copy)
        position = storage.getSize()
        meta = TransactionMetaData("anna", "Never finished")
        storage.tpc_begin(meta)
        root, tid = storage.load(b"\0" * 8)
        storage.store(b"\0" * 8, tid, root, "", meta)
        storage.tpc_vote(meta)
        with copy.open("rb") as file:
            file.seek(position)
            tail = file.read()
        storage.tpc_abort(meta)
        storage.close()
    return tail


def append(path, tail):
    with open(path, "ab") as file:
        file.write(tail)


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def middle(path):
    """Start, header and end of the transaction in the middle, and the id of the one before."""
    ends = boundaries_of(path)
    number = len(ends) // 2
    # One with records.
    with open(path, "rb") as file:
        reader = Reader(file)
        while True:
            start = ends[number - 1][0]
            header = reader._read_txn_header(start)
            if header.tlen > header.headerlen():
                return start, header, bytes.fromhex(ends[number - 1][1])
            number += 1


def boundaries_of(path):
    class Args:
        pass

    args = Args()
    args.path = path
    return boundaries(args)


# Tails that are no committed transaction.

def garbage10(path):
    append(path, b"\xff" * 10)


def partial100(path):
    append(path, voted_tail(path)[:100])


def voted(path):
    append(path, voted_tail(path))


def zeros4096(path):
    append(path, bytes(4096))


# A whole transaction at the end that ZODB takes, with a warning.

def reduction(path):
    """One that is older than the one before it."""
    ends = boundaries_of(path)
    tail = bytearray(voted_tail(path))
    first = bytes.fromhex(ends[0][1])
    header = struct.unpack_from(">8sQcHHH", tail)
    at = 23 + sum(header[3:])
    tail[0:8] = first
    tail[16:17] = b" "
    tail[at + 8:at + 16] = first
    append(path, tail)


# Damage in the middle.

def middlec(path):
    start, _, _ = middle(path)
    overwrite(path, start + 16, b"c")


def oddstatus(path):
    start, _, _ = middle(path)
    overwrite(path, start + 16, b"x")


def undone(path):
    start, _, _ = middle(path)
    overwrite(path, start + 16, b"u")


def wrongprev(path):
    start, header, _ = middle(path)
    overwrite(path, start + header.headerlen() + 16, struct.pack(">Q", 4))


def wrongtloc(path):
    start, header, _ = middle(path)
    overwrite(path, start + header.headerlen() + 24, struct.pack(">Q", start + 1))


def wronglength(path):
    start, header, _ = middle(path)
    overwrite(path, start + header.tlen, struct.pack(">Q", header.tlen + 1))


def zerohole(path):
    start, header, _ = middle(path)
    overwrite(path, start, bytes(header.tlen + 8))


def version(path):
    """A record of ZODB's old "versions", which it now refuses when it reads that record."""
    start, header, _ = middle(path)
    overwrite(path, start + header.headerlen() + 32, struct.pack(">H", 3))


KINDS = {
    function.__name__: function
    for function in (
        garbage10, partial100, voted, zeros4096, reduction, middlec, oddstatus, undone, wrongprev, wrongtloc,
        wronglength, zerohole, version,
    )
}
IN_THE_MIDDLE = ("middlec", "oddstatus", "undone", "wrongprev", "wrongtloc", "wronglength", "zerohole", "version")


def torn(args):
    path = Path(args.path)
    size = path.stat().st_size
    # Where it is damaged: in the middle, or after what was there.
    at = middle(path)[0] if args.kind in IN_THE_MIDDLE else size
    KINDS[args.kind](path)
    return {"kind": args.kind, "at": at, "size_before": size, "size": path.stat().st_size}


def fs21(args):
    shutil.copyfile(FIXTURES / "fs21.fs", args.path)
    shutil.copyfile(FIXTURES / "fs21.fs.index", beside(args.path, ".index"))
    return {"path": str(args.path), "size": Path(args.path).stat().st_size}
