-- Nodes, the tokens by which they join, and the orders that were sent and whose end is not in the journal yet.

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    instance TEXT NOT NULL,           -- drawn when the agent's state folder was made
    boot TEXT NOT NULL,
    generation BIGINT NOT NULL,
    credential_hash TEXT NOT NULL,    -- BLAKE3; the credential itself is only at the node
    registered_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    report TEXT NOT NULL              -- JSON: version, capabilities, facts, workloads
);

CREATE TABLE join_tokens (
    hash TEXT PRIMARY KEY,            -- BLAKE3; the token itself was shown once
    node TEXT,                        -- the one node that may use it; NULL: any name that is not taken
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_by_node TEXT,
    used_by_instance TEXT,
    used_at BIGINT
);

CREATE TABLE dispatched (
    key TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    verb TEXT NOT NULL,
    inputs TEXT NOT NULL,             -- JSON
    at BIGINT NOT NULL
);
