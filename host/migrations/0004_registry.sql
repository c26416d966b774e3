-- Components and sets of assets, known by content. The bytes are in the object store; here is what is known of them.

CREATE TABLE components (
    digest TEXT PRIMARY KEY,          -- BLAKE3 of the bytes
    name TEXT NOT NULL,               -- as the component describes itself; many digests can share name and version
    version TEXT NOT NULL,
    role TEXT NOT NULL,               -- the world: risk-scorer, remediation-planner, policy-gate, router
    bytes BIGINT NOT NULL,
    description TEXT NOT NULL,        -- JSON
    imports TEXT NOT NULL,            -- JSON list of names
    provenance TEXT NOT NULL,         -- JSON: upload, oci or bundle, with file or reference
    signature TEXT,                   -- JSON: name and id of the key; NULL: unsigned
    uploaded_at BIGINT NOT NULL,
    uploaded_by TEXT NOT NULL,
    used_at BIGINT NOT NULL,          -- when it was last seen to be needed
    quarantine TEXT                   -- JSON: slot, entry, at, reason, reproducer
);
CREATE INDEX components_name ON components (name, uploaded_at);

CREATE TABLE assets (
    digest TEXT PRIMARY KEY,          -- BLAKE3 of the canonical list of names, sizes and digests
    name TEXT NOT NULL,
    files TEXT NOT NULL,              -- JSON: name, bytes and digest of each
    bytes BIGINT NOT NULL,
    uploaded_at BIGINT NOT NULL,
    uploaded_by TEXT NOT NULL,
    used_at BIGINT NOT NULL
);

-- What a decision needs to be run again is kept as long as the decision.
ALTER TABLE decisions ADD COLUMN assets TEXT;
CREATE INDEX decisions_component ON decisions (component);
CREATE INDEX decisions_assets ON decisions (assets) WHERE assets IS NOT NULL;
