"""The tables of the index as SQLite's statements: rendering them anew takes as long as creating them.

A test compares them with `mltraq_ds.orm.tables`.
"""

__all__ = ["SQLITE"]

SQLITE = """
CREATE TABLE IF NOT EXISTS mltraq_schema_version (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE IF NOT EXISTS mltraq_stores (store_id VARCHAR(64) NOT NULL, url TEXT NOT NULL, seen_at DATETIME NOT
    NULL, indexed_at DATETIME, PRIMARY KEY (store_id));
CREATE TABLE IF NOT EXISTS mltraq_artifacts (store_id VARCHAR(64) NOT NULL, folder VARCHAR(255) NOT NULL, version
    BIGINT NOT NULL, name TEXT NOT NULL, storage_backend TEXT NOT NULL, type TEXT NOT NULL, created_at DATETIME NOT
    NULL, n_bytes BIGINT NOT NULL, digest TEXT, details JSON NOT NULL, state VARCHAR(16) NOT NULL, PRIMARY KEY
    (store_id, folder, version), FOREIGN KEY(store_id) REFERENCES mltraq_stores (store_id) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS mltraq_experiments (store_id VARCHAR(64) NOT NULL, id_experiment VARCHAR(500) NOT NULL,
    name TEXT NOT NULL, name_key VARCHAR(255) NOT NULL, generation BIGINT NOT NULL, folder TEXT NOT NULL, created_at
    DATETIME NOT NULL, persisted_at DATETIME NOT NULL, n_runs BIGINT NOT NULL, n_blobs BIGINT NOT NULL, n_bytes
    BIGINT NOT NULL, fields JSON NOT NULL, state VARCHAR(16) NOT NULL, PRIMARY KEY (store_id, id_experiment),
    FOREIGN KEY(store_id) REFERENCES mltraq_stores (store_id) ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS mltraq_experiments_by_name ON mltraq_experiments (name_key, state);
CREATE INDEX IF NOT EXISTS mltraq_experiments_by_store_and_time ON mltraq_experiments (store_id, state, created_at,
    id_experiment);
CREATE INDEX IF NOT EXISTS mltraq_experiments_by_time ON mltraq_experiments (state, created_at, id_experiment);
CREATE TABLE IF NOT EXISTS mltraq_names (name_key VARCHAR(255) NOT NULL, name TEXT NOT NULL, store_id VARCHAR(64)
    NOT NULL, id_experiment VARCHAR(500), claimed_by VARCHAR(500), claim_intent TEXT, claimed_at DATETIME, PRIMARY
    KEY (name_key), FOREIGN KEY(store_id) REFERENCES mltraq_stores (store_id) ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS mltraq_names_by_claim ON mltraq_names (store_id, claimed_by);
CREATE INDEX IF NOT EXISTS mltraq_names_by_owner ON mltraq_names (store_id, id_experiment);
CREATE TABLE IF NOT EXISTS mltraq_blobs (store_id VARCHAR(64) NOT NULL, id_experiment VARCHAR(500) NOT NULL,
    position INTEGER NOT NULL, "key" TEXT NOT NULL, size BIGINT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY
    (store_id, id_experiment, position), FOREIGN KEY(store_id, id_experiment) REFERENCES mltraq_experiments
    (store_id, id_experiment) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS mltraq_documents (store_id VARCHAR(64) NOT NULL, id_experiment VARCHAR(500) NOT NULL,
    kind VARCHAR(16) NOT NULL, doc_key VARCHAR(64) NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, body JSON NOT
    NULL, PRIMARY KEY (store_id, id_experiment, kind, doc_key), FOREIGN KEY(store_id, id_experiment) REFERENCES
    mltraq_experiments (store_id, id_experiment) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS mltraq_records (store_id VARCHAR(64) NOT NULL, id_experiment VARCHAR(500) NOT NULL,
    run_key VARCHAR(64) NOT NULL, id_run TEXT NOT NULL, position INTEGER NOT NULL, put_id TEXT NOT NULL, stamp TEXT
    NOT NULL, record TEXT NOT NULL, PRIMARY KEY (store_id, id_experiment, run_key), FOREIGN KEY(store_id,
    id_experiment) REFERENCES mltraq_experiments (store_id, id_experiment) ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS mltraq_records_by_position ON mltraq_records (store_id, id_experiment, position);
CREATE INDEX IF NOT EXISTS mltraq_records_by_run ON mltraq_records (store_id, run_key);
CREATE TABLE IF NOT EXISTS mltraq_runs (store_id VARCHAR(64) NOT NULL, id_experiment VARCHAR(500) NOT NULL, position
    INTEGER NOT NULL, id_run TEXT NOT NULL, status TEXT NOT NULL, params JSON NOT NULL, config JSON NOT NULL, fields
    JSON NOT NULL, exception TEXT, started_at DATETIME, finished_at DATETIME, PRIMARY KEY (id_experiment, store_id,
    position), FOREIGN KEY(store_id, id_experiment) REFERENCES mltraq_experiments (store_id, id_experiment) ON
    DELETE CASCADE)
""".strip().split(";\n")
