//! I16: the alerts on the topic are exactly those that the hysteresis rule gives over the ledger. The rule is
//! written a second time here, from its definition: a checker that shares the processor's code could not find its faults.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use schemas::ids::event_id;
use schemas::topics;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::Report;
use super::kept::Kept;
use super::topics::Dump;

struct Movement {
    variant_id: Uuid,
    epoch: i64,
    version: i64,
    qty_after: i64,
    neutral: bool,
    threshold: Option<i64>,
    hysteresis: i64,
}

/// Folds each stock level from its first movement; a level is armed or fired.
#[derive(Default)]
struct Rule {
    level: Option<(Uuid, i64)>,
    is_fired: bool,
}

impl Rule {
    /// Whether this movement makes an alert.
    fn fires(&mut self, m: &Movement) -> bool {
        // A level starts armed in every epoch: what had fired on a lost time line is not known.
        if self.level != Some((m.variant_id, m.epoch)) {
            *self = Rule { level: Some((m.variant_id, m.epoch)), is_fired: false };
        }
        let Some(threshold) = m.threshold else {
            self.is_fired = false;
            return false;
        };
        if m.neutral {
            return false;
        }
        if self.is_fired {
            self.is_fired = m.qty_after < threshold + m.hysteresis;
            return false;
        }
        self.is_fired = m.qty_after < threshold;
        self.is_fired
    }
}

/// Compares both ways, by alert id, and returns every alert the rule ever gave. One has to be on the topic as long as
/// topics keep events, where the movement that caused it is there as well.
pub async fn check(pg: &PgPool, dump: &Dump, report: &mut Report) -> anyhow::Result<HashSet<Uuid>> {
    let kept = Kept::at(Utc::now());
    let mut expected: HashSet<Uuid> = HashSet::new();
    let mut differing = Vec::new();
    let locations: Vec<Uuid> = sqlx::query_scalar("select location_id from locations order by 1").fetch_all(pg).await?;
    for location in locations {
        let mut rule = Rule::default();
        let mut rows = sqlx::query(
            "select variant_id, epoch, version, qty_after, neutral, threshold, hysteresis, location_seq, recorded_at
               from stock_movements where location_id = $1 order by variant_id, version",
        )
        .bind(location)
        .fetch(pg);
        while let Some(row) = rows.try_next().await? {
            let m = Movement {
                variant_id: row.get(0),
                epoch: row.get(1),
                version: row.get(2),
                qty_after: row.get(3),
                neutral: row.get(4),
                threshold: row.get(5),
                hysteresis: row.get(6),
            };
            if rule.fires(&m) {
                let aggregate = format!("{location}:{}", m.variant_id);
                let id = event_id(topics::ALERTS.event_type, &aggregate, m.epoch, m.version);
                let from = dump.movements_from.get(&location).copied().unwrap_or(i64::MAX);
                if !dump.alerts.contains_key(&id) && has_to_be_there(&kept, from, row.get(8), row.get(7)) {
                    differing.push(format!("no alert {id} for stock {aggregate} version {}", m.version));
                }
                expected.insert(id);
            }
        }
    }
    for (id, alert) in &dump.alerts {
        let (location, variant) = (alert.location_id, alert.variant_id);
        if !expected.contains(id) && !dump.restores.gave_up(location.0, alert.epoch, alert.location_seq) {
            differing.push(format!("alert {id} for stock {location}:{variant} follows from no movement"));
        }
    }
    report.add("I16", "alerts are exactly those of the low-stock rule", expected.len() as u64, differing);
    Ok(expected)
}

/// Whether the alert of a movement must still be on its topic: `from` is the lowest number of its location among the
/// movements on theirs.
fn has_to_be_there(kept: &Kept, from: i64, recorded_at: DateTime<Utc>, location_seq: i64) -> bool {
    recorded_at >= kept.topics && location_seq >= from
}

#[cfg(test)]
mod tests {
    use super::*;

    fn movement(qty_after: i64) -> Movement {
        Movement {
            variant_id: Uuid::nil(),
            epoch: 1,
            version: 1,
            qty_after,
            neutral: false,
            threshold: Some(5),
            hysteresis: 2,
        }
    }

    #[test]
    fn fires_once_below_the_threshold_and_arms_again_at_threshold_plus_hysteresis() {
        let mut rule = Rule::default();
        let fired: Vec<bool> = [5, 4, 3, 6, 4, 7, 4].into_iter().map(|qty| rule.fires(&movement(qty))).collect();
        assert_eq!(fired, [false, true, false, false, false, false, true]);
    }

    #[test]
    fn an_alert_is_asked_for_as_long_as_the_topics_keep_it() {
        let now = Utc::now();
        let kept = Kept::at(now);
        let days_ago = |days| now - chrono::TimeDelta::days(days);
        assert!(has_to_be_there(&kept, 5, days_ago(29), 5));
        assert!(!has_to_be_there(&kept, 5, days_ago(31), 5), "forgotten by the topic");
        assert!(!has_to_be_there(&kept, 6, days_ago(1), 5), "the topics were made anew after its movement");
    }

    #[test]
    fn a_neutral_leg_is_not_evaluated_and_no_threshold_is_armed() {
        let mut rule = Rule::default();
        assert!(!rule.fires(&Movement { neutral: true, ..movement(0) }));
        assert!(rule.fires(&movement(0)));
        assert!(!rule.fires(&Movement { threshold: None, ..movement(0) }));
        assert!(rule.fires(&movement(0)));
    }
}
