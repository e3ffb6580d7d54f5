"""Restore a znap repository: python reader.py REPOSITORY_DIR OUTPUT_DIR [--base NAME=PATH ...] (needs blake3, zstandard)"""
import functools, itertools, json, mmap, os, pickle, re, struct, sys, zstandard, reader_blobs
from blake3 import blake3

def need(condition, message):
    """Refuse what isn't as the format says."""
    if not condition:
        raise ValueError(message)

def mapped(path):
    """The bytes of a file, without reading all of it at once."""
    need(os.path.isfile(path), f"{path!a} is missing, or not a regular file")
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

def read_table(path, data, chunks):
    """Remember of each chunk of a data file in which frame it is, and where."""
    start, frames, total, digest, end = struct.unpack("<QII32s16s", data[-64:])
    need(end == bytes(8) + b"ZNAPEND\n" and 16 <= start == len(data) - 64 - 36 * total - 24 * frames, "a bad footer")
    need(blake3(table := data[start:-64]).digest() == digest, "damaged: the table doesn't have its hash")
    names = struct.iter_unpack("<32sI", table[24 * frames:])
    for content, codec, zeros, count, offset, stored, raw in struct.iter_unpack("<BBHIQII", table[:24 * frames]):
        need(1 <= content <= 5 and codec <= 1 and zeros == 0 and raw <= 64 << 20
             and 16 <= offset <= start - stored and stored <= 65 << 20, "a frame of another format, or out of place")
        own = list(itertools.islice(names, count))
        *positions, end = itertools.accumulate((length for _, length in own), initial=0)
        need(len(own) == count and end == raw and all(length <= 1 << 20 for _, length in own), "a frame of bad chunks")
        chunks.update((name, (path, codec, offset, stored, raw, at)) for name, at in zip(own, positions))
    need(next(names, None) is None, "more chunks than the frames have")

def read_object(path, chunks, objects):
    """Check an object file. The chunks of a data file are remembered in chunks, another's JSON by kind in objects."""
    data = mapped(path)
    need(blake3(data).hexdigest() == os.path.basename(path), "damaged: the content doesn't have the hash in the name")
    need(data[:9] == b"\x89ZNAP\r\n\x1a\1" and 1 <= data[9] <= 4 and data[10:16] == bytes(6), "an unknown header")
    if data[9] == 1:
        return read_table(path, data, chunks)
    end = 20 + int.from_bytes(data[16:20], "little")
    entries = (found := json.loads(data[20:end].decode())).get("databases", ())
    for each in entries:
        for part in filter(None, (each["stream"], each["index"]["keyframe"], *each["index"]["deltas"], each.get("blobs"))):
            part["names"] = list(struct.iter_unpack("<32sI", data[end:(end := end + 36 * part["chunks"])]))
    need(reader_blobs.parse(entries, data, end) == len(data), "another length than the JSON and its counts need")
    objects[data[9]].append(found)

def read_repository(directory):
    """Read all object files: where the chunks are, the manifests by uid, the snapshots that aren't deleted."""
    chunks, objects = {}, {2: [], 3: [], 4: []}
    for name in sorted(filter(re.compile("[0-9a-f]{64}").fullmatch, os.listdir(directory))):
        try:
            read_object(os.path.join(directory, name), chunks, objects)
        except Exception as error:
            raise ValueError(f"object {name}: {error!r}") from error
    identities = {each["repository"] for each in sum(objects.values(), [])}
    need([config["format"] for config in objects[4]] == [len(identities)] == [1], "not exactly one config and identity")
    manifests = {each["uid"]: each for each in sorted(objects[2], key=lambda each: each["revision"])}  # highest last
    alive = [manifests[uid] for uid in manifests.keys() - {each["snapshot"] for each in objects[3]}]
    return chunks, manifests, sorted(alive, key=lambda each: each["sequence"])

@functools.lru_cache(maxsize=3)
def read_frame(path, codec, offset, stored, raw):
    """The decompressed bytes of a frame."""
    data = mapped(path)[offset:offset + stored]
    if codec and zstandard.frame_content_size(data) in (-1, raw):  # it would take precedence over max_output_size
        data = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw, allow_extra_data=False)
    need(len(data) == raw, "a frame of another length than the table says")
    return data

def read_chunk(chunks, name):
    """The bytes of a chunk, checked."""
    *frame, at = chunks.get(name) or need(False, f"chunk {name[0].hex()} of {name[1]} bytes is missing")
    need(blake3(data := read_frame(*frame)[at:at + name[1]]).digest() == name[0], f"chunk {name[0].hex()} is damaged")
    return data

