-- The recorded request that a change comes from, if any. Earlier releases neither write nor read it.
ALTER TABLE outbox ADD COLUMN origin TEXT;
