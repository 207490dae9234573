#!/bin/sh
# Prints an access token of a terminal (10 minutes). The device key signs the request; nothing else
# proves who a terminal is. Needs curl and openssl 3, and from `eval "$(./dev till)"`:
# VORCA_URL, VORCA_TERMINAL_ID, VORCA_DEVICE_KEY.
set -eu
: "${VORCA_URL:?run: eval \"\$(./dev till)\"}" "${VORCA_TERMINAL_ID:?}" "${VORCA_DEVICE_KEY:?}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

issued_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
nonce=$(openssl rand -hex 16)

# the signature covers exactly these four lines, without a newline at the end
printf 'vorca-terminal-token\n%s\n%s\n%s' "$VORCA_TERMINAL_ID" "$issued_at" "$nonce" > "$work/text"
openssl pkeyutl -sign -rawin -inkey "$VORCA_DEVICE_KEY" -in "$work/text" -out "$work/signature"
signature=$(openssl base64 -A -in "$work/signature" | tr '+/' '-_' | tr -d '=')

curl -sS -o "$work/answer" -H 'Content-Type: application/json' "$VORCA_URL/api/v1/auth/terminal-token" -d "{
  \"terminal_id\": \"$VORCA_TERMINAL_ID\",
  \"issued_at\": \"$issued_at\",
  \"nonce\": \"$nonce\",
  \"signature\": \"$signature\"
}"
token=$(sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p' "$work/answer")
if [ -z "$token" ]; then
    cat "$work/answer" >&2
    exit 1
fi
printf '%s\n' "$token"
