"""What real ZODB thinks of a FileStorage: `check`, `open`, `index`, `boundaries`, `features`."""

import hashlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from storage import accepting_what_is_in
from storage import beside
from storage import captured
from storage import left_tails
from storage import magic_of
from storage import sha256_of

from ZODB import DB
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileIterator
from ZODB.FileStorage.format import FileStorageFormatter
from ZODB.POSException import POSKeyError
from ZODB.scripts import fstest
from ZODB.serialize import referencesf
from ZODB.utils import z64


class Reader(FileStorageFormatter):
    """ZODB's own reading of headers."""

    def __init__(self, file):
        self._file = file


def records_of(reader, start, header):
    """(offset, header) of each record of the transaction that starts there."""
    at = start + header.headerlen()
    while at < start + header.tlen:
        record = reader._read_data_header(at)
        yield at, record
        at += record.recordlen()


def check(args):
    """Fails, with what it found, unless ZODB is content with the file and leaves it as it is."""
    path = Path(args.path)
    index_path = beside(path, ".index")
    problems = []
    usable = can_use_an_index(path)
    # Python 3 does not read Python 2's strings without a conversion: of those, the records are loaded and no more.
    unpickle = magic_of(path) != b"FS21"
    before = sha256_of(path), sha256_of(index_path), left_tails(path)
    with accepting_what_is_in(path), captured() as warnings:
        storage = FileStorage(str(path))
        used_index = storage._used_index
        last_tid = storage.lastTransaction()
        size = storage.getSize()
        db = DB(storage)
        try:
            found = load_everything(storage, db, problems, unpickle)
        finally:
            db.close()
        try:
            fstest.check(str(path))
        except fstest.FormatError as error:
            problems.append(f"fstest: {error}")
    after = sha256_of(path), sha256_of(index_path), left_tails(path)
    if args.expect_index and usable and used_index != 1:
        problems.append("its index was not used")
    if not usable:
        warnings.remove(f"WARNING ZODB.FileStorage: Ignoring index for {path.absolute()}")
    if args.expect_index and before[1] != after[1]:
        problems.append("closing it wrote another index")
    if before[0] != after[0]:
        problems.append("Data.fs changed")
    if before[2] != after[2]:
        problems.append(f"tails: {after[2]}")
    problems += warnings
    if problems:
        raise SystemExit("\n".join([f"{path} is not as it should be:", *problems]))
    return found | {
        "used_index": used_index,
        "index_usable": usable,
        "last_tid": last_tid.hex(),
        "size": size,
        "data_sha256": before[0],
        "index_sha256": after[1],
    }


def can_use_an_index(path):
    """Whether ZODB takes an index that is right.

    It does not for less than 100 bytes. Nor does it when one of the first five records of the last transaction with
    records is superseded within that transaction, which an undo of several transactions does: its check expects the
    index to point at each of those records.
    """
    with open(path, "rb") as file:
        reader = Reader(file)
        position = file.seek(0, 2)
        if position < 100:
            return False
        while position > 4:
            file.seek(position - 8)
            position -= int.from_bytes(file.read(8), "big") + 8
            header = reader._read_txn_header(position)
            if header.status != "u" and header.tlen > header.headerlen():
                break
        records = list(records_of(reader, position, header))
        last = {record.oid: at for at, record in records}
        return all(last[record.oid] == at for at, record in records[:5])


def load_everything(storage, db, problems, unpickle):
    """Loads and unpickles every object, and follows every reference from the root."""
    digest = hashlib.sha256()
    references = {}
    deleted = 0
    connection = db.open()
    for number, oid in enumerate(storage._index):
        try:
            data, tid = storage.load(oid)
        except POSKeyError:
            deleted += 1
            digest.update(oid + b"deleted")
            continue
        digest.update(oid + tid + len(data).to_bytes(8, "big") + data)
        references[oid] = ()
        if not unpickle:
            continue
        try:
            references[oid] = referencesf(data)
            connection.get(oid)._p_activate()
        except Exception as error:
            problems.append(f"object {oid.hex()}: {type(error).__name__}: {error}")
        if number % 1000 == 0:
            connection.cacheMinimize()
    connection.close()
    reached = set()
    ahead = [z64] if unpickle and references else []
    while ahead:
        oid = ahead.pop()
        if oid in reached:
            continue
        reached.add(oid)
        if oid not in references:
            problems.append(f"object {oid.hex()} is referred to and missing")
            continue
        ahead.extend(references[oid])
    return {
        "objects": len(references),
        "deleted": deleted,
        "reachable": len(reached),
        "objects_sha256": digest.hexdigest(),
    }


