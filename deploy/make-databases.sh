#!/bin/bash
# First start of the Postgres container: Vorca's own role and database, those of its key store, and the registry's, which
# own nothing else: none may look into another's; and the roles of Vorca's processes, which own nothing at all. In
# production the key store belongs on a server of its own (docs/privacy.md).
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
make_role() {
  psql -v ON_ERROR_STOP=1 -v name="$1" -v password="$2" --username postgres --dbname postgres <<'SQL'
create role :"name" login password :'password';
grant connect on database vorca to :"name";
SQL
}
make_role vorca_app "$VORCA_POSTGRES_APP_PASSWORD"
make_role vorca_relay "$VORCA_POSTGRES_RELAY_PASSWORD"
