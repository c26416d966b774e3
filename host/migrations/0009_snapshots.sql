-- Snapshots that somebody wants kept, whatever the limits say. The snapshots themselves are in the object store.

CREATE TABLE snapshot_pins (
    manifest TEXT PRIMARY KEY,        -- BLAKE3 of the manifest's canonical bytes
    pinned_at BIGINT NOT NULL,        -- UTC milliseconds, as everywhere
    principal TEXT NOT NULL,
    name TEXT NOT NULL,               -- of the principal, for people
    comment TEXT NOT NULL
);
