-- The catalog of a znap repository. docs/catalog.md explains it; the views at the end are the stable part.
-- It can be made again from the object files alone, so it holds nothing that they don't, except what
-- init knows before the first save.
--
-- References from stream_chunk, index_chunk and chunk to what they name aren't declared as foreign
-- keys: checking them would need an index more per chunk (10 bytes each) or a table scan per deleted row.

CREATE TABLE object_file (
    id    INTEGER PRIMARY KEY,
    name  BLOB    NOT NULL UNIQUE CHECK (length(name) = 32),
    kind  INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 5),
    bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE frame (
    id          INTEGER PRIMARY KEY,
    object_file INTEGER NOT NULL REFERENCES object_file (id),
    content     INTEGER NOT NULL,   -- 1 tail, 2 base, 3 index keyframe, 4 index delta
    codec       INTEGER NOT NULL,   -- 0 raw, 1 zstd
    offset      INTEGER NOT NULL,   -- where it begins in the object file
    stored      INTEGER NOT NULL,   -- its length there
    raw         INTEGER NOT NULL    -- its length when decompressed
) STRICT;
CREATE INDEX frame_by_object_file ON frame (object_file);

CREATE TABLE chunk (
    id     INTEGER PRIMARY KEY,
    hash   BLOB    NOT NULL CHECK (length(hash) = 32),
    length INTEGER NOT NULL,
    frame  INTEGER NOT NULL,        -- the frame that has it
    start  INTEGER NOT NULL         -- where in the decompressed frame it begins
) STRICT;
-- Eight bytes tell chunks apart nearly always, and keep this index small; queries compare the whole hash too.
CREATE INDEX chunk_by_hash ON chunk (substr(hash, 1, 8));

CREATE TABLE repository (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    uid      BLOB    NOT NULL CHECK (length(uid) = 16),
    config   INTEGER NOT NULL REFERENCES object_file (id),
    created  INTEGER NOT NULL,      -- microseconds since 1970, UTC, as all times here
    sequence INTEGER NOT NULL       -- the highest ever given to a snapshot
) STRICT;

CREATE TABLE database (
    id         INTEGER PRIMARY KEY,
    uid        BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    name       TEXT    NOT NULL UNIQUE,
    path       BLOB    NOT NULL,    -- as typed, relative to the directory that holds .znap
    generation INTEGER              -- the present one; set right after the generation is inserted
) STRICT;

CREATE TABLE generation (
    id                INTEGER PRIMARY KEY,
    uid               BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    database          INTEGER NOT NULL REFERENCES database (id),
    number            INTEGER NOT NULL,
    began             INTEGER NOT NULL,
    magic             TEXT    NOT NULL,  -- FS21 or FS30
    base_length       INTEGER NOT NULL,
    base_tid          INTEGER NOT NULL,  -- of the last transaction in the base, 0 if there is none
    base_last_length  INTEGER NOT NULL,  -- its length, 0 if there is none
    base_check_length INTEGER NOT NULL,  -- how many bytes before the base's end were hashed
    base_check        BLOB    NOT NULL CHECK (length(base_check) = 32),
    UNIQUE (database, number)
) STRICT;

CREATE TABLE snapshot (
    id           INTEGER PRIMARY KEY,
    uid          BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    sequence     INTEGER NOT NULL UNIQUE,
    revision     INTEGER NOT NULL,  -- how often gc wrote its manifest anew
    name         TEXT    NOT NULL,  -- the id that the user gave it
    kind         TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    message      TEXT    NOT NULL,
    one_moment   INTEGER NOT NULL,  -- 0: its databases may be of slightly different moments
    stored_bytes INTEGER NOT NULL,  -- data files written by its save
    manifest     INTEGER NOT NULL REFERENCES object_file (id),
    tombstone    INTEGER REFERENCES object_file (id)  -- set: it was deleted
) STRICT;
CREATE UNIQUE INDEX snapshot_by_name ON snapshot (name) WHERE tombstone IS NULL;
CREATE INDEX snapshot_by_manifest ON snapshot (manifest);
CREATE INDEX snapshot_by_tombstone ON snapshot (tombstone);

