//! The ClickHouse sink: batch -> decode -> rows -> one insert per table -> marts asked -> offsets committed.
//!
//! Guarantee: after any crash, replay or rebalance, raw holds each record of the topics once, and the marts what
//! raw holds. It rests on identity alone: an insert may be repeated, cut differently or arrive late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use chrono::Utc;
use metrics::{counter, histogram};
use runtime::consumer::{Batch, Failure, Handler, Record, Reject};
use runtime::names;
use runtime::trace::TraceContext;
use schemas::codec::{Codec, DecodeError, Record as Schema, unframe};
use schemas::events::{
    AuditHeadSigned, AuditRootSigned, Cashier, DocumentCommitted, Location, LoyaltyPosted, StockFellLow, StockMoved,
    Variant,
};
use schemas::headers::TRACEPARENT;
use schemas::ids::LocationId;
use schemas::time::Timestamp;
use schemas::topics;

use crate::marts::{Keeper, PENDING_MAX, Slice, Touched};
use crate::rows::{Origin, OutOfRange, Rows};
use crate::store::{Class, Store, StoreError};
use crate::withdraw::{self, Cut, Cuts};

/// Cuts that others recorded are seen within this time.
const CUTS_EVERY: Duration = Duration::from_secs(30);
/// How long one attempt waits for a saturated store before it gives the batch back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Handles the batches of `topics::groups::CLICKHOUSE_SINK`.
pub struct ClickHouseSink {
    store: Store,
    codec: Codec,
    keeper: Arc<Keeper>,
    cuts: Cuts,
    cuts_read: Option<Instant>,
}

/// What records became.
#[derive(Default)]
struct Built {
    rows: Rows,
    touched: Touched,
    rejects: Vec<Reject>,
    /// Cuts that acts of a new epoch imply, the lowest per location and epoch.
    implied: BTreeMap<(i64, LocationId), Cut>,
    withdrawn: u64,
}

impl ClickHouseSink {
    pub fn new(store: Store, codec: Codec, keeper: Arc<Keeper>) -> Self {
        ClickHouseSink { store, codec, keeper, cuts: Cuts::default(), cuts_read: None }
    }

    async fn take(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        if !batch.assigned.is_empty() {
            // Another process may have committed offsets and died before its marts.
            self.keeper.compare();
        }
        self.read_cuts(!batch.assigned.is_empty()).await.map_err(Failure::retry)?;
        if batch.records.is_empty() {
            return Ok(Vec::new());
        }
        self.wait_for_marts().await?;

        let everything: Vec<usize> = (0..batch.records.len()).collect();
        let mut built = self.build(&batch.records, &everything).await?;
        if !built.implied.is_empty() {
            let cuts: Vec<Cut> = built.implied.values().copied().collect();
            tracing::info!(cuts = cuts.len(), "a new epoch began: withdrawing what it gave up");
            let touched = withdraw::withdraw(&self.store, &cuts).await.map_err(Failure::retry)?;
            self.keeper.touch(&touched);
            cuts.into_iter().for_each(|cut| self.cuts.insert(cut));
            built = self.build(&batch.records, &everything).await?;
        }
        counter!(names::SINK_WITHDRAWN).increment(built.withdrawn);
        let rejects = match self.write(&built.rows).await {
            Ok(()) => built.rejects,
            Err(error) if error.class == Class::Data => {
                tracing::warn!(%error, records = batch.records.len(), "the store refuses values, looking for the record");
                self.find_culprits(&batch.records).await?
            }
            Err(error) => return Err(Failure::retry(error)),
        };
        self.keeper.touch(&built.touched);
        Ok(rejects)
    }

    /// Loads the cuts; those that others recorded meanwhile are applied to what we wrote meanwhile.
    async fn read_cuts(&mut self, now: bool) -> Result<(), StoreError> {
        if !now && self.cuts_read.is_some_and(|at| at.elapsed() < CUTS_EVERY) {
            return Ok(());
        }
        let known = withdraw::cuts(&self.store).await?;
        if self.cuts_read.is_some() {
            let fresh = known.beyond(&self.cuts);
            let touched = withdraw::withdraw(&self.store, &fresh).await?;
            self.keeper.touch(&touched);
        }
        self.cuts = known;
        self.cuts_read = Some(Instant::now());
        Ok(())
    }

