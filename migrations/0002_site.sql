-- Blobs; databases whose base is to be kept, or that aren't saved any more; snapshots of some of the databases.

ALTER TABLE database ADD COLUMN keep_base INTEGER NOT NULL DEFAULT 0;  -- 1: the base of each of its generations is stored
ALTER TABLE database ADD COLUMN tracked INTEGER NOT NULL DEFAULT 1;    -- 0: it isn't saved any more
ALTER TABLE database ADD COLUMN blobs BLOB;                            -- its blob directory, stored like its path
ALTER TABLE database ADD COLUMN blobs_mode INTEGER;                    -- 1 link, 2 copy, 3 skip

ALTER TABLE snapshot ADD COLUMN partial INTEGER NOT NULL DEFAULT 0;    -- 1: of some of the databases, as its save was told
ALTER TABLE snapshot ADD COLUMN databases INTEGER NOT NULL DEFAULT 0;  -- how many it has: whether a row is lost
UPDATE snapshot SET databases = iif(kind = 'base', 1, (SELECT count(*) FROM database));

-- The blobs of a snapshot, of all transactions up to its cut. NULL: its blobs weren't saved.
ALTER TABLE stream ADD COLUMN blob_layout TEXT;      -- of the directory: bushy or lawn
ALTER TABLE stream ADD COLUMN blob_count INTEGER;
ALTER TABLE stream ADD COLUMN blob_bytes INTEGER;
ALTER TABLE stream ADD COLUMN blob_sum BLOB;         -- the sum of the hashes of its blobs: docs/format.md

-- A revision of a blob, known once however many snapshots have it.
CREATE TABLE blob (
    id          INTEGER PRIMARY KEY,
    database    INTEGER NOT NULL REFERENCES database (id),
    oid         INTEGER NOT NULL,
    tid         INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    mode        INTEGER NOT NULL,
    owner       INTEGER NOT NULL,
    "group"     INTEGER NOT NULL,
    hash        BLOB    NOT NULL CHECK (length(hash) = 32),  -- of its bytes
    object_file INTEGER REFERENCES object_file (id),      -- the plain one that is its bytes; NULL: they are in chunks
    UNIQUE (database, oid, tid)
) STRICT;
CREATE INDEX blob_by_object_file ON blob (object_file) WHERE object_file IS NOT NULL;

CREATE TABLE blob_chunk (
    blob     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    chunk    INTEGER NOT NULL,
    PRIMARY KEY (blob, position)
) STRICT, WITHOUT ROWID;

