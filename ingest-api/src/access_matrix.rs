//! Who may call which route where, worked out from the route table and the permission table: what
//! `docs/access-matrix.md` shows and what a test tries with real tokens, cell by cell.

use axum::http::StatusCode;
use schemas::ids::{LocationId, TerminalId, UserId};
use uuid::Uuid;

use crate::access::{Grant, Granted, Permission, Principal, Role};
use crate::limits::{Mode, Rule};
use crate::router::{Route, routes};

/// How far the permission of a route has to reach, and what happens where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing in it belongs to a location: a grant anywhere is enough.
    Anywhere,
    /// It concerns the whole company: a grant for every location, else 403.
    Everywhere,
    /// The object in the path belongs to a location: out of reach it does not exist, 404.
    Object,
    /// Body or query name a location: out of reach 403, whether it exists or not.
    Named,
    /// As [`Reach::Named`], and users are refused: only an enrolled terminal commits.
    NamedByTerminal,
    /// A list of what is in reach; a location named in the query and out of reach is 403.
    Listed,
}

impl Reach {
    /// As the matrix calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reach::Anywhere => "none",
            Reach::Everywhere => "company",
            Reach::Object => "path",
            Reach::Named => "named",
            Reach::NamedByTerminal => "named, terminals only",
            Reach::Listed => "list",
        }
    }
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The route does what it is for.
    Served,
    /// The list comes without what is asked about.
    LeftOut,
    /// An act that the caller may do with somebody else's approval only: 403 `approval_required`.
    NeedsApproval,
    Refused(StatusCode),
}

impl Outcome {
    fn text(self) -> String {
        match self {
            Outcome::Served => "yes".to_owned(),
            Outcome::LeftOut => "hidden".to_owned(),
            Outcome::NeedsApproval => "approval".to_owned(),
            Outcome::Refused(status) => status.as_u16().to_string(),
        }
    }
}

/// What `caller` (nobody: no token) gets from a route about something of `location`.
pub fn outcome(route: &Route, caller: Option<&Principal>, location: LocationId) -> Outcome {
    let permission = route.permission;
    if permission == Permission::Public {
        return Outcome::Served;
    }
    let Some(principal) = caller else { return Outcome::Refused(StatusCode::UNAUTHORIZED) };
    if !principal.may_anywhere(permission) {
        return Outcome::Refused(StatusCode::FORBIDDEN);
    }
    let (is_enough, otherwise) = match route.reach {
        Reach::Anywhere => (true, Outcome::Served),
        Reach::Everywhere => (principal.may_everywhere(permission), Outcome::Refused(StatusCode::FORBIDDEN)),
        Reach::Object => (principal.may(permission, location), Outcome::Refused(StatusCode::NOT_FOUND)),
        Reach::Named => (principal.may(permission, location), Outcome::Refused(StatusCode::FORBIDDEN)),
        Reach::NamedByTerminal => {
            let is_terminal = principal.terminal().is_some();
            (is_terminal && principal.may(permission, location), Outcome::Refused(StatusCode::FORBIDDEN))
        }
        Reach::Listed => (principal.may(permission, location), Outcome::LeftOut),
    };
    match is_enough {
        false => otherwise,
        true if permission.is_act() => at_best(&principal.rules(permission, location)),
        true => Outcome::Served,
    }
}

/// What becomes of an act within every limit.
fn at_best(rules: &[Rule]) -> Outcome {
    match rules.iter().map(|rule| rule.mode).max() {
        Some(Mode::Allow) => Outcome::Served,
        Some(Mode::Approval) => Outcome::NeedsApproval,
        Some(Mode::Deny) | None => Outcome::Refused(StatusCode::FORBIDDEN),
    }
}

/// The rules of a role as a company might make one: a cashier who also adjusts stock, with an approval each time, and
/// looks at figures. Its column shows what such roles come to.
pub fn own_rules() -> Vec<Rule> {
    let of_cashier = Permission::ALL.iter().filter(|it| it.is_for_roles()).map(|it| it.rule_of(Role::Cashier));
    let mut rules: Vec<Rule> = of_cashier.filter(|rule| rule.mode != Mode::Deny).collect();
    rules.push(Rule::new(Permission::AdjustStock, Mode::Approval));
    rules.push(Rule::new(Permission::ReadReports, Mode::Allow));
    rules
}

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// No token.
    Nobody,
    /// An enrolled terminal of the own location.
    Terminal,
    /// An API client that was given all that clients may hold, for the own location.
    ClientHere,
    /// The same for every location.
    ClientEverywhere,
    /// A user whose one grant is for the own location.
    Here(Role),
    /// A user whose one grant is for every location.
    Everywhere(Role),
    /// A user with a role of the company's own, [`own_rules`], for the own location.
    OwnRole,
}

impl Caller {
    /// Every column, in order.
    pub fn all() -> Vec<Caller> {
        let here = Role::ALL.map(Caller::Here);
        let everywhere = Role::ALL.map(Caller::Everywhere);
        let programs = [Caller::Nobody, Caller::Terminal, Caller::ClientHere, Caller::ClientEverywhere];
        programs.into_iter().chain(here).chain(everywhere).chain([Caller::OwnRole]).collect()
    }