def history(manifests, uid, database):
    """The chunk list of a snapshot's database, checked, and the keyframe and deltas that make up its index."""
    way, names, parts = {}, [], []
    while not way or entry["stream"]["kept"] or not entry["index"]["keyframe"]:
        need(uid in manifests and uid not in way, f"the manifest {uid!a} is missing, or its own ancestor")
        entry, = (each for each in manifests[uid]["databases"] if each["uid"] == database)
        way[uid], uid = entry, entry["stream"]["parent"]
    for entry in reversed(way.values()):
        stream, index = entry["stream"], entry["index"]
        names[stream["kept"]:] = stream["names"]
        parts = ([index["keyframe"]] if index["keyframe"] else parts) + index["deltas"]
    states, last = [(entry["generation"]["base_length"], bytes(32))], stream["last_final"]  # at each count of chunks
    for name, length in names:
        states.append((states[-1][0] + length, blake3(states[-1][1] + struct.pack("<I", length) + name).digest()))
    need(states[stream["kept"]][0] == stream["kept_length"]
         and states[last["count"]] == (last["length"], bytes.fromhex(last["hash"]))
         and states[-1] == (entry["cut"]["offset"], bytes.fromhex(stream["list_hash"])), "damaged: another chunk list")
    return names, parts

def write_index(file, position, chunks, parts):
    """Put the index together, write Data.fs.index as ZODB's fsIndex.save does, and return the number of objects."""
    index, pickler = {}, pickle.Pickler(file, 3)
    for part in parts:
        data = b"".join(read_chunk(chunks, name) for name in part["names"])
        found = re.findall(rb"[\x80-\xff]{0,9}[\0-\x7f]", data)
        numbers = [sum((byte & 127) << 7 * place for place, byte in enumerate(number)) for number in found]
        offsets = itertools.accumulate(number >> 1 ^ -(number & 1) for number in numbers[1::2])
        pairs = dict(zip(itertools.accumulate(numbers[::2]), (offset % (1 << 64) for offset in offsets)))
        need(sum(map(len, found)) == len(data) == part["bytes"] and len(numbers) == 2 * part["entries"]
             and len(pairs) == part["entries"], "a part of an index with another length, or another number of objects")
        index.update(pairs)
    pickler.fast = True
    pickler.dump(position)
    for prefix, (*oids,) in itertools.groupby(sorted(index), lambda oid: oid >> 16):
        bucket = [(oid & 0xFFFF).to_bytes(2, "big") for oid in oids] + [index[oid].to_bytes(6, "big") for oid in oids]
        pickler.dump((prefix.to_bytes(6, "big"), b"".join(bucket)))
    pickler.dump(None)
    return len(index)

def write_base(file, entry, path, home):
    """The bytes before the tail: the magic, or the base from the database's file or a copy of it, checked."""
    generation, length = entry["generation"], entry["generation"]["base_length"]
    base, checked = generation["magic"].encode(), generation["base_check_length"]
    if length > 4:
        own = os.path.join(home, os.fsdecode(bytes.fromhex(entry.get("path_hex", ""))) or entry["path"])
        need(path or os.path.realpath(own).startswith(home + os.sep), "a base outside of the directory: give --base")
        base = mapped(path or own)
    need(base[:4] == generation["magic"].encode() in (b"FS21", b"FS30") and 0 < checked <= length <= len(base)
         and blake3(memoryview(base)[length - checked:length]).hexdigest() == generation["base_check"],
         f"{path or own!a} is not the base" if length > 4 else "bad magic")
    file.write(memoryview(base)[:length])

def main(repository, output, *options):
    """Restore everything. Where something can't be, go on with the rest; return what to tell of it, or 0."""
    bases, failures = dict(option.split("=", 1) for option in options if option != "--base"), []
    chunks, manifests, snapshots = read_repository(os.path.join(repository, "objects"))
    for snapshot, entry in ((snapshot, entry) for snapshot in snapshots for entry in snapshot["databases"]):
        try:
            names, end = (snapshot["id"], entry["name"]), entry["cut"]["offset"]
            need(all(re.fullmatch(r"[\w@+][\w.@+-]*", name, re.ASCII) for name in names), "a name unfit for a path")
            chunk_list, parts = history(manifests, snapshot["uid"], entry["uid"])
            os.makedirs(path := os.path.join(output, *names))
            with open(path + "/Data.fs.part", "xb") as file, open(path + "/Data.fs.index", "xb") as index:
                write_base(file, entry, bases.get(names[1]), os.path.dirname(os.path.realpath(repository)))
                file.writelines(read_chunk(chunks, name) for name in chunk_list)
                objects = write_index(index, end, chunks, parts)
            reader_blobs.write(path, repository, manifests, snapshot, entry, functools.partial(read_chunk, chunks))
            os.rename(path + "/Data.fs.part", path + "/Data.fs")
            print(*names, end, objects)
        except Exception as error:
            failures.append(f"snapshot {snapshot['id']!a}, database {entry['name']!a}: {error!r}")
    return "\n".join(failures) or 0

if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print(f"reader.py: {error}", file=sys.stderr)
    sys.exit(main(*sys.argv[1:]))