-- A snapshot's blobs: like its chunks, its own, and its parent's before kept_length.
CREATE TABLE stream_blob (
    stream INTEGER NOT NULL,
    offset INTEGER NOT NULL,        -- of the record in the file
    blob   INTEGER NOT NULL,
    PRIMARY KEY (stream, offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX stream_blob_by_blob ON stream_blob (blob);

-- Likewise, what a snapshot's file names and its save didn't find.
CREATE TABLE missing_blob (
    stream INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    oid    INTEGER NOT NULL,
    tid    INTEGER NOT NULL,
    PRIMARY KEY (stream, offset)
) STRICT, WITHOUT ROWID;

DROP VIEW snapshots;
CREATE VIEW snapshots AS
SELECT name AS id, kind, strftime('%Y-%m-%dT%H:%M:%fZ', created / 1e6, 'unixepoch') AS created, message, sequence, partial
FROM snapshot WHERE tombstone IS NULL;

-- Complete: its snapshots need nothing but the repository. The base of a generation is stored in one whose number is 2^31 more.
DROP VIEW databases;
CREATE VIEW databases AS
SELECT d.name, CAST(d.path AS TEXT) AS path, g.number AS generation, g.base_length,
       g.base_length <= 4 OR EXISTS (
           SELECT 1 FROM generation b JOIN stream t ON t.generation = b.id JOIN snapshot s ON s.id = t.snapshot
           WHERE b.database = d.id AND b.number = g.number + 2147483648 AND s.kind = 'base' AND s.tombstone IS NULL
             AND t.offset = g.base_length
       ) AS complete,
       d.keep_base, d.tracked, CAST(d.blobs AS TEXT) AS blobs,
       CASE d.blobs_mode WHEN 1 THEN 'link' WHEN 2 THEN 'copy' WHEN 3 THEN 'skip' END AS blobs_mode
FROM database d JOIN generation g ON g.id = d.generation;

CREATE VIEW snapshot_blobs AS
SELECT s.name AS snapshot, d.name AS database, printf('0x%x', b.oid) AS oid, printf('0x%016x', b.tid) AS tid, b.size,
       lower(hex(b.hash)) AS hash, lower(hex(o.name)) AS object_file
FROM snapshot s CROSS JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
CROSS JOIN stream_piece p ON p.whole = t.id
CROSS JOIN stream_blob r ON r.stream = p.stream AND r.offset < p.upto
JOIN blob b ON b.id = r.blob LEFT JOIN object_file o ON o.id = b.object_file
WHERE s.tombstone IS NULL AND t.blob_count IS NOT NULL;

CREATE VIEW missing_blobs AS
SELECT s.name AS snapshot, d.name AS database, printf('0x%x', m.oid) AS oid, printf('0x%016x', m.tid) AS tid
FROM snapshot s CROSS JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
CROSS JOIN stream_piece p ON p.whole = t.id
CROSS JOIN missing_blob m ON m.stream = p.stream AND m.offset < p.upto
WHERE s.tombstone IS NULL AND t.blob_count IS NOT NULL
EXCEPT SELECT snapshot, database, oid, tid FROM snapshot_blobs;

-- The blobs that some snapshot needs.
CREATE VIEW live_blob AS
SELECT DISTINCT r.blob FROM live_stream l CROSS JOIN stream_blob r ON r.stream = l.stream AND r.offset < l.upto;

DROP VIEW live_place;
CREATE VIEW live_place AS
SELECT l.stream, c.offset, c.chunk
FROM live_stream l CROSS JOIN stream_chunk c ON c.stream = l.stream AND c.offset < l.upto
UNION ALL
SELECT l.stream, NULL, c.chunk
FROM live_stream l CROSS JOIN index_part i ON i.stream = l.stream CROSS JOIN index_chunk c ON c.part = i.id
UNION ALL
SELECT NULL, NULL, c.chunk
FROM live_blob n CROSS JOIN blob_chunk c ON c.blob = n.blob;

DROP VIEW object_files;
CREATE VIEW object_files AS
SELECT lower(hex(o.name)) AS name,
       CASE o.kind WHEN 1 THEN 'data' WHEN 2 THEN 'manifest' WHEN 3 THEN 'tombstone' WHEN 4 THEN 'config' ELSE 'plain' END AS kind,
       o.bytes,
       CASE o.kind WHEN 1 THEN iif(d.live, o.bytes - d.dead, 0) WHEN 2 THEN iif(m.object_file, o.bytes, 0)
                   WHEN 5 THEN iif(b.object_file, o.bytes, 0) ELSE o.bytes END
           AS live_bytes
FROM object_file o
LEFT JOIN (
    SELECT f.object_file, sum(coalesce(l.raw, 0)) AS live, sum(f.stored * (f.raw - coalesce(l.raw, 0)) / max(f.raw, 1)) AS dead
    FROM frame f LEFT JOIN (
        SELECT k.frame, sum(k.length) AS raw FROM live_chunk n JOIN chunk k ON k.id = n.chunk GROUP BY k.frame
    ) l ON l.frame = f.id
    GROUP BY f.object_file
) d ON d.object_file = o.id
LEFT JOIN (
    SELECT manifest AS object_file FROM snapshot WHERE tombstone IS NULL
    UNION
    SELECT s.manifest FROM live_stream l JOIN stream t ON t.id = l.stream JOIN snapshot s ON s.id = t.snapshot
) m ON m.object_file = o.id
LEFT JOIN (
    SELECT DISTINCT b.object_file FROM live_blob n JOIN blob b ON b.id = n.blob
) b ON b.object_file = o.id;

DROP VIEW snapshot_files;
CREATE VIEW snapshot_files AS
WITH used (stream, object_file, content, first) AS (
    SELECT c.stream, lower(hex(o.name)), 'tail', min(c.offset)
    FROM stream_chunk c JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame
    JOIN object_file o ON o.id = f.object_file GROUP BY c.stream, o.id
    UNION ALL
    SELECT DISTINCT i.stream, lower(hex(o.name)), 'index', -1
    FROM index_part i JOIN index_chunk c ON c.part = i.id JOIN chunk k ON k.id = c.chunk
    JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file
    UNION ALL
    SELECT r.stream, lower(hex(o.name)), 'blobs', min(r.offset)
    FROM stream_blob r JOIN blob b ON b.id = r.blob JOIN object_file o ON o.id = b.object_file GROUP BY r.stream, o.id
    UNION ALL
    SELECT r.stream, lower(hex(o.name)), 'blobs', min(r.offset)
    FROM stream_blob r JOIN blob_chunk c ON c.blob = r.blob JOIN chunk k ON k.id = c.chunk JOIN frame f ON f.id = k.frame
    JOIN object_file o ON o.id = f.object_file GROUP BY r.stream, o.id
    UNION ALL
    SELECT t.id, lower(hex(o.name)), 'manifest', -1
    FROM stream t JOIN snapshot s ON s.id = t.snapshot JOIN object_file o ON o.id = s.manifest
)
SELECT DISTINCT s.name AS snapshot, d.name AS database, u.object_file, u.content
FROM snapshot s CROSS JOIN stream t ON t.snapshot = s.id JOIN database d ON d.id = t.database
CROSS JOIN stream_piece p ON p.whole = t.id
CROSS JOIN used u ON u.stream = p.stream AND u.first < p.upto
WHERE s.tombstone IS NULL;

-- What only this snapshot needs, as in 0001; and the plain object files of its blobs.
DROP VIEW snapshot_own;
CREATE VIEW snapshot_own AS
WITH RECURSIVE alive (stream, parent, upto, kept_length, snapshot) AS (
    SELECT l.stream, t.parent, l.upto, t.kept_length, iif(s.tombstone IS NULL, s.id, NULL)
    FROM live_stream l JOIN stream t ON t.id = l.stream JOIN snapshot s ON s.id = t.snapshot
),
user (stream, upto, snapshot) AS (
    SELECT stream, upto, snapshot FROM alive WHERE snapshot IS NOT NULL
    UNION
    SELECT p.stream, min(c.upto, c.kept_length), NULL
    FROM alive c JOIN alive p ON p.stream = c.parent WHERE p.snapshot IS NOT NULL
    UNION
    SELECT t.parent, min(u.upto, t.kept_length), u.snapshot
    FROM user u JOIN stream t ON t.id = u.stream JOIN stream p ON p.id = t.parent JOIN snapshot s ON s.id = p.snapshot
    WHERE s.tombstone IS NOT NULL
),
ranked (stream, upto, snapshot, rank, next) AS (
    SELECT stream, upto, snapshot, row_number() OVER furthest, lead(upto) OVER furthest FROM user
    WINDOW furthest AS (PARTITION BY stream ORDER BY upto DESC)
),
first (stream, upto, snapshot, next) AS (SELECT stream, upto, snapshot, next FROM ranked WHERE rank = 1),
blob_place (blob, snapshot) AS (
    SELECT r.blob, iif(r.offset >= coalesce(f.next, 0), f.snapshot, NULL)
    FROM first f CROSS JOIN stream_blob r ON r.stream = f.stream AND r.offset < f.upto
),
place (chunk, snapshot) AS (
    SELECT c.chunk, iif(c.offset >= coalesce(f.next, 0), f.snapshot, NULL)
    FROM first f CROSS JOIN stream_chunk c ON c.stream = f.stream AND c.offset < f.upto
    UNION ALL
    SELECT c.chunk, iif(f.next IS NULL, f.snapshot, NULL)
    FROM first f CROSS JOIN index_part i ON i.stream = f.stream CROSS JOIN index_chunk c ON c.part = i.id
    UNION ALL
    SELECT c.chunk, p.snapshot FROM blob_place p CROSS JOIN blob_chunk c ON c.blob = p.blob
),
own (chunk, snapshot) AS (
    SELECT chunk, min(snapshot) FROM place GROUP BY chunk
    HAVING count(snapshot) = count(*) AND min(snapshot) = max(snapshot)
),
own_file (snapshot, bytes) AS (
    SELECT q.snapshot, o.bytes FROM (
        SELECT b.object_file, min(p.snapshot) AS snapshot FROM blob_place p JOIN blob b ON b.id = p.blob
        WHERE b.object_file IS NOT NULL GROUP BY b.object_file
        HAVING count(p.snapshot) = count(*) AND min(p.snapshot) = max(p.snapshot)
    ) q JOIN object_file o ON o.id = q.object_file
),
own_files (snapshot, bytes) AS (SELECT snapshot, sum(bytes) FROM own_file GROUP BY snapshot)
SELECT s.name AS snapshot, count(k.id) AS chunks, coalesce(sum(k.length), 0) + coalesce(max(w2.bytes), 0) AS bytes,
       coalesce(sum(f.stored * k.length / max(f.raw, 1)), 0) + coalesce(max(w2.bytes), 0) AS stored_bytes
FROM snapshot s LEFT JOIN own w ON w.snapshot = s.id LEFT JOIN chunk k ON k.id = w.chunk LEFT JOIN frame f ON f.id = k.frame
LEFT JOIN own_files w2 ON w2.snapshot = s.id
WHERE s.tombstone IS NULL GROUP BY s.id;
