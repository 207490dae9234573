//! Which sales go into the next batch: bounded in sales and in lines, in arrival order per location, and never so
//! many of a busy location that the others wait behind it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use schemas::ids::LocationId;

use super::{BATCH_LINES_MAX, BATCH_MAX, Waiting};

/// Locations that were busy and are tried again in one batch, each with its oldest sale.
const PROBES_MAX: usize = BATCH_MAX / 2;

/// Sales of a lane that are in no batch: put back, or read from the queue and not taken yet. In arrival order.
#[derive(Default)]
pub struct Backlog {
    sales: VecDeque<Waiting>,
    /// Locations that somebody else held at the last try.
    busy: HashSet<LocationId>,
}

/// A batch in the making.
#[derive(Default)]
pub struct Batch {
    pub sales: Vec<Waiting>,
    lines: usize,
    /// Sales met so far of each location that was busy.
    met: HashMap<LocationId, usize>,
    is_closed: bool,
    /// Whether it holds a sale that was not tried before.
    pub has_fresh: bool,
}

impl Batch {
    /// Whether another sale may still be looked at for it.
    pub fn has_room(&self) -> bool {
        !self.is_closed && self.sales.len() < BATCH_MAX
    }

    /// Takes the sale, or closes the batch and gives it back: a sale larger than a whole batch goes alone.
    fn push(&mut self, sale: Waiting, is_busy: bool) -> Option<Waiting> {
        let lines = sale.offer.sale.cart.lines.len();
        if !self.sales.is_empty() && self.lines + lines > BATCH_LINES_MAX {
            self.is_closed = true;
            return Some(sale);
        }
        self.lines += lines;
        self.has_fresh |= !is_busy && !sale.may_be_stored;
        self.sales.push(sale);
        None
    }
}

impl Backlog {
    /// Puts sales back before everything newer.
    pub fn put_back(&mut self, sales: Vec<Waiting>) {
        for sale in sales.into_iter().rev() {
            self.sales.push_front(sale);
        }
    }

    /// What a batch found out about a location.
    pub fn note(&mut self, location: LocationId, is_busy: bool) {
        if is_busy {
            self.busy.insert(location);
        } else {
            self.busy.remove(&location);
        }
    }

    /// A batch of the sales that waited longest; those that waited too long for a busy location come back as the
    /// second part.
    pub fn take(&mut self) -> (Batch, Vec<Waiting>) {
        let (mut batch, mut refused) = (Batch::default(), Vec::new());
        let now = Instant::now();
        for sale in std::mem::take(&mut self.sales) {
            if self.busy.contains(&sale.offer.sale.location_id()) && sale.deadline <= now {
                refused.push(sale);
            } else {
                refused.extend(self.offer(&mut batch, sale));
            }
        }
        (batch, refused)
    }

    /// Puts one more sale into the batch or, in its place, into the backlog. It comes back when as many as a batch can
    /// hold wait for its busy location already.
    pub fn offer(&mut self, batch: &mut Batch, sale: Waiting) -> Option<Waiting> {
        let location = sale.offer.sale.location_id();
        let is_busy = self.busy.contains(&location);
        if is_busy {
            let met = batch.met.entry(location).or_default();
            *met += 1;
            let (met, is_beyond) = (*met, batch.met.len() > PROBES_MAX);
            if met > BATCH_MAX && !sale.may_be_stored {
                return Some(sale);
            }
            if met > 1 || is_beyond {
                self.sales.push_back(sale);
                return None;
            }
        }
        let left = if batch.has_room() { batch.push(sale, is_busy) } else { Some(sale) };
        self.sales.extend(left);
        None
    }
}
