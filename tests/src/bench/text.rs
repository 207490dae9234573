//! The page that `./dev bench` prints without `--json`.

use std::fmt::Write as _;

use super::Report;
use super::ingest::{HotReport, IngestReport, Run};
use super::pipeline::PipelineReport;
use super::relay::RelayReport;
use super::security::SecurityReport;

pub(super) fn page(report: &Report) -> String {
    let at = &report.machine;
    let mut page = format!(
        "\n{} x {}, {} GiB, {}; {}; {}; commit {}\n",
        at.cores, at.cpu, at.memory_gib, at.kernel, at.postgres, at.rustc, at.commit
    );
    // Writing to a String cannot fail.
    report.ingest.iter().for_each(|it| ingest(&mut page, it).unwrap_or_default());
    report.hot.iter().for_each(|it| hot(&mut page, it).unwrap_or_default());
    report.relay.iter().for_each(|it| relay(&mut page, it).unwrap_or_default());
    report.pipeline.iter().for_each(|it| pipeline(&mut page, it).unwrap_or_default());
    report.security.iter().for_each(|it| security(&mut page, it).unwrap_or_default());
    page
}

fn run(page: &mut String, name: &str, run: &Run) -> std::fmt::Result {
    let it = &run.load;
    writeln!(
        page,
        "  {name:<26} {:>7.0} sales/s  p50 {:>6.2}  p99 {:>6.2}  p99.9 {:>6.2} ms   CPU us/sale: API {:.0}, Postgres {:.0}, generator {:.0}",
        it.sold_per_s, it.p50_ms, it.p99_ms, it.p999_ms, run.api_us, run.postgres_us, it.generator_us
    )
}

fn ingest(page: &mut String, it: &IngestReport) -> std::fmt::Result {
    writeln!(page, "\nIngest, uniform, against pgbench statement by statement (goal 5x)")?;
    writeln!(
        page,
        "  {:.2}x (lowest {:.2}, highest {:.2} of {} pairs, {} discarded): {:.0} beside {:.0} sales/s",
        it.ratio.median,
        it.ratio.low,
        it.ratio.high,
        it.pairs.len(),
        it.discarded,
        it.sales_per_s,
        it.peer_sales_per_s
    )?;
    for (n, pair) in it.pairs.iter().enumerate() {
        run(page, &format!("pair {}, {} waiting", n + 1, pair.ours.load.waiting), &pair.ours)?;
        writeln!(
            page,
            "  {:<26} {:>7.0} sales/s  mean {:>5.2} ms, {} connections   CPU us/sale: Postgres {:.0}   disk sync p50 {:.2} p99 {:.2} ms",
            "       pgbench",
            pair.peer.sales_per_s,
            pair.peer.mean_ms,
            pair.peer.clients,
            pair.peer_postgres_us,
            pair.probe.p50_ms,
            pair.probe.p99_ms
        )?;
    }
    run(page, "half of it (p99 goal 25)", &it.at_half)?;
    for offered in &it.curve {
        run(page, &format!("offered {:.0}/s", offered.load.offered_per_s.unwrap_or_default()), offered)?;
    }
    run(page, "one at a time (p50 goal 3)", &it.lone)?;
    writeln!(page, "  rows a sale and bytes a row, ours | pgbench")?;
    for (ours, peer) in it.written.iter().zip(&it.peer_written) {
        writeln!(
            page,
            "    {:<18} {:>5.2} x {:>5.0}  |  {:>5.2} x {:>5.0}",
            ours.table, ours.rows_per_sale, ours.bytes_per_row, peer.rows_per_sale, peer.bytes_per_row
        )?;
    }
    Ok(())
}

fn hot(page: &mut String, it: &HotReport) -> std::fmt::Result {
    writeln!(page, "\nIngest, one location and five products, against our own uniform rate (goal 0.8)")?;
    writeln!(page, "  {:.2} (lowest {:.2}, highest {:.2})", it.ratio.median, it.ratio.low, it.ratio.high)?;
    for (uniform, hot) in it.uniform.iter().zip(&it.hot) {
        run(page, "uniform", uniform)?;
        run(page, "hot", hot)?;
    }
    Ok(())
}

