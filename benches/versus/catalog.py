"""A catalog like the one of a Plone site: the persistent classes, and how each index is kept.

What they write is what fills a real Data.fs: BTree buckets, each of which is written anew for every entry that
changes in it. The structures follow ZCatalog's and ZCTextIndex's.
"""

import re
from collections import Counter

from BTrees.IIBTree import IIBTree
from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OIBTree import OIBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent

WORD = re.compile("[a-z]+")
TAG = re.compile("<[^>]*>")


class FieldIndex(Persistent):
    """Value -> the documents that have it, and back. One document is kept as a number, several as a set."""

    def __init__(self):
        self._index = OOBTree()
        self._unindex = IOBTree()
        self._length = Length()

    def put(self, rid, value):
        old = self._unindex.get(rid)
        if old == value:
            return
        if old is not None:
            self._forget(rid, old)
        rows = self._index.get(value)
        if rows is None:
            self._index[value] = rid
            self._length.change(1)
        elif isinstance(rows, int):
            self._index[value] = IITreeSet((rows, rid))
        else:
            rows.insert(rid)
        self._unindex[rid] = value

    def remove(self, rid):
        old = self._unindex.pop(rid, None)
        if old is not None:
            self._forget(rid, old)

    def _forget(self, rid, value):
        rows = self._index[value]
        if isinstance(rows, int):
            del self._index[value]
            self._length.change(-1)
            return
        rows.remove(rid)
        if not rows:
            del self._index[value]
            self._length.change(-1)


class DateIndex(FieldIndex):
    """The same for times in minutes."""

    def __init__(self):
        self._index = IOBTree()
        self._unindex = IIBTree()
        self._length = Length()


class KeywordIndex(FieldIndex):
    """The same for several values each."""

    def put(self, rid, value):
        old = self._unindex.get(rid) or []
        if old == value:
            return
        for word in old:
            if word not in value:
                self._forget(rid, word)
        for word in value:
            if word in old:
                continue
            rows = self._index.get(word)
            if rows is None:
                rows = self._index[word] = IITreeSet()
                self._length.change(1)
            rows.insert(rid)
        self._unindex[rid] = list(value)

    def remove(self, rid):
        for word in self._unindex.pop(rid, ()):
            self._forget(rid, word)


class TextIndex(Persistent):
    """Words -> documents with counts: a dictionary within the bucket for rare words, a BTree of their own for others."""

    RARE = 10

    def __init__(self):
        self._wids = OIBTree()
        self._words = IOBTree()
        self._wordinfo = IOBTree()
        self._docweight = IIBTree()
        self._docwords = IOBTree()
        self._documents = Length()
        self._total = Length()

    def put(self, rid, text):
        words = WORD.findall(TAG.sub(" ", text.lower()))
        wids = [self._wid(word) for word in words]
        new = Counter(wids)
        encoded = self._docwords.get(rid)
        old = Counter(decode(encoded)) if encoded else {}
        for wid in old:
            if wid not in new:
                self._drop(wid, rid)
        for wid, count in new.items():
            if old.get(wid) != count:
                self._add(wid, rid, count)
        if encoded is None:
            self._documents.change(1)
        self._total.change(len(wids) - self._docweight.get(rid, 0))
        self._docweight[rid] = len(wids)
        self._docwords[rid] = encode(wids)

    def remove(self, rid):
        encoded = self._docwords.pop(rid, None)
        if encoded is None:
            return
        for wid in Counter(decode(encoded)):
            self._drop(wid, rid)
        self._documents.change(-1)
        self._total.change(-self._docweight.pop(rid))

    def _wid(self, word):
        wid = self._wids.get(word)
        if wid is None:
            wid = self._wids[word] = len(self._words) and self._words.maxKey() + 1
            self._words[wid] = word
        return wid

    def _add(self, wid, rid, count):
        rows = self._wordinfo.get(wid)
        if rows is None:
            self._wordinfo[wid] = {rid: count}
        elif isinstance(rows, dict):
            rows[rid] = count
            # Assigned again, for the bucket to know; beyond some size as a BTree of its own.
            self._wordinfo[wid] = IIBTree(rows) if len(rows) > self.RARE else rows
        else:
            rows[rid] = count

    def _drop(self, wid, rid):
        rows = self._wordinfo[wid]
        del rows[rid]
        if not rows:
            del self._wordinfo[wid]
        elif isinstance(rows, dict):
            self._wordinfo[wid] = rows


def encode(wids):
    """Word numbers as bytes, small ones shorter, as ZCTextIndex keeps them."""
    out = bytearray()
    for wid in wids:
        if wid < 0x80:
            out.append(0x80 | wid)
        elif wid < 0x4000:
            out += bytes((0x80 | wid >> 7, wid & 0x7F))
        else:
            out += bytes((0x80 | wid >> 14, wid >> 7 & 0x7F, wid & 0x7F))
    return bytes(out)


def decode(data):
    wids = []
    for byte in data:
        if byte & 0x80:
            wids.append(byte & 0x7F)
        else:
            wids[-1] = wids[-1] << 7 | byte
    return wids


class Catalog(Persistent):
    """All indexes, and a row of metadata for each document."""

    FIELDS = ("portal_type", "review_state", "Creator", "sortable_title", "getId", "UID", "in_parent")
    DATES = ("created", "modified", "effective")
    KEYWORDS = ("Subject", "allowedRolesAndUsers", "object_provides", "path_parents")

    def __init__(self):
        self.uids = OIBTree()
        self.paths = IOBTree()
        self.data = IOBTree()
        self.indexes = OOBTree()
        for kind, names in ((FieldIndex, self.FIELDS), (DateIndex, self.DATES), (KeywordIndex, self.KEYWORDS)):
            for name in names:
                self.indexes[name] = kind()
        self.indexes["SearchableText"] = TextIndex()

    def put(self, rid, path, values, metadata):
        """Enters a document, or what has changed about it; `metadata` is its whole row."""
        known = self.paths.get(rid)
        if known != path:
            if known is not None:
                del self.uids[known]
            self.uids[path] = rid
            self.paths[rid] = path
        for name, value in values.items():
            self.indexes[name].put(rid, value)
        if self.data.get(rid) != metadata:
            self.data[rid] = metadata

    def remove(self, rid):
        del self.uids[self.paths.pop(rid)]
        del self.data[rid]
        for index in self.indexes.values():
            index.remove(rid)
