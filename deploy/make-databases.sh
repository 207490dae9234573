#!/bin/bash
# First start of the Postgres container: Vorca's own role and database, those of its key store, and the registry's. None
# may look into another's. In production the key store belongs on a server of its own (docs/privacy.md).
set -euo pipefail
make() {
  psql -v ON_ERROR_STOP=1 -v name="$1" -v password="$2" --username postgres --dbname postgres <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name";
revoke connect on database :"name" from public;
SQL
}
make vorca "$VORCA_POSTGRES_PASSWORD"
make vorca_vault "$VORCA_VAULT_PASSWORD"
make registry "$VORCA_REGISTRY_PASSWORD"
