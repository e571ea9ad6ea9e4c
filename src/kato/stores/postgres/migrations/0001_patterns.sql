-- One record per pattern. Node ids are bytes: no collation, case or accent can make two of them one, and
-- nothing that is text to a client (U+0000 included) is refused. `events` and `details` are MessagePack.
-- A changed record finds room on its own page (fillfactor), so that a learn touches no index.
CREATE TABLE patterns (
    frequency bigint NOT NULL,
    revision bigint NOT NULL,
    node bytea NOT NULL,
    name bytea NOT NULL CHECK (octet_length(name) = 20),
    events bytea NOT NULL,
    details bytea NOT NULL,
    PRIMARY KEY (node, name)
) WITH (fillfactor = 90);
