-- Every generation of every slot: what stood in it, who made it so, and why. Never changed and never deleted.

CREATE TABLE slot_generations (
    slot TEXT NOT NULL,
    generation BIGINT NOT NULL,       -- from 1, without gaps
    at BIGINT NOT NULL,
    made_by TEXT NOT NULL,            -- the principal; `aether` where the host did it by itself
    why TEXT NOT NULL,
    change TEXT NOT NULL,             -- JSON
    state TEXT NOT NULL,              -- JSON of the whole slot
    seed TEXT,                        -- JSON of what the bundle declared, where it was made from one
    PRIMARY KEY (slot, generation)
);

-- Configs by digest, so that a decision can be run again long after its entry was retired.
CREATE TABLE configs (
    digest TEXT PRIMARY KEY,          -- BLAKE3 of the canonical JSON
    config TEXT NOT NULL              -- the canonical JSON
);