-- A snapshot's tail of one database: what it keeps of its parent's chunk list, and stream_chunk has the rest.
CREATE TABLE stream (
    id           INTEGER PRIMARY KEY,
    snapshot     INTEGER NOT NULL REFERENCES snapshot (id),
    database     INTEGER NOT NULL REFERENCES database (id),
    generation   INTEGER NOT NULL REFERENCES generation (id),
    parent       INTEGER REFERENCES stream (id),
    kept_count   INTEGER NOT NULL,  -- chunks kept of the parent's list
    kept_length  INTEGER NOT NULL,  -- the offset in the file up to which they reach
    offset       INTEGER NOT NULL,  -- the cut: where in the file the snapshot ends
    tid          INTEGER NOT NULL,  -- of the last transaction before the cut, 0 if there is none
    last_length  INTEGER NOT NULL,  -- its length, 0 if there is none
    time         INTEGER NOT NULL,  -- of that transaction
    transactions INTEGER NOT NULL,  -- in the tail
    count        INTEGER NOT NULL,  -- chunks in the whole list
    list_hash    BLOB    NOT NULL CHECK (length(list_hash) = 32),
    final_count  INTEGER NOT NULL,  -- of these, how many are final,
    final_length INTEGER NOT NULL,  -- up to which offset,
    final_hash   BLOB    NOT NULL CHECK (length(final_hash) = 32),
    new_bytes    INTEGER NOT NULL,  -- behind the parent's cut
    UNIQUE (snapshot, database)
) STRICT;
CREATE INDEX stream_by_parent ON stream (parent);
CREATE INDEX stream_by_offset ON stream (generation, offset);

CREATE TABLE stream_chunk (
    stream INTEGER NOT NULL,
    offset INTEGER NOT NULL,        -- in the file
    chunk  INTEGER NOT NULL,
    PRIMARY KEY (stream, offset)
) STRICT, WITHOUT ROWID;

-- What a snapshot's index is made from: a keyframe, or what its parent's is made from; then its deltas.
CREATE TABLE index_part (
    id       INTEGER PRIMARY KEY,
    stream   INTEGER NOT NULL REFERENCES stream (id),
    position INTEGER NOT NULL,
    keyframe INTEGER NOT NULL,      -- 1 keyframe, 0 delta
    entries  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    UNIQUE (stream, position)
) STRICT;

CREATE TABLE index_chunk (
    part     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    chunk    INTEGER NOT NULL,
    PRIMARY KEY (part, position)
) STRICT, WITHOUT ROWID;

-- Views: the stable interface. Hashes are lower-case hexadecimal text, times RFC 3339 in UTC.

CREATE VIEW snapshots AS
SELECT name AS id, kind, strftime('%Y-%m-%dT%H:%M:%fZ', created / 1e6, 'unixepoch') AS created, message, sequence
FROM snapshot WHERE tombstone IS NULL;

CREATE VIEW databases AS
SELECT d.name, CAST(d.path AS TEXT) AS path, g.number AS generation, g.base_length, g.base_length <= 4 AS complete
FROM database d JOIN generation g ON g.id = d.generation;

CREATE VIEW cuts AS
SELECT s.name AS snapshot, d.name AS database, t.offset, printf('0x%016x', t.tid) AS tid,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.time / 1e6, 'unixepoch') AS time,
       t.transactions, t.offset - g.base_length AS tail_bytes, t.new_bytes
FROM stream t JOIN snapshot s ON s.id = t.snapshot JOIN database d ON d.id = t.database
JOIN generation g ON g.id = t.generation
WHERE s.tombstone IS NULL;

-- Which part of which stored list a stream consists of: its own, its parent's up to kept_length, and so on.
CREATE VIEW stream_piece AS
WITH RECURSIVE piece (whole, stream, parent, upto, kept_length) AS (
    SELECT id, id, parent, offset, kept_length FROM stream
    UNION ALL
    SELECT p.whole, t.id, t.parent, min(p.upto, p.kept_length), t.kept_length
    FROM piece p JOIN stream t ON t.id = p.parent
)
SELECT whole, stream, upto FROM piece;

