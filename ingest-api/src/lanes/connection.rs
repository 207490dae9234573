//! The one connection of a lane: its own time limits, and plans that never depend on what was sold so far.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

/// The lane's session settings. The lane runs two statements, both over arrays joined to indexed tables: only
/// index look-ups are ever right, whatever the statistics of a young table say. Pages cost nothing (what a lane touches
/// is in memory), so that reading a whole small index never looks cheaper than descending it a few times.
const SETTINGS: [(&str, &str); 11] = [
    ("idle_in_transaction_session_timeout", "5s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    ("random_page_cost", "0"),
    ("seq_page_cost", "0"),
    ("jit", "off"),
    ("TimeZone", "UTC"),
    ("application_name", "vorca-lane"),
];

/// Opens connections on demand; one that failed is dropped, never reused.
pub struct LaneConnection {
    options: PgConnectOptions,
    open: Option<PgConnection>,
    /// Transactions begun on the open connection.
    begun: u64,
}

impl LaneConnection {
    /// A statement is given up after `statement_max`, a lock it waits for after half of that.
    pub fn new(options: PgConnectOptions, statement_max: Duration) -> Self {
        let limit_ms = |limit: Duration| format!("{}ms", limit.as_millis());
        let limits = [("statement_timeout", limit_ms(statement_max)), ("lock_timeout", limit_ms(statement_max / 2))];
        let options = options.options(SETTINGS).options(limits).disable_statement_logging();
        LaneConnection { options, open: None, begun: 0 }
    }

    /// A connection inside a new transaction.
    pub async fn begin(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        if let Some(mut conn) = self.open.take() {
            self.begun += 1;
            // Plans are kept, and what was right for tables of ten rows reads all ten thousand of them later: they are
            // made anew each time the tables may have doubled.
            let begin = if self.begun.is_power_of_two() { "discard plans; begin" } else { "begin" };
            // A server that was restarted meanwhile shows here, before anything depends on it.
            if conn.execute(begin).await.is_ok() {
                return Ok(self.open.insert(conn));
            }
        }
        let mut conn = PgConnection::connect_with(&self.options).await?;
        conn.execute("begin").await?;
        self.begun = 1;
        Ok(self.open.insert(conn))
    }

    /// Ends the transaction without effect; a connection that cannot do so is dropped.
    pub async fn rollback(&mut self) {
        if let Some(mut conn) = self.open.take()
            && conn.execute("rollback").await.is_ok()
        {
            self.open = Some(conn);
        }
    }

    /// Drops the connection: what its session still does is undone or finished by the server.
    pub fn discard(&mut self) {
        self.open = None;
    }
}
