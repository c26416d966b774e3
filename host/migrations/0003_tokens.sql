-- Who may call, and what was done by whom.

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    rank TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,        -- BLAKE3 of the secret; the secret itself is never stored
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    deleted_at BIGINT
);

-- What a browser holds in its cookie instead of the token.
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY,            -- BLAKE3 of the cookie's secret
    token_id TEXT NOT NULL REFERENCES tokens (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Append-only, and a chain: each entry holds the hash of the one before.
CREATE TABLE audit (
    number BIGINT PRIMARY KEY,        -- from 1, without gaps
    at BIGINT NOT NULL,
    principal TEXT NOT NULL,
    rank TEXT,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,            -- done, refused
    detail TEXT NOT NULL,             -- JSON object of texts
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