fn relay(page: &mut String, it: &RelayReport) -> std::fmt::Result {
    writeln!(page, "\nRelay draining {} records, against a bare producer sending the same (goal 0.5)", it.records)?;
    writeln!(
        page,
        "  {:.2} (lowest {:.2}, highest {:.2}): {:.0} beside {:.0} records/s of {:.0} bytes",
        it.ratio.median, it.ratio.low, it.ratio.high, it.records_per_s, it.bare_records_per_s, it.bytes_per_record
    )?;
    for pair in &it.pairs {
        writeln!(
            page,
            "  relay {:>7.0}/s   CPU us/record: relay {:.2}, Postgres {:.2}   |   bare {:>7.0}/s   {:.2}",
            pair.records_per_s, pair.relay_us, pair.postgres_us, pair.bare_records_per_s, pair.bare_us
        )?;
    }
    Ok(())
}

fn pipeline(page: &mut String, it: &PipelineReport) -> std::fmt::Result {
    let load = &it.load;
    writeln!(page, "\nWhole pipeline, {} sales already in today's slices", it.already_there)?;
    writeln!(
        page,
        "  offered {:.0}/s, sold {:.0}/s, p50 {:.1}, p99 {:.1} ms (goal 2,000 sales/s)",
        load.offered_per_s.unwrap_or_default(),
        load.sold_per_s,
        load.p50_ms,
        load.p99_ms
    )?;
    writeln!(
        page,
        "  commit to KPI p50 {:.0}, p99 {:.0}, highest {:.0} ms (goal p99 3,000)",
        it.kpi_p50_ms, it.kpi_p99_ms, it.kpi_max_ms
    )?;
    let drained = it.drained_seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.1} s"));
    writeln!(page, "  drained after the last sale: {drained}; verify agrees: {}", it.verify_agrees)?;
    for lag in it.lag.iter().step_by((it.lag.len() / 12).max(1)) {
        writeln!(
            page,
            "    {:>4.0} s  outbox {:>6} acts  processors {:>7.0} records  ClickHouse {:>5.1} s",
            lag.second, lag.outbox_acts, lag.processor_records, lag.clickhouse_s
        )?;
    }
    writeln!(page, "  memory, first third -> last third (highest), and CPU us a sale (goal flat, under 200 MB)")?;
    for process in &it.processes {
        match process.max_mb > 0.0 {
            true => writeln!(
                page,
                "    {:<16} {:>6.0} -> {:>4.0} MB ({:.0})   {:>6.1} us",
                process.name, process.first_mb, process.last_mb, process.max_mb, process.us
            )?,
            false => writeln!(page, "    {:<16} {:>33.1} us", process.name, process.us)?,
        }
    }
    writeln!(page, "    {:<16} {:>33.1} us", "generator", load.generator_us)
}

fn security(page: &mut String, it: &SecurityReport) -> std::fmt::Result {
    writeln!(page, "\nWhat the boundary costs: CPU us a request, API and Postgres together, with it / without it")?;
    for cost in &it.costs {
        writeln!(
            page,
            "  {:<44} {:.3} (lowest {:.3}, highest {:.3} of {} pairs): {:.1} / {:.1} us   goal {}",
            cost.of,
            cost.ratio.median,
            cost.ratio.low,
            cost.ratio.high,
            cost.pairs,
            cost.with_us,
            cost.without_us,
            cost.goal.map_or("none: the spread of the same twice".to_owned(), |goal| format!("{goal:.2}")),
        )?;
    }
    writeln!(
        page,
        "  sealing, worker and Postgres: {:.1} us an audit row ({} rows)",
        it.sealing.us_a_row, it.sealing.rows
    )?;
    let flood = &it.flood;
    writeln!(page, "\nA flood of log-ins beside {:.0} sales/s", flood.offered_per_s)?;
    writeln!(
        page,
        "  p99 of sales without it {:.1} ms (lowest {:.1}, highest {:.1}), with it {:.1} ms (lowest {:.1}, highest {:.1})",
        flood.calm_p99_ms.median,
        flood.calm_p99_ms.low,
        flood.calm_p99_ms.high,
        flood.flooded_p99_ms.median,
        flood.flooded_p99_ms.low,
        flood.flooded_p99_ms.high,
    )?;
    for (status, answers) in &flood.answers {
        writeln!(page, "  log-ins answered {status}: {answers}")?;
    }
    Ok(())
}
