//! One batch, one transaction: lock and read, decide, write, commit. Four round trips; two more where limits are to be
//! judged, and two more where points are spent.

use sqlx::{Executor, PgConnection};

use super::connection::LaneConnection;
use super::{Answer, Waiting};
use crate::catalog_cache::CatalogCache;
use crate::db;
use crate::db::sales::Sold;
use crate::sales::acts;
use crate::sales::decide::{Accepted, Decision, decide};
use crate::sales::known::Known;
use crate::sales::price::price_sale;
use crate::sales::redemption;
use crate::sales::refusal::Refusal;

/// What became of one sale of a committed batch.
pub enum Verdict {
    Answer(Answer),
    Refuse(Refusal),
    /// Its location is locked by somebody else.
    Busy,
}

/// Why nothing of a batch was committed, or perhaps all.
#[derive(Debug)]
pub enum BatchError {
    /// SQLSTATE class 22 or 23: one of the sales cannot be stored.
    Culprit(sqlx::Error),
    /// Class 40: the same batch may succeed when repeated.
    Repeat(sqlx::Error),
    /// COMMIT was sent and its outcome is not known.
    Unknown(sqlx::Error),
    /// Nothing was stored; the database cannot do it now.
    Unavailable(sqlx::Error),
}

/// Runs one transaction for `batch`; verdicts are in its order and hold only because it committed.
pub async fn run(
    connection: &mut LaneConnection,
    catalog: &CatalogCache,
    batch: &mut [Waiting],
) -> Result<Vec<Verdict>, BatchError> {
    let conn = connection.begin().await.map_err(BatchError::Unavailable)?;
    match work(conn, catalog, batch).await {
        Ok((verdicts, false)) => {
            connection.rollback().await;
            Ok(verdicts)
        }
        Ok((verdicts, true)) => match conn.execute("commit").await {
            Ok(_) => Ok(verdicts),
            Err(error) => {
                connection.discard();
                Err(at_commit(error))
            }
        },
        Err(error) => {
            connection.rollback().await;
            Err(before_commit(error))
        }
    }
}

/// The unit of work; whether anything was written.
async fn work(
    conn: &mut PgConnection,
    catalog: &CatalogCache,
    batch: &mut [Waiting],
) -> Result<(Vec<Verdict>, bool), sqlx::Error> {
    let asked: Vec<_> = batch.iter().map(|waiting| (&waiting.offer.sale, waiting.offer.key.as_str())).collect();
    let mut known = db::locks::lock_and_read(conn, &asked).await?;
    price_again(&known, catalog, batch).await?;
    let offers = batch.iter().map(|waiting| (&waiting.offer.sale, waiting.offer.priced.as_ref().ok()));
    let wanted = acts::wanted(&known, offers);
    // One more round trip, for batches alone that have such acts.
    if !wanted.is_empty() {
        known.learn(db::limits::read(conn, &wanted).await?);
    }
    // The same for points that are spent and debts of points that are paid.
    let accounts = redemption::wanted(&known, batch.iter().map(|waiting| &waiting.offer.sale));
    if !accounts.is_empty() {
        known.lots = db::loyalty::lots_of(&mut *conn, &accounts).await?;
    }
    let mut accepted: Vec<(usize, Accepted)> = Vec::new();
    let mut verdicts = Vec::with_capacity(batch.len());
    for (index, waiting) in batch.iter().enumerate() {
        let offer = &waiting.offer;
        if !known.last_seq.contains_key(&offer.sale.location_id()) {
            verdicts.push(Verdict::Busy);
            continue;
        }
        verdicts.push(match decide(&mut known, &offer.sale, &offer.key, &offer.priced) {
            Decision::Accept(sale) => {
                let response = sale.response.clone();
                accepted.push((index, *sale));
                Verdict::Answer(Answer::Created(response))
            }
            Decision::Replay(response) if waiting.may_be_stored => Verdict::Answer(Answer::Created(response)),
            Decision::Replay(response) => Verdict::Answer(Answer::Replayed(response)),
            Decision::Refuse(refusal) => Verdict::Refuse(refusal),
        });
    }
    let sold: Vec<Sold<'_>> = accepted
        .into_iter()
        .filter_map(|(index, accepted)| {
            let offer = &batch[index].offer;
            let priced = offer.priced.as_ref().ok()?;
            Some(Sold { sale: &offer.sale, key: &offer.key, origin: &offer.origin, priced, accepted })
        })
        .collect();
    if sold.is_empty() {
        return Ok((verdicts, false));
    }
    db::sales::insert_acts(conn, &sold, &known).await?;
    db::sales::insert_redemptions(conn, &sold, &known).await?;
    db::sales::insert(conn, &sold, &known).await?;
    Ok((verdicts, true))
}

/// A sale priced from another catalog than the one under the lock is priced again, also one that was refused.
async fn price_again(known: &Known, catalog: &CatalogCache, batch: &mut [Waiting]) -> Result<(), sqlx::Error> {
    let current = (known.catalog_version, known.epoch);
    if batch.iter().all(|waiting| waiting.offer.priced_at == current) {
        return Ok(());
    }
    let mut snapshot = catalog.current();
    if (snapshot.version, snapshot.epoch) != current {
        snapshot = catalog.refresh().await?;
    }
    for waiting in batch.iter_mut().filter(|waiting| waiting.offer.priced_at != current) {
        waiting.offer.priced = price_sale(&snapshot, &waiting.offer.sale);
        waiting.offer.priced_at = (snapshot.version, snapshot.epoch);
    }
    Ok(())
}

fn class(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    code.get(..2).map(str::to_owned)
}

fn before_commit(error: sqlx::Error) -> BatchError {
    match class(&error).as_deref() {
        Some("22" | "23") => BatchError::Culprit(error),
        Some("40") => BatchError::Repeat(error),
        _ => BatchError::Unavailable(error),
    }
}

/// What the server said of the COMMIT itself is known; everything else is not.
fn at_commit(error: sqlx::Error) -> BatchError {
    match class(&error).as_deref() {
        Some("22" | "23") => BatchError::Culprit(error),
        Some("40") => BatchError::Repeat(error),
        _ => BatchError::Unknown(error),
    }
}
