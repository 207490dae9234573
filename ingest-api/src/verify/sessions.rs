//! Checks of signing in: the state of refresh tokens.

use anyhow::Context as _;
use sqlx::PgPool;

use super::Report;

/// A token is live only while its session is, and then alone.
const DIFFERING: &str = "
    select format('session %s: %s live refresh tokens%s', s.session_id, count(t.token_hash),
                  case when s.ended_at is not null then ', and it has ended' else '' end)
      from sessions s left join refresh_tokens t on t.session_id = s.session_id and t.state = 'live'
     group by s.session_id, s.ended_at
    having count(t.token_hash) <> case when s.ended_at is null then 1 else 0 end
     order by s.session_id";

pub async fn check(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let sessions: i64 = sqlx::query_scalar("select count(*) from sessions").fetch_one(pg).await?;
    let differing = sqlx::query_scalar(DIFFERING).fetch_all(pg).await.context("reading sessions")?;
    report.add("I22", "one live refresh token per session, none once it has ended", sessions as u64, differing);
    Ok(())
}
