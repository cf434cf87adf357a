-- Which answer to a `recv` of its turn leased a message; 0 when that is not known.
ALTER TABLE messages ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
