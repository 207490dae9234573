#!/bin/sh
# The first sale of a new till, step by step, with curl and openssl:
#   eval "$(./dev till)" && sh docs/first-sale.sh
# Each step says what it expects; the script ends with an error at the first that differs.
set -eu
: "${VORCA_URL:?run: eval \"\$(./dev till)\"}" "${VORCA_LOCATION_ID:?}" "${VORCA_CASHIER_ID:?}" "${VORCA_CURRENCY:?}"

here=$(dirname "$0")
api=$VORCA_URL/api/v1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

token=$(sh "$here/terminal-token.sh")

# call METHOD PATH FILE [curl arguments]: the body goes to FILE, the status is printed, headers to FILE.head
call() {
    method=$1 path=$2 file=$3
    shift 3
    curl -sS -X "$method" -D "$file.head" -o "$file" -w '%{http_code}' -H "Authorization: Bearer $token" "$@" "$api$path"
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
# the value of the first "NAME": in FILE, a number or a text
value() {
    tr -d '\n' < "$2" | sed 's/"'"$1"'" *: */\
&/' | sed -n '2s/^"'"$1"'" *: *"\{0,1\}\([^",}]*\).*/\1/p'
}

echo "1. Catalog and prices: everything a till needs to price a sale, from version 0 on"
after=0 more=true
: > "$work/catalog"
while [ "$more" = true ]; do
    status=$(call GET "/catalog/changes?after=$after&limit=2000" "$work/page")
    expect 200 "$status" "catalog after version $after" "$work/page"
    # one change a line
    sed 's/{"catalog_version"/\
&/g' "$work/page" | grep '^{"catalog_version"' >> "$work/catalog"
    after=$(value next_after "$work/page")
    more=$(value has_more "$work/page")
done
printf '       %s changes\n' "$(wc -l < "$work/catalog" | tr -d ' ')"
grep '"kind":"price"' "$work/catalog" | grep "\"currency\":\"$VORCA_CURRENCY\"" > "$work/prices"
variant=$(sed -n '1s/.*"variant_id":"\([^"]*\)".*/\1/p' "$work/prices")
price=$(sed -n '1s/.*"amount_minor":\([0-9]*\).*/\1/p' "$work/prices")
printf '       variant %s costs %s minor units of %s\n' "$variant" "$price" "$VORCA_CURRENCY"

echo "2. A quote: two of it, 10 % off"
lines="[{\"line_no\":1,\"variant_id\":\"$variant\",\"qty\":2000,\"discount\":{\"kind\":\"percent\",\"percent\":\"10\",\"reason\":\"first_sale\"}}]"
occurred_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
printf '{"location_id":"%s","currency":"%s","occurred_at":"%s","lines":%s}' \
    "$VORCA_LOCATION_ID" "$VORCA_CURRENCY" "$occurred_at" "$lines" > "$work/cart"
status=$(call POST /quotes "$work/quote" -H 'Content-Type: application/json' --data-binary "@$work/cart")
expect 200 "$status" "quote" "$work/quote"
total=$(value total_minor "$work/quote")
printf '       total %s\n' "$total"

echo "3. The sale: the till makes its identity and numbers, and pays in cash"
status=$(call GET "/terminals/$VORCA_TERMINAL_ID" "$work/terminal")
expect 200 "$status" "where this till stands in its series" "$work/terminal"
seq=$(value next_terminal_seq "$work/terminal")
number=$(value next_receipt_number "$work/terminal")
epoch=$(value series_epoch "$work/terminal")
# a UUIDv7: 48 bits of milliseconds, then random
millis=$(printf '%012x' $(($(date +%s) * 1000)))
random=$(openssl rand -hex 10)
sale=$(printf '%s-%s-7%s-8%s-%s' "$(printf %s "$millis" | cut -c1-8)" "$(printf %s "$millis" | cut -c9-12)" \
    "$(printf %s "$random" | cut -c1-3)" "$(printf %s "$random" | cut -c4-6)" "$(printf %s "$random" | cut -c7-18)")
cash=$((total + 500))
body() { # TOTAL
    printf '{"sale_id":"%s","location_id":"%s","terminal_seq":%s,"receipt":{"series_epoch":%s,"number":%s},' \
        "$sale" "$VORCA_LOCATION_ID" "$seq" "$epoch" "$number"
    printf '"cashier_id":"%s","occurred_at":"%s","currency":"%s","lines":%s,' \
        "$VORCA_CASHIER_ID" "$occurred_at" "$VORCA_CURRENCY" "$lines"
    printf '"tenders":[{"kind":"cash","amount_minor":%s}],"total_minor":%s}' "$cash" "$1"
}
sell() { # FILE BODY
    call POST /sales "$1" -H 'Content-Type: application/json' -H "Idempotency-Key: $sale" --data-binary "@$2"
}
body $((total + 1)) > "$work/wrong"
status=$(sell "$work/mismatch" "$work/wrong")
expect 422 "$status" "a total that is wrong by one: refused ($(value code "$work/mismatch")), with the quote" "$work/mismatch"
body "$total" > "$work/sale"
status=$(sell "$work/first" "$work/sale")
expect 201 "$status" "committed as sale $sale" "$work/first"
printf '       change %s, business date %s\n' "$(value change_minor "$work/first")" "$(value business_date "$work/first")"

echo "4. Sent again, as after a lost answer: the same bytes, nothing sold twice"
status=$(sell "$work/second" "$work/sale")
expect 200 "$status" "replayed" "$work/second"
cmp "$work/first" "$work/second"
grep -qi '^idempotency-replayed: *true' "$work/second.head"

echo "5. Altered under the same key: refused"
sed 's/"qty":2000/"qty":3000/' "$work/sale" > "$work/altered"
status=$(sell "$work/refused" "$work/altered")
expect 422 "$status" "$(value code "$work/refused")" "$work/refused"

echo "6. Read back"
status=$(call GET "/sales/$sale" "$work/read")
expect 200 "$status" "sale $(value sale_id "$work/read"), total $(value total_minor "$work/read")" "$work/read"
[ "$(value sale_id "$work/read")" = "$sale" ]
echo "Done: one sale, receipt $number of this till."
