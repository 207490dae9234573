use schemas::ids::{LocationId, TerminalId, UserId};
use uuid::Uuid;

use super::*;
use crate::limits::{Extent, Verdict, judge};

fn user(grants: &[(Role, Option<LocationId>)]) -> Principal {
    let grants = grants
        .iter()
        .map(|(role, location_id)| Grant { role: Granted::BuiltIn(*role), location_id: *location_id })
        .collect();
    Principal::User { user_id: UserId(Uuid::from_u128(1)), grants }
}

#[test]
fn a_grant_holds_at_its_location_and_nowhere_else() {
    let (here, there) = (LocationId(Uuid::from_u128(10)), LocationId(Uuid::from_u128(11)));
    let manager = user(&[(Role::Manager, Some(here)), (Role::Cashier, Some(there))]);
    assert!(manager.may(Permission::ManageStock, here));
    assert!(!manager.may(Permission::ManageStock, there));
    assert!(manager.may(Permission::Sell, there));
    assert!(!manager.may_everywhere(Permission::ManageStock));
    let access = Access { principal: manager, permission: Permission::ManageStock, session: None };
    assert_eq!(access.scope(), Some(vec![here.0]));
    assert_eq!(access.require_object_at(there, "location").unwrap_err().status, 404);
    assert_eq!(access.require_named(there).unwrap_err().status, 403);
    let principal = user(&[(Role::Owner, None)]);
    let owner = Access { principal, permission: Permission::ManageStock, session: None };
    assert_eq!(owner.scope(), None);
}

#[test]
fn terminals_act_at_their_own_location_only() {
    let here = LocationId(Uuid::from_u128(10));
    let terminal = Principal::Terminal { terminal_id: TerminalId(Uuid::from_u128(2)), location_id: here };
    assert!(terminal.may(Permission::Sell, here));
    assert!(!terminal.may(Permission::Sell, LocationId(Uuid::from_u128(11))));
    assert!(!terminal.may_anywhere(Permission::ManageStock));
    assert!(!terminal.may_everywhere(Permission::ReadCatalog));
}

#[test]
fn a_client_holds_what_it_was_given_and_clients_may_hold() {
    let here = LocationId(Uuid::from_u128(10));
    let client = |permissions: &[Permission], locations: Option<&[LocationId]>| Principal::Client {
        client_id: Uuid::from_u128(3),
        permissions: permissions.into(),
        locations: locations.map(Into::into),
    };
    let reader = client(&[Permission::ReadStock, Permission::ManageUsers], Some(&[here]));
    assert!(reader.may(Permission::ReadStock, here));
    assert!(!reader.may(Permission::ReadStock, LocationId(Uuid::from_u128(11))));
    assert!(!reader.may_everywhere(Permission::ReadStock));
    assert!(!reader.may_anywhere(Permission::ManageStock), "not given");
    assert!(!reader.may_anywhere(Permission::ManageUsers), "no client may hold it");
    assert!(client(&[Permission::ReadStock], None).may_everywhere(Permission::ReadStock));
    // Selling is for tills, people, what is known of them and keys are for people.
    use Permission::*;
    for permission in [
        Sell,
        ManageUsers,
        ManageClients,
        OwnAccount,
        LookUpMembers,
        SignUpMembers,
        ReadProfiles,
        EditProfiles,
        ExportMembers,
        MergeMembers,
        EraseMembers,
    ] {
        assert!(!permission.is_for_clients(), "{permission:?}");
    }
}

#[test]
fn the_table_as_a_whole() {
    let rows: Vec<String> = Permission::ALL
        .iter()
        .map(|permission| {
            let roles: Vec<_> = permission.roles().iter().map(|role| role.as_str()).collect();
            let terminal = if permission.is_for_terminals() { " terminal" } else { "" };
            format!("{permission:?}: {}{terminal}", roles.join(" "))
        })
        .collect();
    assert!(rows.contains(&"ManageStock: owner manager".to_owned()));
    assert!(rows.contains(&"Sell: owner manager cashier terminal".to_owned()));
    // Personal data and money acts are closed to the technical role.
    for permission in Permission::ALL.iter().filter(|permission| permission.is_held_by(Role::ItAdmin)) {
        use Permission::*;
        assert!(matches!(
            permission,
            OwnAccount
                | EnrolSecondFactor
                | ManageClients
                | ManageLeases
                | ReadCatalog
                | ReadLocations
                | ManageLocations
                | ReadTerminals
                | ManageTerminals
                | ReadAudit
        ));
    }
}

#[test]
fn acts_are_held_by_who_may_do_them_at_all() {
    for (act, limits) in Permission::ACTS {
        for (role, _) in *limits {
            assert!(act.is_held_by(*role), "{act:?}: a limit for {role:?}, who may not do it");
        }
        for role in Role::ALL {
            assert_eq!(act.is_held_by(role), act.rule_of(role).mode != Mode::Deny, "{act:?} {role:?}");
        }
    }
    assert!(!Permission::AdjustStock.is_held_by(Role::Cashier));
    assert_eq!(Permission::OverridePrice.rule_of(Role::Cashier).mode, Mode::Approval);
    assert!(Permission::OverridePrice.rule_of(Role::Manager).is_unlimited());
}

#[test]
fn a_role_of_the_company_gives_what_its_rules_say_and_the_own_account() {
    let here = LocationId(Uuid::from_u128(10));
    let limited = Rule { percent_max: Some(5), ..Rule::new(Permission::DiscountLines, Mode::Allow) };
    let rules = [limited, Rule::new(Permission::AdjustStock, Mode::Approval)];
    let own = Granted::Own { name: "Lead".into(), rules: rules.into() };
    let grants = [
        Grant { role: own, location_id: Some(here) },
        Grant { role: Granted::BuiltIn(Role::Cashier), location_id: Some(here) },
    ];
    let user = Principal::User { user_id: UserId(Uuid::from_u128(1)), grants: grants.into() };
    assert!(user.may(Permission::AdjustStock, here) && user.may(Permission::OwnAccount, here));
    assert!(!user.may(Permission::ManageStock, here));
    assert_eq!(user.role_text(), "cashier,Lead");
    // Two grants at one location: the most permitting one wins.
    let extent = Extent { currency: "EUR".into(), amount_minor: Some(100), share_ppm: Some(200_000) };
    let rules = user.rules(Permission::DiscountLines, here);
    assert_eq!((rules.len(), judge(&rules, 0, &extent)), (2, Verdict::Allowed));
    assert_eq!(judge(&user.rules(Permission::AdjustStock, here), 0, &extent), Verdict::NeedsApproval);
    assert!(user.rules(Permission::DiscountLines, LocationId(Uuid::from_u128(11))).is_empty());
    assert!(!user.covers(&Rule::new(Permission::Sell, Mode::Allow)), "held at one location only");
}
