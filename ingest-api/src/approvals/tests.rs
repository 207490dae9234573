use super::*;
use crate::access::Role;
use crate::limits::Mode;

const ACT: Permission = Permission::OverridePrice;

fn asked(amount: i64) -> Asked {
    let extent = Extent { currency: "EUR".into(), amount_minor: Some(amount), share_ppm: Some(0) };
    Asked { act: ACT, extent, rules: vec![Rule::new(ACT, Mode::Approval)], used: 0, is_fact: false }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn approval() -> Approval {
    Approval {
        iss: "vorca".into(),
        aud: AUDIENCE.into(),
        jti: id(1),
        sub: id(2),
        approver: id(3),
        location_id: id(4),
        digest: hex(&[7; 32]),
        currency: "EUR".into(),
        acts: vec![ApprovedAct { act: ACT, ceiling_minor: Some(500) }],
        iat: 1_000,
        nbf: 1_000,
        exp: 1_300,
    }
}

/// Code and detail of what becomes of an override of 500 at second 1,299.
fn outcome(change: impl Fn(&mut Approval), case: impl Fn(&mut Case<'_>), amount: i64) -> (&'static str, String) {
    let mut signed = approval();
    change(&mut signed);
    let presented = Presented::Signed(Box::new(signed));
    let mut it = Case {
        requester: id(2),
        location: LocationId(id(4)),
        currency: "EUR",
        digest: &[7; 32],
        now: DateTime::from_timestamp(1_299, 0).unwrap(),
        presented: &presented,
        approver: &[Granted::BuiltIn(Role::Manager)],
        is_spent: false,
    };
    case(&mut it);
    match settle(&it, vec![asked(amount)]) {
        Ok(settled) => (settled[0].standing.as_str(), String::new()),
        Err(refusal) => {
            assert!(refusal.audit.is_some(), "a refused act is audited: {refusal:?}");
            (refusal.code, refusal.detail)
        }
    }
}

#[test]
fn an_approval_covers_one_document_of_one_person_at_one_place_for_five_minutes() {
    let as_is = |_: &mut Approval| {};
    let usual = |_: &mut Case<'_>| {};
    assert_eq!(outcome(as_is, usual, 500).0, "approved");
    for (change, flaw) in [
        (&(|it: &mut Approval| it.location_id = id(9)) as &dyn Fn(&mut Approval), "another location"),
        (&|it| it.sub = id(9), "another person"),
        (&|it| it.approver = id(2), "of their own"),
        (&|it| it.digest = hex(&[8; 32]), "another document"),
        (&|it| it.exp = 1_299, "expired"),
        (&|it| it.acts[0].act = Permission::DiscountLines, "another act"),
        (&|it| it.acts[0].ceiling_minor = Some(499), "too low"),
        (&|it| it.currency = "USD".into(), "too low"),
    ] {
        let (code, detail) = outcome(change, usual, 500);
        assert_eq!(code, "approval_invalid");
        assert!(detail.contains(flaw), "{detail}");
    }
    assert_eq!(outcome(as_is, |case| case.is_spent = true, 500).0, "approval_used");
    assert_eq!(outcome(as_is, |case| case.presented = &Presented::Nothing, 500).0, "approval_required");
    assert_eq!(outcome(as_is, |case| case.presented = &Presented::Forged, 500).0, "approval_invalid");
    assert_eq!(outcome(|it| it.acts[0].ceiling_minor = None, usual, i64::MAX).0, "approved");
    // Judged again when it is spent: nobody any more, or only a cashier.
    for approver in [&[][..], &[Granted::BuiltIn(Role::Cashier)]] {
        assert_eq!(outcome(as_is, |case| case.approver = approver, 500).0, "approval_invalid");
    }
}

#[test]
fn what_is_denied_no_approval_helps_and_a_fact_is_taken() {
    let signed = Presented::Signed(Box::new(approval()));
    let case = Case {
        requester: id(2),
        location: LocationId(id(4)),
        currency: "EUR",
        digest: &[7; 32],
        now: DateTime::from_timestamp(1_299, 0).unwrap(),
        presented: &signed,
        approver: &[Granted::BuiltIn(Role::Owner)],
        is_spent: false,
    };
    let denied = Asked { rules: Vec::new(), ..asked(1) };
    assert_eq!(settle(&case, vec![asked(1), denied]).unwrap_err().code, "forbidden");
    let case = Case { presented: &Presented::Nothing, ..case };
    let fact = Asked { is_fact: true, ..asked(1) };
    assert_eq!(settle(&case, vec![fact]).unwrap()[0].standing, Standing::OverLimit);
}
