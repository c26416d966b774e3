-- What people want of agents' telemetry: the newest row of a node, or of the fleet, is in force.

CREATE TABLE agent_configs (
    version BIGINT PRIMARY KEY,       -- rises by one with each change
    node TEXT,                        -- NULL: the whole fleet
    collection TEXT,                  -- JSON; NULL: taken back
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    at BIGINT NOT NULL,               -- UTC milliseconds, as everywhere
    reason TEXT NOT NULL
);
CREATE INDEX agent_configs_of_node ON agent_configs (node, version);
