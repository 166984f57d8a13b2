#!/bin/sh
# Runs once, when the database is created. The superuser owns the schema and migrates it;
# gateways and workers get a role that can change rows and nothing else. With MONITOR_PASSWORD, an
# exporter of metrics gets one that reads statistics and no rows.
set -eu

# psql reads the password from its environment: an argument could be seen by every process.
psql --set ON_ERROR_STOP=1 --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password DATABASE_PASSWORD
CREATE ROLE hopgate LOGIN PASSWORD :'password';
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO hopgate;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO hopgate;
\getenv monitor MONITOR_PASSWORD
\if :{?monitor}
CREATE ROLE hopgate_monitor LOGIN PASSWORD :'monitor' CONNECTION LIMIT 3 IN ROLE pg_monitor;
\endif
SQL
