-- Incidents, their journals (the audit trail of what happened), their artifacts, the plans and the ledger.

CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    shape TEXT NOT NULL,              -- JSON of the shape: cause and subject
    subject_kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    cause TEXT NOT NULL,
    opened_at BIGINT NOT NULL,        -- UTC milliseconds, as everywhere
    closed_at BIGINT,
    resolution TEXT,
    phase TEXT NOT NULL,
    summary TEXT NOT NULL,
    flags TEXT NOT NULL,              -- JSON: drill, dry run, simulated, replayed
    plan_hash TEXT,
    updated_at BIGINT NOT NULL
);
CREATE INDEX incidents_open ON incidents (closed_at, opened_at);

CREATE TABLE journal (
    incident_id TEXT NOT NULL REFERENCES incidents (id),
    number BIGINT NOT NULL,           -- from 1, without gaps
    at BIGINT NOT NULL,
    event TEXT NOT NULL,              -- JSON
    PRIMARY KEY (incident_id, number)
);

CREATE TABLE artifacts (
    id TEXT PRIMARY KEY,
    incident_id TEXT NOT NULL REFERENCES incidents (id),
    number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    at BIGINT NOT NULL,
    hash TEXT NOT NULL,
    body TEXT NOT NULL,               -- JSON of the whole artifact
    UNIQUE (incident_id, number)
);

CREATE TABLE plans (
    hash TEXT PRIMARY KEY,
    incident_id TEXT NOT NULL REFERENCES incidents (id),
    at BIGINT NOT NULL,
    canonical BLOB NOT NULL
);

-- A row is written before an order is sent, and never deleted: at most once.
CREATE TABLE ledger (
    key TEXT PRIMARY KEY,
    incident_id TEXT NOT NULL REFERENCES incidents (id),
    plan_hash TEXT NOT NULL,
    step BIGINT NOT NULL,
    direction TEXT NOT NULL,
    verb TEXT NOT NULL,
    node TEXT NOT NULL,
    target TEXT NOT NULL,
    fence BIGINT NOT NULL UNIQUE,
    execute_by BIGINT NOT NULL,
    reserved_at BIGINT NOT NULL,
    status TEXT NOT NULL,             -- reserved, accepted, refused, succeeded, failed, unknown
    outcome TEXT                      -- JSON, once there is one
);
CREATE INDEX ledger_incident ON ledger (incident_id);

-- Findings that were raised and not cleared, so that a restart raises none of them again.
CREATE TABLE findings (
    subject_kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    shape TEXT NOT NULL,
    first_seen BIGINT NOT NULL,
    incident_id TEXT REFERENCES incidents (id),
    PRIMARY KEY (subject_kind, subject_id)
);

-- Envelopes of the decisions that incidents refer to: enough to run each again, bit for bit.
CREATE TABLE decisions (
    id TEXT PRIMARY KEY,
    slot TEXT NOT NULL,
    component TEXT NOT NULL,
    subject TEXT NOT NULL,
    at BIGINT NOT NULL,
    envelope TEXT NOT NULL
);
CREATE INDEX decisions_at ON decisions (at);
