//! What a lane knows when it decides: the locked rows and the identities already taken. Each accepted sale
//! changes it, so the next one is decided on what the ones before it left.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemas::ids::{AccountId, CustomerId, DocumentId, LocationId, ProgramId, TerminalId, UserId, VariantId};
use uuid::Uuid;

use super::coupons::Promoted;
use crate::access::{Granted, Permission, RoleName, role_names};
use crate::db::limits::Found;
use crate::limits::{Limits, Mode, Rule};
use crate::loyalty::lots::Lot;

/// State under the locks of one batch.
#[derive(Debug, Default)]
pub struct Known {
    pub epoch: i64,
    pub catalog_version: i64,
    /// The database's clock after the locks.
    pub recorded_at: DateTime<Utc>,
    /// Last number of each location that could be locked.
    pub last_seq: HashMap<LocationId, i64>,
    pub stock: HashMap<(LocationId, VariantId), StockRow>,
    pub accounts: HashMap<CustomerId, Vec<Account>>,
    /// Of the accounts whose points are spent or that are in debt.
    pub lots: HashMap<AccountId, Vec<Lot>>,
    pub terminals: HashMap<TerminalId, Terminal>,
    pub rights: HashMap<(UserId, LocationId), Rights>,
    /// Those that the sales of the batch name.
    pub leases: HashMap<Uuid, Lease>,
    pub documents: Documents,
    /// Content hash stored under (terminal, idempotency key).
    pub keys: HashMap<(TerminalId, String), [u8; 32]>,
    /// What the acts of the batch are judged by.
    pub limits: Found,
    /// Coupons and counted promotions of the batch.
    pub promoted: Promoted,
}

impl Known {
    /// Takes in what was read for acts and for roles of the company's own.
    pub fn learn(&mut self, found: Found) {
        for ((cashier, location), rights) in self.rights.iter_mut().filter(|(_, it)| !it.own_roles.is_empty()) {
            rights.granted = found.granted(cashier.0, *location);
            rights.may_sell = rights.granted.iter().any(|it| it.holds(Permission::Sell));
            if !rights.granted.is_empty() {
                rights.roles = role_names(&rights.granted.iter().collect::<Vec<_>>()).into();
            }
        }
        self.limits = found;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockRow {
    pub qty: i64,
    pub version: i64,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
    /// Whether the row is in the table already.
    pub exists: bool,
    pub is_changed: bool,
}

/// A variant that never moved at a location.
impl Default for StockRow {
    fn default() -> Self {
        StockRow { qty: 0, version: 0, threshold: None, hysteresis: 1000, exists: false, is_changed: false }
    }
}

#[derive(Debug, Clone)]
pub struct Account {
    pub account_id: AccountId,
    pub program_id: ProgramId,
    pub points: i64,
    pub version: i64,
    pub is_changed: bool,
}

#[derive(Debug, Clone)]
pub struct Terminal {
    pub location_id: LocationId,
    pub register_id: Arc<str>,
    pub series_epoch: i32,
    pub is_active: bool,
}

/// What a named cashier may do at a location; None in the map's place: no such person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub may_sell: bool,
    /// Of who may sell there: what they are granted.
    pub granted: Vec<Granted>,
    /// Roles of the company's own among them: what these say is in [`Known::learn`].
    pub own_roles: Vec<Uuid>,
    /// Roles that they hold there, the highest first, with commas between.
    pub roles: Arc<str>,
}

impl Rights {
    /// From the names of the roles; `may_sell` as the built-in ones among them say.
    pub fn new(may_sell: bool, roles: &str) -> Self {
        let named: Vec<RoleName> = roles.split(',').filter_map(RoleName::parse).collect();
        let built_in = named.iter().filter(|_| may_sell).filter_map(|name| name.built_in());
        Rights {
            may_sell,
            granted: built_in.map(Granted::BuiltIn).collect(),
            own_roles: named.iter().filter_map(|name| name.own()).collect(),
            roles: roles.into(),
        }
    }
    /// What they may do of an act.
    pub fn rules(&self, act: Permission) -> Vec<Rule> {
        self.granted.iter().map(|it| it.rule(act)).filter(|rule| rule.mode != Mode::Deny).collect()
    }
}

/// What a lease lets its cashier do at its terminal.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Lease {
    pub lease_id: Uuid,
    pub terminal_id: Uuid,
    pub cashier_id: Uuid,
    pub permissions: Vec<String>,
    #[sqlx(json)]
    pub limits: Limits,
    pub expires_at: DateTime<Utc>,
    pub is_revoked: bool,
}

impl Lease {
    pub fn allows(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission.name())
    }
    /// Whether it was over when the sale was made, or has been taken back.
    pub fn is_stale_at(&self, occurred_at: DateTime<Utc>) -> bool {
        self.is_revoked || self.expires_at <= occurred_at
    }
}

/// A document that is stored, or was accepted earlier in this batch.
#[derive(Debug)]
pub struct KnownDocument {
    pub document_id: DocumentId,
    pub terminal_id: TerminalId,
    pub terminal_seq: i64,
    pub receipt: ReceiptKey,
    pub content_hash: [u8; 32],
    pub response: Arc<str>,
}

/// Receipt identity: location, register, series epoch, number.
pub type ReceiptKey = (LocationId, Arc<str>, i32, i64);

/// Documents by each of their identities.
#[derive(Debug, Default)]
pub struct Documents {
    all: Vec<Arc<KnownDocument>>,
    by_id: HashMap<DocumentId, usize>,
    by_seq: HashMap<(TerminalId, i64), usize>,
    by_receipt: HashMap<ReceiptKey, usize>,
}

impl Documents {
    pub fn insert(&mut self, document: KnownDocument) {
        let place = self.all.len();
        self.by_id.insert(document.document_id, place);
        self.by_seq.insert((document.terminal_id, document.terminal_seq), place);
        self.by_receipt.insert(document.receipt.clone(), place);
        self.all.push(Arc::new(document));
    }
    pub fn by_id(&self, id: DocumentId) -> Option<Arc<KnownDocument>> {
        self.by_id.get(&id).map(|place| self.all[*place].clone())
    }
    pub fn by_seq(&self, terminal: TerminalId, seq: i64) -> Option<Arc<KnownDocument>> {
        self.by_seq.get(&(terminal, seq)).map(|place| self.all[*place].clone())
    }
    pub fn by_receipt(&self, receipt: &ReceiptKey) -> Option<Arc<KnownDocument>> {
        self.by_receipt.get(receipt).map(|place| self.all[*place].clone())
    }
}
