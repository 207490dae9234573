//! Signed heads and roots as they stand outside the ledger: on their topics and in ClickHouse.

use schemas::codec::Codec;
use schemas::events::{AuditHeadSigned, AuditRootSigned};
use schemas::topics;

use super::Stores;
use super::clickhouse::ClickHouse;
use super::topics::{decoded, read};
use crate::audit::signing::{Head, Root, Signed, hash_of_hex, unhex};

/// Signed heads and roots as they were found outside the ledger, each with where.
#[derive(Debug, Default, Clone)]
pub struct Published {
    pub heads: Vec<(&'static str, Signed<Head>)>,
    pub roots: Vec<(&'static str, Signed<Root>)>,
    /// What could not be read as one of ours.
    pub unreadable: Vec<String>,
}

impl Published {
    /// Everything that the topics and ClickHouse hold.
    pub async fn of(stores: &Stores) -> anyhow::Result<Published> {
        let mut published = Published::default();
        from_topics(stores, &mut published).await?;
        from_clickhouse(stores, &mut published).await?;
        Ok(published)
    }
}

async fn from_topics(stores: &Stores, published: &mut Published) -> anyhow::Result<()> {
    let codec = Codec::new(&stores.registry.url);
    let mut reading = read(stores, topics::AUDIT_HEADS.name, topics::AUDIT_HEADS.partitions);
    while let Some(record) = reading.next().await? {
        let Some(event) = decoded::<AuditHeadSigned>(&codec, &record).await? else { continue };
        match Signed::<Head>::of_event(&event) {
            Some(head) => published.heads.push(("topic", head)),
            None => published.unreadable.push(format!("head of {} at {} on the topic", event.chain_id, event.seq)),
        }
    }
    let mut reading = read(stores, topics::AUDIT_ROOTS.name, topics::AUDIT_ROOTS.partitions);
    while let Some(record) = reading.next().await? {
        let Some(event) = decoded::<AuditRootSigned>(&codec, &record).await? else { continue };
        match Signed::<Root>::of_event(&event) {
            Some(root) => published.roots.push(("topic", root)),
            None => published.unreadable.push(format!("root of {} on the topic", event.location_id)),
        }
    }
    Ok(())
}

async fn from_clickhouse(stores: &Stores, published: &mut Published) -> anyhow::Result<()> {
    let clickhouse = ClickHouse::of(stores)?;
    let heads = "select toString(chain_id), epoch, seq, hash, toUnixTimestamp64Micro(signed_at), key_id, signature
                   from vorca_raw.audit_heads final";
    for line in clickhouse.text(heads).await?.lines() {
        match head_of(line) {
            Some(head) => published.heads.push(("ClickHouse", head)),
            None => published.unreadable.push(format!("head in ClickHouse: {line}")),
        }
    }
    let roots = "select toString(location_id), business_date, root_no, epoch, through_seq, leaf_count, root,
                        toUnixTimestamp64Micro(signed_at), key_id, signature from vorca_raw.audit_roots final";
    for line in clickhouse.text(roots).await?.lines() {
        match root_of(line) {
            Some(root) => published.roots.push(("ClickHouse", root)),
            None => published.unreadable.push(format!("root in ClickHouse: {line}")),
        }
    }
    Ok(())
}

fn head_of(line: &str) -> Option<Signed<Head>> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [chain, epoch, seq, hash, signed_at, key_id, signature] = fields.as_slice() else { return None };
    let what = Head {
        chain: chain.parse().ok()?,
        epoch: epoch.parse().ok()?,
        seq: seq.parse().ok()?,
        hash: hash_of_hex(hash)?,
        signed_at: signed_at.parse().ok()?,
    };
    Some(Signed { what, key_id: (*key_id).to_owned(), signature: unhex(signature)? })
}

fn root_of(line: &str) -> Option<Signed<Root>> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [location, date, number, epoch, through, count, hash, signed_at, key_id, signature] = fields.as_slice() else {
        return None;
    };
    let what = Root {
        location: location.parse().ok()?,
        date: date.parse().ok()?,
        number: number.parse().ok()?,
        epoch: epoch.parse().ok()?,
        through_seq: through.parse().ok()?,
        leaf_count: count.parse().ok()?,
        hash: hash_of_hex(hash)?,
        signed_at: signed_at.parse().ok()?,
    };
    Some(Signed { what, key_id: (*key_id).to_owned(), signature: unhex(signature)? })
}