    /// Heading of the column.
    pub fn heading(self) -> String {
        match self {
            Caller::Nobody => "no token".to_owned(),
            Caller::Terminal => "terminal".to_owned(),
            Caller::ClientHere => "client".to_owned(),
            Caller::ClientEverywhere => "client everywhere".to_owned(),
            Caller::Here(role) => role.as_str().to_owned(),
            Caller::Everywhere(role) => format!("{} everywhere", role.as_str()),
            Caller::OwnRole => "own role".to_owned(),
        }
    }

    /// Such a caller, whose own location is `own`.
    pub fn principal(self, own: LocationId) -> Option<Principal> {
        let granted = |role, location_id| Principal::User {
            user_id: UserId(Uuid::nil()),
            grants: [Grant { role, location_id }].into(),
        };
        let user = |role, location_id| granted(Granted::BuiltIn(role), location_id);
        let client = |locations: Option<LocationId>| Principal::Client {
            client_id: Uuid::nil(),
            permissions: Permission::ALL.iter().filter(|permission| permission.is_for_clients()).copied().collect(),
            locations: locations.map(|location| [location].into()),
        };
        match self {
            Caller::Nobody => None,
            Caller::ClientHere => Some(client(Some(own))),
            Caller::ClientEverywhere => Some(client(None)),
            Caller::Terminal => Some(Principal::Terminal { terminal_id: TerminalId(Uuid::nil()), location_id: own }),
            Caller::Here(role) => Some(user(role, Some(own))),
            Caller::Everywhere(role) => Some(user(role, None)),
            Caller::OwnRole => Some(granted(Granted::Own { name: "own".into(), rules: own_rules().into() }, Some(own))),
        }
    }
}

const HEAD: &str = "\
# Access matrix

Made from `ingest-api/src/router.rs` and `ingest-api/src/access.rs`; do not edit. The tests of `ingest-api` compare it
with the code and try every cell with real tokens. After a change: `UPDATE_ACCESS_MATRIX=1 ./dev test -- -p ingest-api --test it matrix`.

A cell with two entries says what a caller gets at its own location, then at another one; one entry: the same at both.
Columns without `everywhere` are callers with one grant, for their own location. `client` is an API client that was given
every permission it may hold. Who has a second factor to set up first reaches the two routes of `EnrolSecondFactor` alone.

| entry | meaning |
|---|---|
| yes | served |
| approval | served with somebody else's approval; without one 403 `approval_required` |
| hidden | the list is served, without what belongs to that location; naming the location in the query is 403 |
| 401, 403, 404 | refused |

| reach | what has to be granted |
|---|---|
| none | the permission at any location |
| company | the permission for every location |
| path | the permission where the object in the path is; elsewhere the object does not exist |
| named | the permission at the location that the body or the query names |
| list | lists show what the caller's locations hold |

A general price (without a location) in `POST /prices` needs a grant for every location. Users with `manager` make and edit
cashiers of their own locations only. `own role` is a role of the company's own: a cashier who also reads reports and
adjusts stock with an approval. A till at `POST /approvals` shows the PIN of who approves. A terminal reads itself, not the other terminals of its location.
";

const ACTS: &str = "
## Acts

What the built-in roles may do of acts, wherever they are granted. Beyond a limit an approval is needed. Several grants at one
location add up: the most permitting one wins.

";

/// The rules of the built-in roles for acts.
fn acts() -> String {
    let heads: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    let mut text = format!("{ACTS}| act | {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len() + 1));
    for (act, _) in Permission::ACTS {
        let cells: Vec<String> = Role::ALL.iter().map(|role| rule_text(&act.rule_of(*role))).collect();
        text.push_str(&format!("| {act:?} | {} |\n", cells.join(" | ")));
    }
    text
}

fn rule_text(rule: &Rule) -> String {
    let mode = match rule.mode {
        Mode::Allow => "allow",
        Mode::Approval => "approval",
        Mode::Deny => "deny",
    };
    let percent = rule.percent_max.map(|percent| format!(" up to {percent} %"));
    let units = rule.units_max.map(|units| format!(" up to {units} whole units of the currency"));
    let count = rule.per_shift.map(|count| format!(", {count} a shift"));
    format!("{mode}{}{}{}", percent.unwrap_or_default(), units.unwrap_or_default(), count.unwrap_or_default())
}

/// The whole matrix as it is committed.
pub fn document() -> String {
    let (own, other) = (LocationId(Uuid::from_u128(1)), LocationId(Uuid::from_u128(2)));
    let callers = Caller::all();
    let mut text = format!("{HEAD}\n| route | permission | reach |");
    for caller in &callers {
        text.push_str(&format!(" {} |", caller.heading()));
    }
    text.push_str(&format!("\n|{}\n", "---|".repeat(callers.len() + 3)));
    for route in routes() {
        let (method, path, reach) = (&route.method, route.path, route.reach.as_str());
        text.push_str(&format!("| {method} {path} | {:?} | {reach} |", route.permission));
        for caller in &callers {
            let principal = caller.principal(own);
            let cell = [own, other].map(|location| outcome(&route, principal.as_ref(), location).text());
            let cell = if cell[0] == cell[1] { cell[0].clone() } else { cell.join(" / ") };
            text.push_str(&format!(" {cell} |"));
        }
        text.push('\n');
    }
    text + &acts()
}
