-- What a reserved step is given, so that its reservation is all that has to be written before its order goes out.
-- Orders of before this, and those of no incident, stand in `dispatched`.
ALTER TABLE ledger ADD COLUMN inputs TEXT;        -- JSON

-- What was begun lately, and whether a trouble was closed lately: asked for each finding, over all that is kept.
CREATE INDEX ledger_reserved ON ledger (reserved_at);
CREATE INDEX incidents_shape ON incidents (shape, closed_at);
