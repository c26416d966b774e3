-- What a token is for: the whole API, or writing telemetry alone.

ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT 'full';