    /// Back-pressure: marts that fall far behind slow the sink down, not the other way round.
    async fn wait_for_marts(&self) -> Result<(), Failure> {
        let began = Instant::now();
        while self.keeper.waiting() > PENDING_MAX {
            if began.elapsed() > PATIENCE {
                return Err(Failure::retry(anyhow!("the marts are {} slices behind", self.keeper.waiting())));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Inserts, slowing down as long as the store asks for it: the next batch is the larger for it.
    async fn write(&self, rows: &Rows) -> Result<(), StoreError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(500);
        loop {
            match self.store.insert(rows).await {
                Err(error) if error.class == Class::Saturated && began.elapsed() + pause < PATIENCE => {
                    counter!(names::SINK_SATURATED).increment(1);
                    tracing::warn!(%error, "clickhouse is saturated, slowing down");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        histogram!(names::SINK_INSERT_SECONDS).record(began.elapsed().as_secs_f64());
        counter!(names::SINK_ROWS).increment(rows.count() as u64);
        Ok(())
    }

    /// Halves the batch until only records are left that the store refuses by themselves, twice, while it answers
    /// other questions. Everything else is written.
    async fn find_culprits(&self, records: &[Record]) -> Result<Vec<Reject>, Failure> {
        let mut rejects = Vec::new();
        let mut parts: Vec<Vec<usize>> = vec![(0..records.len()).collect()];
        while let Some(part) = parts.pop() {
            let built = self.build(records, &part).await?;
            match self.write(&built.rows).await {
                Ok(()) => rejects.extend(built.rejects),
                Err(error) if error.class != Class::Data => return Err(Failure::retry(error)),
                Err(_) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([left.to_vec(), right.to_vec()]);
                }
                Err(_) => {
                    self.store.fetch::<u8>("SELECT 1").await.map_err(Failure::retry)?;
                    match self.write(&built.rows).await {
                        Ok(()) => {}
                        Err(error) if error.class == Class::Data => rejects.push(Reject {
                            index: part[0],
                            code: "refused_by_store",
                            error: error.to_string(),
                            own_schema: true,
                        }),
                        Err(error) => return Err(Failure::retry(error)),
                    }
                }
            }
        }
        rejects.sort_by_key(|reject| reject.index);
        rejects.dedup_by_key(|reject| reject.index);
        Ok(rejects)
    }

    /// Decodes the records at `indexes` into rows.
    async fn build(&self, records: &[Record], indexes: &[usize]) -> Result<Built, Failure> {
        let mut built = Built::default();
        let ingested_at = Timestamp::from(Utc::now());
        for &index in indexes {
            match self.add(&mut built, &records[index], ingested_at).await {
                Ok(()) => {}
                Err(Refused::Later(error)) => return Err(Failure::retry(error)),
                Err(Refused::Record { code, error, own_schema }) => {
                    built.rejects.push(Reject { index, code, error, own_schema });
                }
            }
        }
        Ok(built)
    }

    async fn add(&self, built: &mut Built, record: &Record, ingested_at: Timestamp) -> Result<(), Refused> {
        let Some(topic) = topics::by_name(&record.topic) else {
            return Err(Refused::record("unknown_topic", format!("no rows for topic {}", record.topic)));
        };
        let Some(payload) = record.payload.as_deref() else {
            // Nothing in the contract is deleted by a tombstone; dimensions keep their last state.
            return Ok(());
        };
        let trace = record.headers.get_str(TRACEPARENT).and_then(TraceContext::parse);
        let origin = Origin {
            topic: topic.name,
            partition: record.partition,
            offset: record.offset,
            trace_id: trace.map(|trace| trace.trace_id_hex()).unwrap_or_default(),
            ingested_at,
        };
        match topic.name {
            name if name == topics::SALES.name => {
                let event: DocumentCommitted = self.decode(payload).await?;
                if self.is_lost(built, Some(event.location_id), event.epoch, event.location_seq, true) {
                    return Ok(());
                }
                let slice = Slice {
                    location_id: event.location_id.0,
                    business_date: event.business_date.0,
                    slot: u16::try_from(event.slot).unwrap_or_default(),
                };
                built.rows.document(event, &origin)?;
                built.touched.insert(slice);
            }
            name if name == topics::MOVEMENTS.name => {
                let event: StockMoved = self.decode(payload).await?;
                // An act is of the location that a system location belongs to: its number, its key, its time line.
                let shop = event.parent_location_id.unwrap_or(event.location_id);
                if !self.is_lost(built, Some(shop), event.epoch, event.location_seq, true) {
                    built.rows.movement(event, &origin)?;
                }
            }
            name if name == topics::LOYALTY_ENTRIES.name => {
                let event: LoyaltyPosted = self.decode(payload).await?;
                if !self.is_lost(built, event.location_id, event.epoch, event.location_seq, false) {
                    built.rows.loyalty_entry(event, &origin)?;
                }
            }
            name if name == topics::ALERTS.name => {
                let event: StockFellLow = self.decode(payload).await?;
                if !self.is_lost(built, Some(event.location_id), event.epoch, event.location_seq, false) {
                    built.rows.alert(event, &origin)?;
                }
            }
            name if name == topics::VARIANTS.name => {
                built.rows.variant(self.decode::<Variant>(payload).await?, &origin)?;
            }
            name if name == topics::LOCATIONS.name => {
                built.rows.location(self.decode::<Location>(payload).await?, &origin)?;
            }
            name if name == topics::CASHIERS.name => {
                built.rows.cashier(self.decode::<Cashier>(payload).await?, &origin)?;
            }
            name if name == topics::AUDIT_HEADS.name => {
                built.rows.audit_head(self.decode::<AuditHeadSigned>(payload).await?, &origin)?;
            }
            name if name == topics::AUDIT_ROOTS.name => {
                built.rows.audit_root(self.decode::<AuditRootSigned>(payload).await?, &origin)?;
            }
            other => return Err(Refused::record("unknown_topic", format!("no rows for topic {other}"))),
        }
        Ok(())
    }

    /// Whether an act belongs to a lost time line. `in_order`: its topic is ordered by location, so the act may
    /// show where a new epoch began.
    fn is_lost(
        &self,
        built: &mut Built,
        location: Option<LocationId>,
        epoch: i64,
        location_seq: i64,
        in_order: bool,
    ) -> bool {
        let location = location.unwrap_or_default();
        if let Some(cut) = self.cuts.implied(location, epoch, location_seq).filter(|_| in_order) {
            let lowest = built.implied.entry((epoch, location)).or_insert(cut);
            lowest.kept_seq = lowest.kept_seq.min(cut.kept_seq);
        }
        let is_lost = self.cuts.lost(location, epoch, location_seq);
        built.withdrawn += u64::from(is_lost);
        is_lost
    }

    async fn decode<E: Schema>(&self, payload: &[u8]) -> Result<E, Refused> {
        match self.codec.decode::<E>(payload).await {
            Ok(event) => Ok(event),
            Err(error @ DecodeError::Unavailable(_)) => Err(Refused::Later(error)),
            Err(error) => {
                let id = unframe(payload).map(|(id, _)| id).ok();
                let ours = self.codec.schema_id::<E>().await.ok();
                Err(Refused::Record {
                    code: error.code(),
                    error: error.to_string(),
                    own_schema: id.is_some() && id == ours,
                })
            }
        }
    }
}

impl Handler for ClickHouseSink {
    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        self.take(batch).await
    }
}

/// Why a record gave no rows.
enum Refused {
    /// A dependency is away.
    Later(DecodeError),
    Record {
        code: &'static str,
        error: String,
        own_schema: bool,
    },
}

impl Refused {
    fn record(code: &'static str, error: String) -> Self {
        Refused::Record { code, error, own_schema: false }
    }
}

impl From<OutOfRange> for Refused {
    fn from(error: OutOfRange) -> Self {
        Refused::record("out_of_range", error.to_string())
    }
}
