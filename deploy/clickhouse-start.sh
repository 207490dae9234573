#!/bin/bash
# Renders users.xml from the template that ./dev uses too, each password as its SHA-256, and starts the server.
set -euo pipefail
digest() { printf %s "$1" | sha256sum | cut -d' ' -f1; }
sed -e "s/@VORCA_MIGRATE_SHA256@/$(digest "$VORCA_CLICKHOUSE_MIGRATE_PASSWORD")/" \
    -e "s/@VORCA_SINK_SHA256@/$(digest "$VORCA_CLICKHOUSE_SINK_PASSWORD")/" \
    -e "s/@VORCA_API_SHA256@/$(digest "$VORCA_CLICKHOUSE_API_PASSWORD")/" \
    -e "s/@ANALYST_RO_SHA256@/$(digest "$VORCA_CLICKHOUSE_ANALYST_PASSWORD")/" \
    /vorca/users.xml.tmpl > /etc/clickhouse-server/users.xml
chown clickhouse:clickhouse /etc/clickhouse-server/users.xml
chmod 0600 /etc/clickhouse-server/users.xml
exec /entrypoint.sh
