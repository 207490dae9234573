#!/bin/bash
# First start of the Postgres container: Vorca's own role and database, and the registry's. Neither owns anything else.
set -euo pipefail
make() {
  psql -v ON_ERROR_STOP=1 -v name="$1" -v password="$2" --username postgres --dbname postgres <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name";
SQL
}
make vorca "$VORCA_POSTGRES_PASSWORD"
make registry "$VORCA_REGISTRY_PASSWORD"
