#!/bin/sh
# Signing in as a user, step by step, with curl and openssl:
#   VORCA_URL=http://127.0.0.1:8080 VORCA_LOGIN=owner VORCA_PASSWORD=... VORCA_TOTP=$(./dev totp) sh docs/sign-in.sh
# (`./dev status` shows address, log-in and password; a user without a second factor needs no VORCA_TOTP.)
# Each step says what it expects; the script ends with an error at the first that differs.
set -eu
: "${VORCA_URL:?}" "${VORCA_LOGIN:?}" "${VORCA_PASSWORD:?}"

api=$VORCA_URL/api/v1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# call METHOD PATH FILE [curl arguments]: the body goes to FILE, the status is printed
call() {
    method=$1 path=$2 file=$3
    shift 3
    curl -sS -X "$method" -o "$file" -w '%{http_code}' -H 'Content-Type: application/json' "$@" "$api$path"
}
# expect STATUS GOT WHAT FILE
expect() {
    if [ "$1" != "$2" ]; then
        printf 'expected %s for %s, got %s:\n' "$1" "$3" "$2" >&2
        cat "$4" >&2
        exit 1
    fi
    printf '  %s  %s\n' "$2" "$3"
}
# the text value of "NAME" in FILE
value() {
    sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p' "$2"
}
base64url() {
    openssl base64 -A -in "$1" | tr '+/' '-_' | tr -d '='
}

echo "1. A key of this device: the session will be worth something in its hands only"
openssl genpkey -algorithm ed25519 -out "$work/device.pem" 2> /dev/null
openssl pkey -in "$work/device.pem" -pubout -outform DER | tail -c 32 > "$work/public"
device=$(base64url "$work/public")

echo "2. Log in, with the code of the authenticator where there is one"
printf '{"login":"%s","password":"%s","device_public_key":"%s"%s}' "$VORCA_LOGIN" "$VORCA_PASSWORD" "$device" \
    "${VORCA_TOTP:+,\"totp\":\"$VORCA_TOTP\"}" > "$work/login"
status=$(call POST /auth/login "$work/session" --data-binary "@$work/login")
expect 200 "$status" "logged in" "$work/session"
access=$(value access_token "$work/session")
refresh=$(value refresh_token "$work/session")

echo "3. Ask something with the access token (10 minutes)"
status=$(call GET /auth/account "$work/account" -H "Authorization: Bearer $access")
expect 200 "$status" "this is $(value login "$work/account")" "$work/account"

# refresh_as KEY FILE: the device signs exactly these three lines, without a newline at the end
refresh_as() {
    issued_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    printf 'vorca-refresh\n%s\n%s' "$refresh" "$issued_at" > "$work/text"
    openssl pkeyutl -sign -rawin -inkey "$1" -in "$work/text" -out "$work/signature"
    printf '{"refresh_token":"%s","issued_at":"%s","signature":"%s"}' \
        "$refresh" "$issued_at" "$(base64url "$work/signature")" > "$work/refresh"
    call POST /auth/refresh "$2" --data-binary "@$work/refresh"
}
echo "4. Spend the refresh token for the next one"
status=$(refresh_as "$work/device.pem" "$work/next")
expect 200 "$status" "refreshed" "$work/next"

echo "5. Once more, as after a lost answer: within ten seconds this device is given the same one"
status=$(refresh_as "$work/device.pem" "$work/again")
expect 200 "$status" "the same refresh token" "$work/again"
[ "$(value refresh_token "$work/next")" = "$(value refresh_token "$work/again")" ]

echo "6. The live one in the hands of another device: worth nothing, and the session goes on"
refresh=$(value refresh_token "$work/next")
openssl genpkey -algorithm ed25519 -out "$work/stranger.pem" 2> /dev/null
status=$(refresh_as "$work/stranger.pem" "$work/refused")
expect 401 "$status" "$(value code "$work/refused")" "$work/refused"
status=$(refresh_as "$work/device.pem" "$work/next")
expect 200 "$status" "refreshed" "$work/next"
access=$(value access_token "$work/next")

echo "7. Log out: the session and every token of it end"
status=$(call POST /auth/logout "$work/out" -H "Authorization: Bearer $access")
expect 200 "$status" "logged out" "$work/out"
refresh=$(value refresh_token "$work/next")
status=$(refresh_as "$work/device.pem" "$work/refused")
expect 401 "$status" "$(value code "$work/refused")" "$work/refused"
echo "Done."
