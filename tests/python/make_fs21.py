"""Makes tests/fixtures/fs21.fs: for Python 2.7 with ZODB 5.8.1, see tests/fixtures/README.md.

    python2.7 make_fs21.py fs21.fs
"""

from __future__ import print_function

import sys

import transaction
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.TimeStamp import TimeStamp
from ZODB import DB
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf


class SteadyStorage(FileStorage):
    """Every transaction is a minute after the one before it, from 2009 on."""

    number = 0

    def tpc_begin(self, transaction, tid=None, status=" "):
        if tid is None:
            minutes = self.number
            self.number += 1
            tid = TimeStamp(2009, 6, 1, 8 + minutes // 60, minutes % 60, 1.5).raw()
        FileStorage.tpc_begin(self, transaction, tid, status)


def commit(user, description, **extension):
    entry = transaction.get()
    entry.user = user
    entry.note(description)
    for key, value in extension.items():
        entry.setExtendedInfo(key, value)
    transaction.commit()


def main(path):
    storage = SteadyStorage(path)
    db = DB(storage)
    connection = db.open()
    root = connection.root()
    root["pages"] = OOBTree()
    root["log"] = PersistentList()
    root["dates"] = IOBTree()
    commit(u"admin", u"Created")
    for number in range(60):
        page = PersistentMapping({
            "title": "Page %d" % number,
            "text": ("Stra\xc3\x9fe %d, " % number) * (3 + number % 7),
            u"text_unicode": u"Stra\xdfe",
            "size": number * 1000003,
            "long": 2 ** 70 + number,
        })
        root["pages"]["page-%03d" % number] = page
        root["dates"][20090601 + number] = "page-%03d" % number
        root["log"].append("added %d" % number)
        if number % 3 == 2:
            commit(u"/ bj\xf6rn", u"/pages/page-%03d\n\nmanage_add" % number, request="POST %d" % number)
    for number in (3, 17, 41, 3):
        root["pages"]["page-%03d" % number]["text"] = "edited\x00\xff %d" % number
        commit(u"", u"")
    gone = root["pages"]["page-005"]._p_oid
    del root["pages"]["page-005"]
    commit(u"admin", u"manage_delObjects")
    root["pages"]["page-006"]["text"] = "a mistake"
    commit(u"anna", u"A mistake")
    db.undo(storage.undoLog(0, 1)[0]["id"])
    commit(u"anna", u"Undo")
    # Packed up to half of it, as old databases are.
    storage.pack(TimeStamp(2009, 6, 1, 8, 12, 0.0).timeTime(), referencesf)
    meta = TransactionMetaData(u"gc", u"Purged")
    storage.tpc_begin(meta)
    storage.deleteObject(gone, storage.getTid(gone), meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    meta = TransactionMetaData(u"", u"Nothing")
    storage.tpc_begin(meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    print(len(storage), "objects,", storage.getSize(), "bytes")
    db.close()


if __name__ == "__main__":
    main(sys.argv[1])
