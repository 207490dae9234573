use proptest::prelude::*;

use super::*;

/// A session as the rules describe it, told apart from how it is stored: every token ever handed out, in order.
struct Model {
    family: Family,
    /// When each generation was spent; the last one is live.
    spent: Vec<Option<DateTime<Utc>>>,
    has_device: bool,
}

#[derive(Debug, Clone)]
struct Step {
    /// Which token is shown, counted back from the live one.
    back: usize,
    /// Whether the device signs.
    signs: bool,
    /// Seconds since the step before.
    after: i64,
}

fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

impl Model {
    fn new(has_device: bool) -> Self {
        let family = Family {
            session_id: Uuid::nil(),
            user_id: Uuid::nil(),
            device_public_key: has_device.then(Vec::new),
            refreshed_at: begin(),
            expires_at: begin() + TimeDelta::days(30),
            is_ended: false,
        };
        Model { family, spent: vec![None], has_device }
    }

    fn shown(&self, index: usize) -> Shown {
        // As stored: the immediate predecessor keeps its successor, if a device spent it.
        let has_successor = self.has_device && index + 2 == self.spent.len();
        Shown {
            generation: index as i32 + 1,
            spent_at: self.spent[index],
            successor: has_successor.then(Vec::new),
            newest: self.spent.len() as i32,
        }
    }

    /// Does what the verdict says; returns it.
    fn show(&mut self, step: &Step, now: DateTime<Utc>) -> Verdict {
        let index = self.spent.len() - 1 - step.back.min(self.spent.len() - 1);
        let holder = match (self.has_device, step.signs) {
            (false, _) => Holder::Anyone,
            (true, true) => Holder::Device,
            (true, false) => Holder::Stranger,
        };
        let verdict = judge(&self.family, &self.shown(index), holder, now);
        match verdict {
            Verdict::Rotate => {
                self.spent[index] = Some(now);
                self.spent.push(None);
                self.family.refreshed_at = now;
            }
            Verdict::Revoke => self.family.is_ended = true,
            Verdict::Repeat | Verdict::Refuse => {}
        }
        verdict
    }

    /// Tokens that could still be spent.
    fn live(&self) -> usize {
        if self.family.is_ended { 0 } else { self.spent.iter().filter(|spent| spent.is_none()).count() }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after = prop_oneof![8 => 0..12i64, 2 => 0..3_600i64, 1 => 40_000..50_000i64];
    let step = (prop_oneof![5 => Just(0usize), 3 => Just(1), 1 => 2..4usize], any::<bool>(), after);
    proptest::collection::vec(step.prop_map(|(back, signs, after)| Step { back, signs, after }), 1..40)
}

proptest! {
    #[test]
    fn a_family_has_one_live_token_or_is_over(has_device: bool, steps in steps()) {
        let (mut model, mut now) = (Model::new(has_device), begin());
        for step in steps {
            now += TimeDelta::seconds(step.after);
            let (was_ended, generations) = (model.family.is_ended, model.spent.len());
            let idle = now - model.family.refreshed_at;
            // There is nothing before the first token.
            let back = step.back.min(generations - 1);
            let verdict = model.show(&step, now);
            prop_assert!(model.live() <= 1);
            if was_ended || idle >= TimeDelta::hours(IDLE_HOURS) || now >= model.family.expires_at {
                prop_assert_eq!(verdict, Verdict::Refuse);
            }
            prop_assert_eq!(model.spent.len() > generations, verdict == Verdict::Rotate);
            match verdict {
                // Only the live token is spent, and only by whom it belongs to.
                Verdict::Rotate => prop_assert!(back == 0 && (!has_device || step.signs)),
                // The grace is for the immediate predecessor, the device and ten seconds.
                Verdict::Repeat => {
                    prop_assert!(has_device && step.signs && back == 1);
                    prop_assert!(model.spent[generations - 2].is_some_and(|at| now - at < TimeDelta::seconds(10)));
                }
                Verdict::Revoke => prop_assert!(back >= 1 && model.live() == 0),
                Verdict::Refuse => {}
            }
        }
    }

    #[test]
    fn nothing_older_than_the_predecessor_is_ever_forgiven(back in 2..5usize, signs: bool, after in 0..10i64) {
        let (mut model, mut now) = (Model::new(true), begin());
        for _ in 0..6 {
            model.show(&Step { back: 0, signs: true, after: 0 }, now);
            now += TimeDelta::seconds(1);
        }
        now += TimeDelta::seconds(after);
        prop_assert_eq!(model.show(&Step { back, signs, after }, now), Verdict::Revoke);
        prop_assert_eq!(model.show(&Step { back: 0, signs: true, after: 0 }, now), Verdict::Refuse);
    }
}

/// Two things keep a grandparent out: its number, and that what it could hand back is forgotten. Here the second failed.
#[test]
fn a_grandparent_is_not_forgiven_although_its_successor_was_kept() {
    let (model, now) = (Model::new(true), begin());
    let shown = |generation| Shown { generation, spent_at: Some(now), successor: Some(Vec::new()), newest: 3 };
    assert_eq!(judge(&model.family, &shown(2), Holder::Device, now), Verdict::Repeat);
    assert_eq!(judge(&model.family, &shown(1), Holder::Device, now), Verdict::Revoke);
}

#[test]
fn the_signature_covers_the_token_and_the_instant() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let (key, now) = (Ed25519KeyPair::generate().unwrap(), begin());
    let request = |token: &str, at: DateTime<Utc>, signed: &str| Refresh {
        refresh_token: token.into(),
        issued_at: Some(at.to_rfc3339()),
        signature: Some(URL_SAFE_NO_PAD.encode(key.sign(signed_text(signed, &at.to_rfc3339()).as_bytes()))),
    };
    let public = key.public_key().as_ref();
    assert!(request("a", now, "a").is_signed_by(public, now));
    assert!(!request("b", now, "a").is_signed_by(public, now));
    assert!(!request("a", now - TimeDelta::seconds(301), "a").is_signed_by(public, now));
    assert!(!Refresh { signature: None, ..request("a", now, "a") }.is_signed_by(public, now));
    assert!(!request("a", now, "a").is_signed_by(Ed25519KeyPair::generate().unwrap().public_key().as_ref(), now));
}
