//! The contract: identifiers, money, events, topics and the Avro codec that every process shares.
//!
//! No HTTP, no SQL; the only I/O is the schema registry client in [`registry`].
//!
//! # Vocabulary
//!
//! | say | meaning |
//! |---|---|
//! | document (sale, refund, exchange, void) | what a terminal sends; immutable once stored |
//! | line, tender, change, rounding | parts of a document; a tender is one means of payment |
//! | location | a shop; the unit of order, access, business day and currency |
//! | terminal; register | the device that numbers its documents; the cash point with a receipt series |
//! | variant, product | what is stocked and sold; the group it belongs to |
//! | stock level; movement | one (location, variant) row; one change of it |
//! | account, lot, entry | loyalty balance, its parts, one change of it |
//! | entity, version, epoch | stock level or account; its gapless number; restore generation of the database |
//! | event, state record | a past-tense fact; the latest state of an entity in a compacted topic |
//! | stream | the ordered outbox rows of one location, or of the company |
//! | slice, mart, view | (location, business_date, slot); KPI table of slices; Redis serving view |

// Money, quantities and rates are integers and exact decimals.
#![deny(clippy::float_arithmetic)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod codec;
pub mod events;
pub mod headers;
pub mod ids;
pub mod money;
pub mod registry;
pub mod time;
pub mod topics;
