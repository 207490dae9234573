//! The Merkle root over the documents of a finished business day, signed and published. A root is never written again:
//! documents that arrive later come under a further root of the same day, with the next number.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use schemas::ids::COMPANY_STREAM;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::chain::Hash;
use super::merkle;
use super::sealer::{CAUSE, RECORDS_AT_ONCE};
use super::signing::{Root, Signer};
use crate::business_day::day_start;
use crate::db::audit::{self as db, Unrooted};
use crate::db::outbox::{self, Act};

/// A day is given this long after its end, for what was on its way.
const SETTLE_MINUTES: i64 = 15;

struct Place {
    location: Uuid,
    zone: Tz,
    cutoff: NaiveTime,
}

impl Place {
    /// Whether a business day was over, and had settled, at this instant.
    fn is_over(&self, day: &Unrooted, now: DateTime<Utc>) -> bool {
        day.business_date
            .succ_opt()
            .is_some_and(|next| day_start(next, self.zone, self.cutoff) + TimeDelta::minutes(SETTLE_MINUTES) <= now)
    }
}

/// Makes the roots of every day that is over at `now` and has documents under none; how many it were.
pub async fn close_days(conn: &mut PgConnection, signer: &Signer, now: DateTime<Utc>) -> Result<usize, sqlx::Error> {
    let rows: Vec<(Uuid, String, NaiveTime)> =
        sqlx::query_as("select location_id, time_zone, day_cutoff from locations order by 1")
            .fetch_all(&mut *conn)
            .await?;
    let mut made = 0;
    for (location, zone, cutoff) in rows {
        // Only zones that chrono-tz knows are ever stored.
        let Ok(zone) = zone.parse::<Tz>() else { continue };
        let place = Place { location, zone, cutoff };
        loop {
            let some = close_some(conn, &place, signer, now).await?;
            made += some;
            if some < RECORDS_AT_ONCE {
                break;
            }
        }
    }
    Ok(made)
}

/// One transaction: at most as many roots as one act carries.
async fn close_some(
    conn: &mut PgConnection,
    place: &Place,
    signer: &Signer,
    now: DateTime<Utc>,
) -> Result<usize, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let (days, last) = db::unrooted(&mut tx, place.location).await?;
    let over: Vec<&Unrooted> = days.iter().filter(|day| place.is_over(day, now)).take(RECORDS_AT_ONCE).collect();
    if !over.is_empty() {
        let epoch = outbox::epoch(&mut tx).await?;
        let seq = outbox::lock_stream(&mut tx, COMPANY_STREAM.0).await?;
        let mut act = Act::new(COMPANY_STREAM.0, seq, CAUSE, Uuid::now_v7(), "");
        db::keep_key(&mut tx, signer.key_id(), signer.public_key()).await?;
        for day in &over {
            let after = day.first_seq - 1;
            let leaves = db::leaves(&mut tx, (place.location, day.business_date), (after, last)).await?;
            let leaves: Vec<Hash> = leaves.into_iter().map(|(_, leaf)| leaf).collect();
            let root = signer.sign(Root {
                location: place.location,
                date: day.business_date,
                number: day.root_no + 1,
                epoch,
                through_seq: last,
                leaf_count: leaves.len() as i64,
                hash: merkle::root(&leaves),
                signed_at: now.timestamp_micros(),
            });
            db::insert_root(&mut tx, &root, after).await?;
            act.push(&root.event());
        }
        outbox::append(&mut tx, &act, epoch, Utc::now()).await?;
    }
    // Open days, and those that did not fit, hold the mark back to before their first document.
    let waiting = days.iter().filter(|day| !over.iter().any(|made| made.business_date == day.business_date));
    let rooted = waiting.map(|day| day.first_seq - 1).min().unwrap_or(last);
    db::mark_rooted(&mut tx, place.location, rooted).await?;
    tx.commit().await?;
    Ok(over.len())
}
