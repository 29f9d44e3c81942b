-- A registry in version 1 of PostgreSQL's schema.
CREATE TABLE noria_records (
    collection text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, revision bigint NOT NULL,
    data text NOT NULL, PRIMARY KEY (collection, key)
);
CREATE TABLE noria_commits (
    writer text PRIMARY KEY, number bigint NOT NULL, at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE noria_schema (version integer NOT NULL);
INSERT INTO noria_schema VALUES (1);
INSERT INTO noria_records VALUES ('audit', '00001700000000000000-16dceb8b', 1, '{"at":"2023-11-14T22:13:20Z","who":"ada","action":"promote champion","model":"late","version":2,"why":"größer"}');
INSERT INTO noria_records VALUES ('audit', '00001700000000000000-b76f86c2', 1, '{"at":"2023-11-14T22:13:20Z","who":"ada","action":"register","model":"late","version":1,"why":"run a"}');
INSERT INTO noria_records VALUES ('audit', '00001700000000000000-cafe44d3', 1, '{"at":"2023-11-14T22:13:20Z","who":"ada","action":"register","model":"late","version":2,"why":"run b"}');
INSERT INTO noria_records VALUES ('models', 'late', 3, '{"latest":2,"aliases":{"champion":2},"history":{"champion":[2]}}');
INSERT INTO noria_records VALUES ('registrations', 'late/a', 1, '{"version":1}');
INSERT INTO noria_records VALUES ('registrations', 'late/b', 1, '{"version":2}');
INSERT INTO noria_records VALUES ('versions', 'late@00000001', 1, '{"name":"late","version":1,"servable":"tabular","files":{"model":{"digest":"9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c","size":7}},"spec":{},"metrics":{"f1":[0.5,0.4,0.6]},"parameters":{},"signature":{"inputs":{},"outputs":{},"example":{}},"lineage":{"data":{},"features":{},"code":{},"dataset":{}},"run_id":"a","created":1700000000000000}');
INSERT INTO noria_records VALUES ('versions', 'late@00000002', 1, '{"name":"late","version":2,"servable":"tabular","files":{"model":{"digest":"01db91d06032cc64162c16f8e35725b0e632beebdde8b2c2459979d04fb1e20c","size":6}},"spec":{},"metrics":{},"parameters":{},"signature":{"inputs":{},"outputs":{},"example":{}},"lineage":{"data":{},"features":{},"code":{},"dataset":{}},"run_id":"b","created":1700000000000000}');
