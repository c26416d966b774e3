-- What checkpoints took, to foretell what the next will.

CREATE TABLE checkpoints (
    key TEXT PRIMARY KEY,             -- of the order
    node TEXT NOT NULL,
    at BIGINT NOT NULL,               -- UTC milliseconds, as everywhere
    bytes BIGINT NOT NULL,            -- memory that the workload had in use
    took_ms BIGINT NOT NULL
);

CREATE INDEX checkpoints_by_node ON checkpoints (node, at);
