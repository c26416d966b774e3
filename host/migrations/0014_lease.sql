-- Which host drives: one row, with a number that rises whenever another begins.

CREATE TABLE lease (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    holder TEXT NOT NULL,             -- the host, by its data folder; empty: given back
    epoch BIGINT NOT NULL,            -- under which orders are sent and events committed
    beat BIGINT NOT NULL              -- rises with each renewal
);
