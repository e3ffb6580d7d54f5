"""The blobs of a znap repository, for reader.py: which a snapshot has, and writing them as ZODB does."""
import itertools, os, struct
from blake3 import blake3

def need(condition, message):
    """Refuse what isn't as the format says."""
    if not condition:
        raise ValueError(message)

def parse(entries, data, end):
    """Read the entries of blobs behind the names of the chunks; return where they end."""
    for blobs in (entry["blobs"] for entry in entries if "blobs" in entry):
        blobs["list"] = list(struct.iter_unpack("<4Q5I32s", data[end:(end := end + 84 * blobs["own"])]))
        need(len(blobs["list"]) == blobs["own"], "fewer blobs than the JSON counts")
    return end

def blobs_of(manifests, uid, database):
    """The blobs of a snapshot's database, checked: oid, tid, length, mode, form, hash, chunk names."""
    found, upto, totals = [], float("inf"), None
    while uid:
        entry, = (each for each in manifests[uid]["databases"] if each["uid"] == database)
        if "blobs" not in entry:
            break
        totals, names = totals or entry["blobs"], iter(entry["blobs"]["names"])
        for offset, oid, tid, length, mode, owner, group, form, count, digest in entry["blobs"]["list"]:
            own = list(itertools.islice(names, count))
            if offset < upto and form:
                found.append((oid, tid, length, mode, form, digest, own))
        upto, uid = min(upto, entry["stream"]["kept_length"]), entry["stream"]["parent"]
    added = (blake3(struct.pack("<3Q", *blob[:3]) + blob[5]).digest() for blob in found)
    total = sum(int.from_bytes(each, "little") for each in added) % (1 << 256)
    need(not totals or total.to_bytes(32, "little").hex() == totals["sum"] and len(found) == totals["count"],
         "damaged: another list of blobs")
    return totals and totals["layout"], found

def write(path, repository, manifests, snapshot, entry, read_chunk):
    """A blob directory as ZODB has it, if the snapshot has blobs."""
    def text(number):
        return f"0x{number.to_bytes(max(1, (number.bit_length() + 7) // 8), 'big').hex()}"
    layout, blobs = blobs_of(manifests, snapshot["uid"], entry["uid"])
    if not layout:
        return
    need(layout in ("bushy", "lawn"), "an unknown layout")
    os.makedirs(directory := path + "/blobstorage")
    with open(directory + "/.layout", "x") as marker:
        marker.write(layout)
    for oid, tid, length, mode, form, digest, names in blobs:
        plain = os.path.join(repository, "objects", "blobs", digest.hex()[:2], digest.hex())
        data = b"".join(read_chunk(name) for name in names) if form == 2 else open(plain, "rb").read()
        need(form in (1, 2) and len(data) == length and blake3(data).digest() == digest, f"blob {oid} is damaged")
        folder = "/".join(f"0x{byte:02x}" for byte in oid.to_bytes(8, "big")) if layout == "bushy" else text(oid)
        os.makedirs(os.path.join(directory, folder), exist_ok=True)
        with open(path := os.path.join(directory, folder, text(tid) + ".blob"), "xb") as file:
            file.write(data)
        os.chmod(path, mode)
