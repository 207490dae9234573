-- kpi: products
-- version: 2
-- grain: day
--
-- By location, business day, currency, product and variant (variant all zero: the whole product). Figures as in
-- sales.sql, from the lines; `documents` counts the documents with a sale line of it, so it does not add up over products.
SELECT
    location_id,
    business_date,
    toUInt16(0) AS slot,
    sum(part_version) AS data_version,
    max(newest) AS newest_recorded_at,
    arraySort(groupArray((currency, currency_scale, product_id, variant_id, documents,
        gross_minor, discounts_minor, returns_minor, net_minor, tax_minor, units))) AS figures
FROM
(
    SELECT
        location_id,
        business_date,
        currency,
        currency_scale,
        product_id,
        variant_id,
        if(grouping(variant_id) = 1, sum(toUInt128(version)), toUInt128(0)) AS part_version,
        max(recorded_at) AS newest,
        uniqExactIf(document_id, leg = 'sale') AS documents,
        sumIf(lines.net_minor + discount_net_minor, leg = 'sale') AS gross_minor,
        sumIf(discount_net_minor, leg = 'sale') AS discounts_minor,
        -sumIf(lines.net_minor, leg = 'return') AS returns_minor,
        gross_minor - discounts_minor - returns_minor AS net_minor,
        sum(lines.tax_minor) AS tax_minor,
        sumIf(qty, leg = 'sale') AS units
    FROM vorca_raw.lines FINAL
    WHERE {slices}
    GROUP BY GROUPING SETS
    (
        (location_id, business_date, currency, currency_scale, product_id),
        (location_id, business_date, currency, currency_scale, product_id, variant_id)
    )
)
GROUP BY location_id, business_date
