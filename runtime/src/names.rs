//! Every metric name, in one place: `vorca_<subsystem>_<name>_<unit>`, base units, `_total` for counters.
//! Labels are bounded (route template, status class, topic, partition, consumer group, outcome); no ids.

/// What a metric is; decides how it is described to the scraper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! metrics {
    ($($const:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(#[doc = $help] pub const $const: &str = $name;)*
        /// All of them, with what they mean.
        pub const ALL: &[(&str, Kind, &str)] = &[$(($name, Kind::$kind, $help)),*];
    };
}

metrics! {
    CONSUMER_RECORDS = "vorca_consumer_records_total", Counter, "Records handled; labels group, topic.";
    CONSUMER_BATCHES = "vorca_consumer_batches_total", Counter, "Batches handled; labels group, trigger (count, bytes, age, stop).";
    CONSUMER_BATCH_RECORDS = "vorca_consumer_batch_records", Histogram, "Records per batch; label group.";
    CONSUMER_ATTEMPT_SECONDS = "vorca_consumer_attempt_seconds", Histogram, "Time of one attempt at a batch; labels group, outcome (done, retry, fatal).";
    CONSUMER_RETRYING = "vorca_consumer_retrying", Gauge, "1 while a batch is being retried; label group.";
    CONSUMER_LAG_RECORDS = "vorca_consumer_lag_records", Gauge, "Records not yet committed; labels group, topic, partition.";
    CONSUMER_LAG_SECONDS = "vorca_consumer_lag_seconds", Gauge, "Age of the oldest record not yet handled, 0 when none waits; label group.";
    CONSUMER_END_TO_END_SECONDS = "vorca_consumer_end_to_end_seconds", Histogram, "From a record's timestamp to its batch being done; labels group, topic.";
    CONSUMER_COMMITS = "vorca_consumer_commits_total", Counter, "Offset commits; labels group, outcome (done, failed).";
    CONSUMER_REBALANCES = "vorca_consumer_rebalances_total", Counter, "Assignments changed; labels group, kind (assigned, revoked, lost).";
    CONSUMER_PARTITIONS = "vorca_consumer_partitions", Gauge, "Partitions owned; label group.";
    DEAD_LETTERS = "vorca_dead_letters_total", Counter, "Records sent to a dead-letter topic; labels group, topic, code.";
    DEAD_LETTERS_REDRIVEN = "vorca_dead_letters_redriven_total", Counter, "Dead letters published again; labels group, topic.";
    PRODUCER_RECORDS = "vorca_producer_records_total", Counter, "Records whose delivery was reported; labels topic, outcome (delivered, failed).";
    PRODUCER_REBUILDS = "vorca_producer_rebuilds_total", Counter, "Producers destroyed and rebuilt after a fatal error.";
    PG_POOL_IN_USE = "vorca_pg_pool_in_use", Gauge, "Connections in use; label pool.";
    PG_POOL_IDLE = "vorca_pg_pool_idle", Gauge, "Connections idle; label pool.";
    PG_POOL_MAX = "vorca_pg_pool_max", Gauge, "Limit of the pool; label pool.";
    PG_POOL_TIMEOUTS = "vorca_pg_pool_probe_timeouts_total", Counter, "Probes that found no free connection in time; label pool.";
    PG_STALE_CONNECTIONS = "vorca_pg_stale_connections_total", Counter, "Pooled connections refused because a transaction was still open; label pool.";
    HTTP_CONNECTIONS = "vorca_http_connections", Gauge, "Connections of clients that are open.";
    HTTP_CONNECTIONS_REFUSED = "vorca_http_connections_refused_total", Counter, "Connections beyond the limit: answered 503 or closed.";
    HTTP_PROBLEMS = "vorca_http_problems_total", Counter, "Requests that were refused or failed; label code (of the problem).";
    SIGN_INS = "vorca_sign_ins_total", Counter, "Attempts to prove who somebody is; labels route, outcome (done, or the code of the problem).";
    RATE_LIMIT_REQUESTS = "vorca_rate_limit_requests_total", Counter, "Requests counted in a budget; labels budget, outcome (admitted, refused).";
    RATE_LIMIT_SHARES = "vorca_rate_limit_shares_total", Counter, "Rounds in which processes tell each other what callers spent; label outcome (done, failed).";
    RATE_LIMIT_ALONE = "vorca_rate_limit_alone", Gauge, "1 while Redis does not answer and budgets are those of this process alone.";
    LANE_BATCH_SALES = "vorca_lane_batch_sales", Histogram, "Sales per committed batch.";
    LANE_BATCH_SECONDS = "vorca_lane_batch_seconds", Histogram, "Time of one batch, from its locks to its commit.";
    RELAY_RECORDS = "vorca_relay_records_total", Counter, "Records published and recorded as such.";
    RELAY_PARKED = "vorca_relay_parked_total", Counter, "Records no broker takes, set aside.";
    OUTBOX_ROWS = "vorca_outbox_rows", Gauge, "Acts that wait to be published.";
    OUTBOX_AGE_SECONDS = "vorca_outbox_age_seconds", Gauge, "Age of the oldest act that waits to be published.";
    PG_WRITE_RETRIES = "vorca_pg_write_retries_total", Counter, "Units of work repeated after a serialisation failure or deadlock.";
    SINK_ROWS = "vorca_sink_rows_total", Counter, "Rows written to ClickHouse raw tables.";
    SINK_INSERT_SECONDS = "vorca_sink_insert_seconds", Histogram, "Time of writing one batch to ClickHouse, all tables.";
    SINK_SATURATED = "vorca_sink_saturated_total", Counter, "Inserts that ClickHouse asked to slow down for.";
    SINK_WITHDRAWN = "vorca_sink_withdrawn_total", Counter, "Records left out because a restore gave up their time line.";
    MART_SLICES = "vorca_mart_slices_total", Counter, "KPI slices computed; label mart.";
    MART_ROUND_SECONDS = "vorca_mart_round_seconds", Histogram, "Time of one round of slices; label mart.";
    MART_FAILURES = "vorca_mart_failures_total", Counter, "Rounds that failed and are repeated; label mart.";
    MART_WAITING = "vorca_mart_waiting_slices", Gauge, "Touched slices that wait to be computed; label mart.";
    PROCESSOR_EVENTS = "vorca_processor_events_total", Counter, "Events by outcome; labels role, outcome (applied, replayed, dropped).";
    PROCESSOR_GAPS = "vorca_processor_gaps_total", Counter, "Events that do not follow their entity's state; labels role, cause (version, epoch, post_state).";
    PROCESSOR_PARKED_ENTITIES = "vorca_processor_parked_entities", Gauge, "Entities that wait for a resync; label role.";
    PROCESSOR_RESYNCS_REQUESTED = "vorca_processor_resyncs_requested_total", Counter, "Resync requests published; label role.";
    PROCESSOR_RESYNCS_APPLIED = "vorca_processor_resyncs_applied_total", Counter, "Parked entities that a resync freed; label role.";
    PROCESSOR_ALERTS = "vorca_processor_alerts_total", Counter, "Low-stock alerts emitted, repetitions included; label role.";
    PROCESSOR_ENTITIES = "vorca_processor_entities", Gauge, "Entities held in memory; label role.";
    PROCESSOR_STATES_REWRITTEN = "vorca_processor_states_rewritten_total", Counter, "States written again because an older record was the last one; label role.";
    PROCESSOR_RESTORE_SECONDS = "vorca_processor_restore_seconds", Histogram, "Time to restore the state of newly assigned partitions; label role.";
    VIEW_ENTRIES = "vorca_view_entries_total", Counter, "Entries offered to the serving view; labels topic, outcome (changed, stale).";
    VIEW_FILLS = "vorca_view_fills_total", Counter, "Partitions filled because Redis was empty or behind; labels topic, cause (empty, behind).";
    VIEW_LOSSES = "vorca_view_losses_total", Counter, "Times Redis was found to have lost data.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_follow_the_convention_and_are_unique() {
        let mut seen = HashSet::new();
        for (name, kind, help) in ALL {
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("vorca_") && help.ends_with('.'), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        }
    }
}