def open_it(args):
    """Opens it as an unmodified ZODB 6 does, closes it, and tells what there was and is."""
    path = Path(args.path)
    before = left_tails(path)
    size_before = path.stat().st_size
    result = {"ok": True, "size_before": size_before}
    with captured() as warnings:
        try:
            storage = FileStorage(str(path), read_only=args.read_only)
            result |= {
                "used_index": storage._used_index,
                "last_tid": storage.lastTransaction().hex(),
                "position": storage.getSize(),
                "objects": len(storage),
            }
            storage.close()
        except Exception as error:
            result |= {"ok": False, "error": type(error).__name__, "message": str(error)}
    tails = {name: size for name, size in left_tails(path).items() if name not in before}
    return result | {"size": path.stat().st_size, "tails": tails, "warnings": warnings}


def index(args):
    """What fsIndex.save writes for the file's first bytes, made from them alone."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "Data.fs"
        copy_start(args.path, copy, args.length)
        with accepting_what_is_in(copy), captured():
            storage = FileStorage(str(copy))
            position, objects = storage.getSize(), len(storage)
            size = copy.stat().st_size
            storage.close()
        if args.length not in (None, position):
            raise SystemExit(f"no transaction ends at {args.length}; the last one before it ends at {position}")
        assert size == position, (size, position)
        shutil.copyfile(beside(copy, ".index"), args.out)
    return {"position": position, "objects": objects, "size": Path(args.out).stat().st_size}


def copy_start(source, target, length):
    with open(source, "rb") as file, open(target, "wb") as out:
        left = length if length is not None else Path(source).stat().st_size
        while left:
            block = file.read(min(left, 1 << 20))
            if not block:
                raise SystemExit(f"{source} has {left} bytes less than {length}")
            out.write(block)
            left -= len(block)


def boundaries(args):
    """A list of [offset of the end, id], one for each transaction."""
    with accepting_what_is_in(args.path):
        iterator = FileIterator(str(args.path))
        try:
            # The iterator stands at a transaction's end when it hands it out.
            return [[iterator._pos, txn.tid.hex()] for txn in iterator]
        finally:
            iterator.close()


def features(args):
    """Counts what makes a FileStorage interesting, header by header."""
    found = Counter()
    seen = set()
    with open(args.path, "rb") as file:
        reader = Reader(file)
        found["magic"] = magic_of(args.path).decode()
        size = Path(args.path).stat().st_size
        position = 4
        while position < size:
            header = reader._read_txn_header(position)
            count_transaction(found, header)
            oids = set()
            for _, record in records_of(reader, position, header):
                count_record(found, record, seen, oids)
            seen |= oids
            found["empty"] += not oids
            position += header.tlen + 8
    found["objects"] = len(seen)
    return dict(found)


def count_transaction(found, header):
    found["transactions"] += 1
    found[f"status {header.status}"] += 1
    found["longest_user"] = max(found["longest_user"], header.ulen)
    found["longest_description"] = max(found["longest_description"], header.dlen)
    found["longest_extension"] = max(found["longest_extension"], header.elen)


def count_record(found, record, seen, oids):
    found["records"] += 1
    found["twice_in_transaction"] += record.oid in oids
    found["rewritten"] += record.oid in seen
    found["backpointers"] += not record.plen and bool(record.back)
    found["gone"] += not record.plen and not record.back
    found["largest_record"] = max(found["largest_record"], record.plen)
    oids.add(record.oid)


