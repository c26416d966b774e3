-- Restore drills: which snapshots were really restored, where, and how that ended.

CREATE TABLE snapshot_drills (
    id TEXT PRIMARY KEY,
    manifest TEXT NOT NULL,           -- BLAKE3 of the manifest's canonical bytes
    node TEXT NOT NULL,
    asked_by TEXT NOT NULL,           -- a principal, or `schedule`
    began_at BIGINT NOT NULL,         -- UTC milliseconds, as everywhere
    ended_at BIGINT,
    result TEXT NOT NULL,             -- running, restored, failed, unknown
    code TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX snapshot_drills_manifest ON snapshot_drills (manifest, began_at);
