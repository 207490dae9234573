//! I24: no text that came with a sale holds a card number, whatever way it found past the door.

use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::Report;
use crate::card_filter::{Field, is_refused};

/// Every text of the sales of location $1 that has digits, with where it stands.
const TEXTS: &str = "
    select at, text from (
        select format('document %s line %s', document_id, line_no) as at,
               unnest(array[override_reason] || array(select d ->> 'name' from jsonb_array_elements(discounts) d)) as text
          from document_lines where location_id = $1
        union all
        select format('document %s tender %s', document_id, tender_no), unnest(array[psp_reference, card_brand, card_expiry])
          from document_tenders join documents using (document_id) where location_id = $1
        union all
        select format('document %s', document_id), reason from documents where location_id = $1) t
     where text ~ '[0-9]'";

/// Reads the texts location by location.
pub async fn check(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let locations: Vec<Uuid> = sqlx::query_scalar("select location_id from locations order by 1").fetch_all(pg).await?;
    let (mut compared, mut differing) = (0, Vec::new());
    for location in locations {
        let rows = sqlx::query(TEXTS).bind(location).fetch_all(pg).await?;
        compared += rows.len() as u64;
        let found = rows.iter().filter(|row| is_refused(Field::Text, row.get(1)));
        // Where, never what.
        differing.extend(found.map(|row| row.get::<String, _>(0)));
    }
    report.add("I24", "no text of a sale holds a card number", compared, differing);
    Ok(())
}