CREATE VIEW snapshot_chunks AS
SELECT s.name AS snapshot, d.name AS database, c.offset, k.length, lower(hex(k.hash)) AS hash,
       lower(hex(o.name)) AS object_file
FROM snapshot s JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
JOIN stream_piece p ON p.whole = t.id
JOIN stream_chunk c ON c.stream = p.stream AND c.offset < p.upto
JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
WHERE s.tombstone IS NULL;

-- The chunks that some snapshot needs. What isn't here, gc frees.
CREATE VIEW live_chunk AS
WITH RECURSIVE live (stream, upto) AS (
    SELECT t.id, t.offset FROM stream t JOIN snapshot s ON s.id = t.snapshot WHERE s.tombstone IS NULL
    UNION
    SELECT t.parent, min(l.upto, t.kept_length) FROM live l JOIN stream t ON t.id = l.stream
    WHERE t.parent IS NOT NULL
),
reached (stream, upto) AS (SELECT stream, max(upto) FROM live GROUP BY stream)
SELECT c.chunk FROM reached r JOIN stream_chunk c ON c.stream = r.stream AND c.offset < r.upto
UNION
SELECT c.chunk FROM reached r JOIN index_part i ON i.stream = r.stream JOIN index_chunk c ON c.part = i.id;

CREATE VIEW chunks AS
SELECT lower(hex(k.hash)) AS hash, k.length, f.stored * k.length / max(f.raw, 1) AS stored_bytes,
       lower(hex(o.name)) AS object_file, coalesce(r.places, 0) AS "references"
FROM chunk k JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
LEFT JOIN (
    SELECT chunk, count(*) AS places
    FROM (SELECT chunk FROM stream_chunk UNION ALL SELECT chunk FROM index_chunk) GROUP BY chunk
) r ON r.chunk = k.id;

CREATE VIEW object_files AS
SELECT lower(hex(o.name)) AS name,
       CASE o.kind WHEN 1 THEN 'data' WHEN 2 THEN 'manifest' WHEN 3 THEN 'tombstone' WHEN 4 THEN 'config' ELSE 'plain' END AS kind,
       o.bytes,
       CASE WHEN o.kind = 1 THEN coalesce(l.bytes, 0)
            WHEN o.kind = 2 THEN iif(EXISTS (SELECT 1 FROM snapshot s WHERE s.manifest = o.id AND s.tombstone IS NULL), o.bytes, 0)
            ELSE o.bytes END AS live_bytes
FROM object_file o
LEFT JOIN (
    SELECT f.object_file, sum(f.stored * k.length / max(f.raw, 1)) AS bytes
    FROM live_chunk n JOIN chunk k ON k.id = n.chunk JOIN frame f ON f.id = k.frame GROUP BY f.object_file
) l ON l.object_file = o.id;

CREATE VIEW indexes AS
WITH RECURSIVE source (whole, stream, parent) AS (
    SELECT id, id, parent FROM stream
    UNION ALL
    SELECT x.whole, t.id, t.parent FROM source x JOIN stream t ON t.id = x.parent
    WHERE NOT EXISTS (SELECT 1 FROM index_part i WHERE i.stream = x.stream AND i.keyframe)
)
SELECT s.name AS snapshot, d.name AS database, sum(i.bytes) AS bytes,
       max(CASE WHEN i.keyframe THEN i.entries END) AS keyframe,
       sum(NOT i.keyframe) AS deltas,
       coalesce((SELECT sum(f.stored * k.length / max(f.raw, 1))
                 FROM source y JOIN index_part j ON j.stream = y.stream JOIN index_chunk c ON c.part = j.id
                 JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame
                 WHERE y.whole = t.id), 0) AS stored_bytes
FROM snapshot s JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
JOIN source x ON x.whole = t.id JOIN index_part i ON i.stream = x.stream
WHERE s.tombstone IS NULL
GROUP BY t.id;
