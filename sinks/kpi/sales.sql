-- kpi: sales
-- version: 2
-- grain: slot
--
-- By location, business day, slot, currency and cashier, all figures without tax but `tax` and `collected`:
--   documents  documents of kind sale or exchange
--   gross      nets of sale lines before discounts: net + discounts. Where prices include tax, that tax is out
--   discounts  discounts and redemption of sale lines without tax. Where prices include tax they carry some: per line
--              round(extended * R / (1 + R)) less the contained tax stored, R being the rates of the contained taxes
--              together, rounded in the document's mode and within 0 and the discount; 119.00 with 19 % in it less
--              10 % is gross 100.00, discounts 10.00, net 90.00
--   returns    nets of return lines, positive
--   net        gross - discounts - returns
--   tax        sum of stored taxes, never recomputed
--   collected  total + cash rounding + tips, which is also the sum of tenders less change
--   units      quantities of sale lines, thousandths
-- and the same slice by kind of tender (`tender` not empty): documents in which money of that kind came in or went out,
-- and amount + tip less change. Change is cash that goes out, also where a card paid more than the total.
-- Average basket is net / documents, made by whoever reads, since averages do not add up.
--
-- data_version rises with every row that comes, changes or is withdrawn. A raised `version` above recomputes every slice once.
SELECT
    location_id,
    business_date,
    slot,
    sum(part_version) AS data_version,
    max(newest) AS newest_recorded_at,
    arraySort(groupArray((currency, currency_scale, cashier_id, tender, documents,
        gross_minor, discounts_minor, returns_minor, net_minor, tax_minor, collected_minor, units))) AS figures
FROM
(
    SELECT
        location_id,
        business_date,
        slot,
        currency,
        currency_scale,
        cashier_id,
        entry.1 AS tender,
        sumIf(toUInt128(version), tender = '') AS part_version,
        max(recorded_at) AS newest,
        sum(entry.2) AS documents,
        sumIf(sold_net_minor + sold_discount_net_minor, tender = '') AS gross_minor,
        sumIf(sold_discount_net_minor, tender = '') AS discounts_minor,
        -sumIf(returned_net_minor, tender = '') AS returns_minor,
        gross_minor - discounts_minor - returns_minor AS net_minor,
        sumIf(documents.tax_minor, tender = '') AS tax_minor,
        sum(entry.3) AS collected_minor,
        sumIf(sold_qty, tender = '') AS units
    FROM vorca_raw.documents FINAL
    ARRAY JOIN arrayConcat(
        [('', toUInt64(kind IN ('sale', 'exchange')), total_minor + rounding_minor + tip_minor)],
        arrayMap((tender_kind, amount, tip, nth) -> (toString(tender_kind), toUInt64(nth = 1), amount + tip),
            tender_kinds, tender_amounts_minor, tender_tips_minor, arrayEnumerateUniq(tender_kinds)),
        if(change_minor != 0, [('cash', toUInt64(NOT has(tender_kinds, 'cash')), -change_minor)], [])) AS entry
    WHERE {slices}
    GROUP BY location_id, business_date, slot, currency, currency_scale, cashier_id, tender
)
GROUP BY location_id, business_date, slot
