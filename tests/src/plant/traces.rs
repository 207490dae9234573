//! The traces: what each bug would leave in Postgres, the topics, Redis or ClickHouse, written past every guard.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::codec::{Codec, Record, encode, frame};
use schemas::events::{StockFellLow, StockLevel, StockMoved};
use schemas::ids::{LocationId, UserId, VariantId};
use schemas::time::{Day, Timestamp};
use schemas::topics::{dead_letter, groups};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use crate::journal::{Entry, Journal, Op, sha256_hex};
use crate::stack::Stack;

/// The stores of the platform that is spoilt.
pub(super) struct Victim {
    pg: PgConnection,
    redis: redis::aio::MultiplexedConnection,
    producer: FutureProducer,
    kafka: AdminClient<DefaultClientContext>,
    codec: Codec,
    http: reqwest::Client,
    clickhouse: (String, String, String),
}

/// A stock level of the ledger that has moved.
struct Level {
    location: Uuid,
    variant: Uuid,
    qty: i64,
    version: i64,
    epoch: i64,
}

impl Level {
    fn name(&self) -> String {
        format!("{}:{}", self.location, self.variant)
    }
}

impl Victim {
    pub(super) async fn of(stack: &Stack) -> Result<Victim> {
        let endpoints = stack.endpoints()?;
        let superuser = stack.exports().into_iter().find(|(name, _)| *name == "DATABASE_URL");
        let server = superuser.context("no superuser URL")?.1;
        let mut url = reqwest::Url::parse(&server)?;
        url.set_path(reqwest::Url::parse(&endpoints.postgres)?.path());
        let mut pg = PgConnection::connect(url.as_str()).await?;
        // The ledgers refuse changes; a bug inside the server would not ask.
        sqlx::raw_sql("set session_replication_role = replica").execute(&mut pg).await?;
        let migrate = stack.identity().password("clickhouse-migrate").to_owned();
        Ok(Victim {
            pg,
            redis: redis::Client::open(endpoints.redis.as_str())?.get_multiplexed_async_connection().await?,
            producer: ClientConfig::new()
                .set("bootstrap.servers", &endpoints.kafka)
                .set("partitioner", "murmur2_random")
                .create()?,
            kafka: ClientConfig::new().set("bootstrap.servers", &endpoints.kafka).create()?,
            codec: Codec::new(&endpoints.registry),
            http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?,
            clickhouse: (endpoints.clickhouse.clone(), "vorca_migrate".to_owned(), migrate),
        })
    }

    /// Leaves the trace of bug `number`; what its report line has to contain.
    pub(super) async fn plant(&mut self, number: usize, bug: &str, journal: &Path) -> Result<String> {
        match number {
            0 => self.on_level(0, "update stock_levels set qty = qty - 1000 where location_id = $1 and variant_id = $2").await,
            1 => self.on_level(1, "update stock_levels set version = version + 1 where location_id = $1 and variant_id = $2").await,
            2 => self.move_twice().await,
            3 => self.acknowledge_nothing(journal).await,
            4 => self.mark_unpublished().await,
            5 => self.drop_outbox_row().await,
            6 => self.on_document(2, "update document_lines set payable_minor = payable_minor + 1 where document_id = $1 and line_no = 1").await,
            7 => self.grant_points().await,
            8 => self.wrong_partition().await,
            9 => self.stale_state().await,
            10 => self.foreign_alert().await,
            11 => self.stale_redis().await,
            12 => self.count_twice().await,
            13 => self.add_to_slice().await,
            14 => self.swallow().await,
            15 => self.count_products_twice().await,
            16 => self.change_audit_row().await,
            17 => self.on_document(6, "delete from audit_log where target = 'sale/' || $1").await,
            18 => self.on_act(0, "update limited_acts set rules = jsonb_set(rules, '{0,mode}', '\"approval\"') where cause_id = $1").await,
            19 => self.on_act(1, "delete from limited_acts where cause_id = $1").await,
            20 => self.fork_session().await,
            21 => self.spend_a_lot().await,
            _ => anyhow::bail!("no way to plant: {bug}"),
        }
    }

    /// The `nth` moved stock level in a fixed order, so that each bug spoils another.
    async fn level(&mut self, nth: i64) -> Result<Level> {
        let row = sqlx::query(
            "select l.location_id, l.variant_id, l.qty, l.version, m.epoch from stock_levels l
               join stock_movements m on (m.location_id, m.variant_id, m.version) = (l.location_id, l.variant_id, l.version)
              where l.version > 1 order by l.location_id, l.variant_id offset $1 limit 1",
        )
        .bind(nth * 3)
        .fetch_one(&mut self.pg)
        .await
        .context("too few stock levels have moved")?;
        Ok(Level { location: row.get(0), variant: row.get(1), qty: row.get(2), version: row.get(3), epoch: row.get(4) })
    }

    async fn document(&mut self, nth: i64) -> Result<Uuid> {
        let query = sqlx::query_scalar("select document_id from documents order by document_id offset $1 limit 1");
        query.bind(nth * 3).fetch_one(&mut self.pg).await.context("too few documents")
    }

    /// On the `nth` discount in a fixed order.
    async fn on_act(&mut self, nth: i64, sql: &'static str) -> Result<String> {
        let query = "select cause_id from limited_acts where act = 'discount_lines' and verdict = 'allowed' order by cause_id offset $1 limit 1";
        let cause: Uuid =
            sqlx::query_scalar(query).bind(nth * 3).fetch_one(&mut self.pg).await.context("too few discounts")?;
        sqlx::query(sql).bind(cause).execute(&mut self.pg).await?;
        Ok(cause.to_string())
    }

    async fn on_level(&mut self, nth: i64, sql: &'static str) -> Result<String> {
        let level = self.level(nth).await?;
        sqlx::query(sql).bind(level.location).bind(level.variant).execute(&mut self.pg).await?;
        Ok(format!("{}/{}", level.location, level.variant))
    }

    async fn on_document(&mut self, nth: i64, sql: &'static str) -> Result<String> {
        let document = self.document(nth).await?;
        sqlx::query(sql).bind(document).execute(&mut self.pg).await?;
        Ok(document.to_string())
    }

    /// The cashier of a sale is somebody else in the audit log.
    async fn change_audit_row(&mut self) -> Result<String> {
        let document = self.document(5).await?;
        let query = "update audit_log set actor = gen_random_uuid() where target = 'sale/' || $1 returning audit_id";
        let row: Uuid = sqlx::query_scalar(query).bind(document).fetch_one(&mut self.pg).await?;
        Ok(row.to_string())
    }

    /// The newest session gets a second token that can be spent: the unique index was not there to refuse it.
    async fn fork_session(&mut self) -> Result<String> {
        sqlx::raw_sql("drop index refresh_tokens_one_live").execute(&mut self.pg).await?;
        let session: Uuid = sqlx::query_scalar(
            "insert into refresh_tokens (token_hash, session_id, generation, state)
             select sha256(token_hash), session_id, generation + 1, state from refresh_tokens
              where state = 'live' order by session_id desc limit 1 returning session_id",
        )
        .fetch_one(&mut self.pg)
        .await
        .context("nobody is signed in")?;
        Ok(format!("session {session}: 2 live"))
    }

    /// A second movement for a line that has one, with level and version in step: only I3 can tell.
    async fn move_twice(&mut self) -> Result<String> {
        let document: Uuid = sqlx::query_scalar(
            "with m as (select * from stock_movements where cause_type = 'document' order by cause_id desc limit 1),
                  l as (update stock_levels s set qty = s.qty + m.delta, version = s.version + 1 from m
                         where (s.location_id, s.variant_id) = (m.location_id, m.variant_id) returning s.qty, s.version)
             insert into stock_movements (location_id, variant_id, version, epoch, location_seq, delta, qty_after, cause_type,
                    cause_id, cause_line, reason, actor, effective_at, recorded_at, threshold, hysteresis)
             select m.location_id, m.variant_id, l.version, m.epoch, m.location_seq, m.delta, l.qty, m.cause_type,
                    m.cause_id, m.cause_line, m.reason, m.actor, m.effective_at, m.recorded_at, m.threshold, m.hysteresis
               from m, l returning cause_id",
        )
        .fetch_one(&mut self.pg)
        .await?;
        Ok(document.to_string())
    }

    async fn acknowledge_nothing(&mut self, journal: &Path) -> Result<String> {
        let terminal: Uuid =
            sqlx::query_scalar("select terminal_id from documents order by 1 limit 1").fetch_one(&mut self.pg).await?;
        let sale_id = Uuid::now_v7();
        let entry = |op, status, response_hash| Entry {
            op,
            sale_id,
            terminal_id: terminal,
            terminal_seq: 1,
            key: sale_id.to_string(),
            body_hash: sha256_hex(b"sale"),
            status,
            response_hash,
            t: chrono::Utc::now().to_rfc3339(),
        };
        let journal = Journal::open(journal)?;
        journal.append(&entry(Op::Attempt, None, None)).await?;
        journal.append(&entry(Op::Ack, Some(201), Some(sha256_hex(b"answer")))).await?;
        Ok(sale_id.to_string())
    }

    /// A row whose stream says published although the topic never got it: the naive cursor's way of losing a sale.
    async fn mark_unpublished(&mut self) -> Result<String> {
        let event = Uuid::now_v7();
        sqlx::raw_sql("begin").execute(&mut self.pg).await?;
        sqlx::query(
            "with o as (select * from outbox where cause_type = 'document' and seq > 1 order by id desc limit 1),
                  s as (update streams t set last_seq = t.last_seq + 1 from o where t.stream_id = o.stream_id returning t.stream_id, t.last_seq),
                  p as (update stream_progress g set published_seq = s.last_seq from s where g.stream_id = s.stream_id)
             insert into outbox (stream_id, seq, epoch, cause_type, cause_id, created_at, topics, keys, event_ids, schema_versions, bodies)
             select s.stream_id, s.last_seq, o.epoch, o.cause_type, o.cause_id, now(), o.topics[1:1], o.keys[1:1], array[$1], o.schema_versions[1:1], o.bodies[1:1]
               from o, s",
        )
        .bind(event)
        .execute(&mut self.pg)
        .await?;
        sqlx::raw_sql("commit").execute(&mut self.pg).await?;
        Ok(event.to_string())
    }

    async fn drop_outbox_row(&mut self) -> Result<String> {
        let cause: Uuid = sqlx::query_scalar(
            "delete from outbox where (stream_id, seq) in (select stream_id, seq from outbox where cause_type = 'document' order by id offset 5 limit 1)
             returning cause_id",
        )
        .fetch_one(&mut self.pg)
        .await?;
        Ok(cause.to_string())
    }

    async fn grant_points(&mut self) -> Result<String> {
        let account: Uuid = sqlx::query_scalar(
            "update loyalty_accounts set points = points + 5
              where account_id = (select account_id from loyalty_accounts where version > 0 order by 1 limit 1) returning account_id",
        )
        .fetch_one(&mut self.pg)
        .await?;
        Ok(account.to_string())
    }

    async fn spend_a_lot(&mut self) -> Result<String> {
        let lot: Uuid = sqlx::query_scalar(
            "update loyalty_lots set remaining = remaining - 1
              where lot_id = (select lot_id from loyalty_lots where remaining > 0 order by lot_id desc limit 1) returning lot_id",
        )
        .fetch_one(&mut self.pg)
        .await?;
        Ok(format!("lot {lot}"))
    }

    async fn send<E: Record>(&self, partition: Option<i32>, key: &str, id: Uuid, event: &E) -> Result<()> {
        let body = frame(self.codec.schema_id::<E>().await?, &encode(event));
        let headers = OwnedHeaders::new().insert(Header { key: "ce_id", value: Some(&id.to_string()) });
        let mut record = FutureRecord::to(E::TOPIC.name).key(key).payload(&body).headers(headers);
        record.partition = partition;
        self.producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
        Ok(())
    }

    /// The newest movement again, with its own id, in a partition that is not its key's.
    async fn wrong_partition(&mut self) -> Result<String> {
        let row = sqlx::query(
            "select m.location_id, m.variant_id, m.version, m.epoch, m.location_seq, m.delta, m.qty_after, m.cause_id, m.actor, m.hysteresis
               from stock_movements m order by m.location_id desc, m.variant_id desc, m.version limit 1",
        )
        .fetch_one(&mut self.pg)
        .await?;
        let (location, variant): (Uuid, Uuid) = (row.get(0), row.get(1));
        let (version, epoch): (i64, i64) = (row.get(2), row.get(3));
        let event = StockMoved {
            epoch,
            location_id: LocationId(location),
            parent_location_id: None,
            location_seq: row.get(4),
            variant_id: VariantId(variant),
            version,
            delta: row.get(5),
            qty_after: row.get(6),
            cause_type: "document".to_owned(),
            cause_id: row.get(7),
            cause_line: 1,
            transfer_id: None,
            reason: "sale".to_owned(),
            document_uri: None,
            actor: UserId(row.get(8)),
            approval_id: None,
            effective_at: Timestamp(0),
            recorded_at: Timestamp(0),
            business_date: Day(0),
            neutral: false,
            threshold: None,
            hysteresis: row.get(9),
            resync: false,
            unit_cost: None,
        };
        let id = schemas::ids::event_id(StockMoved::TOPIC.event_type, &format!("{location}:{variant}"), epoch, version);
        let topic = StockMoved::TOPIC;
        for partition in 0..topic.partitions {
            self.send(Some(partition), &location.to_string(), id, &event).await?;
        }
        Ok(location.to_string())
    }

    /// A state record of the newest version with an older figure.
    async fn stale_state(&mut self) -> Result<String> {
        let level = self.level(4).await?;
        let state = StockLevel {
            epoch: level.epoch,
            location_id: LocationId(level.location),
            variant_id: VariantId(level.variant),
            version: level.version,
            location_seq: 0,
            qty: level.qty + 1_000,
            threshold: None,
            hysteresis: 1_000,
            is_fired: false,
            daily_sales: Vec::new(),
            updated_at: Timestamp(0),
        };
        self.send(None, &level.name(), Uuid::now_v7(), &state).await?;
        Ok(level.name())
    }

    async fn foreign_alert(&mut self) -> Result<String> {
        let level = self.level(5).await?;
        let alert_id = Uuid::now_v7();
        let alert = StockFellLow {
            epoch: level.epoch,
            alert_id,
            location_id: LocationId(level.location),
            location_seq: 0,
            variant_id: VariantId(level.variant),
            version: level.version,
            qty: level.qty,
            threshold: 1_000,
            hysteresis: 1_000,
            days_of_cover: None,
            daily_sales: 0,
            cause_id: Uuid::nil(),
            effective_at: Timestamp(0),
            recorded_at: Timestamp(0),
        };
        self.send(None, &level.location.to_string(), alert_id, &alert).await?;
        Ok(alert_id.to_string())
    }

    async fn stale_redis(&mut self) -> Result<String> {
        let level = self.level(6).await?;
        let key = format!("vorca:stock:{}", level.name());
        let mut write = redis::cmd("HSET");
        write.arg(&key).arg("qty").arg(level.qty + 1_000).arg("version").arg(level.version - 1);
        write.exec_async(&mut self.redis).await?;
        Ok(key)
    }

    async fn clickhouse(&self, sql: &str) -> Result<()> {
        let (url, user, password) = &self.clickhouse;
        let request = self.http.post(url).header("X-ClickHouse-User", user).header("X-ClickHouse-Key", password);
        let answer = request.body(sql.to_owned()).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "ClickHouse: {}", answer.text().await?);
        Ok(())
    }

    /// The same document under another slot: what a sort key with something that changes would keep twice.
    async fn count_twice(&mut self) -> Result<String> {
        let document = self.document(3).await?;
        self.clickhouse(&format!(
            "insert into vorca_raw.documents select * replace (toUInt16(if(slot = 0, 1, slot - 1)) as slot)
               from vorca_raw.documents final where document_id = '{document}'"
        ))
        .await?;
        Ok(document.to_string())
    }

    /// A slice that carries its figures twice, under a version that wins.
    async fn add_to_slice(&mut self) -> Result<String> {
        let location: Uuid = sqlx::query_scalar("select location_id from documents order by location_id desc limit 1")
            .fetch_one(&mut self.pg)
            .await?;
        self.clickhouse(&format!(
            "insert into vorca_raw.mart_sales select * replace (slice_version + 1 as slice_version, arrayConcat(figures, figures) as figures)
               from vorca_raw.mart_sales final where location_id = '{location}' limit 1"
        ))
        .await?;
        Ok(location.to_string())
    }

    /// A day's products twice in their slice, at another location than the slice of sales.
    async fn count_products_twice(&mut self) -> Result<String> {
        let (location, day, currency): (Uuid, chrono::NaiveDate, String) = sqlx::query_as(
            "select location_id, business_date, currency from documents order by location_id, business_date limit 1",
        )
        .fetch_one(&mut self.pg)
        .await?;
        self.clickhouse(&format!(
            "insert into vorca_raw.mart_products select * replace (slice_version + 1 as slice_version, arrayConcat(figures, figures) as figures)
               from vorca_raw.mart_products final where location_id = '{location}' and business_date = '{day}'"
        ))
        .await?;
        Ok(format!("location {location} {day} {currency} product "))
    }

    /// Bytes that nobody can read under the id of an event that is there, and the dead letter about them taken away
    /// again: as if the processor had passed over them.
    async fn swallow(&mut self) -> Result<String> {
        let (topic, group) = (StockMoved::TOPIC, groups::STOCK_PROCESSOR);
        let (key, event): (String, Uuid) = sqlx::query_as(
            "select r.key, r.event_id from outbox o, unnest(o.topics, o.keys, o.event_ids) r(topic, key, event_id)
              where r.topic = $1 order by o.id limit 1",
        )
        .bind(topic.name)
        .fetch_one(&mut self.pg)
        .await?;
        let headers = OwnedHeaders::new().insert(Header { key: "ce_id", value: Some(&event.to_string()) });
        let record = FutureRecord::to(topic.name).key(&key).payload("cut").headers(headers);
        let sent = self.producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
        let letters = dead_letter(topic.name, group.name);
        let end = self.end_above(&letters, sent.partition).await?;
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&letters, sent.partition, Offset::Offset(end))?;
        for partition in self.kafka.delete_records(&all, &AdminOptions::new()).await?.elements() {
            partition.error()?;
        }
        Ok(format!("partition {} offset {} ({event})", sent.partition, sent.offset))
    }

    /// End of a partition once it holds something.
    async fn end_above(&self, topic: &str, partition: i32) -> Result<i64> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (client, topic) = (self.producer.clone(), topic.to_owned());
            let asked = tokio::task::spawn_blocking(move || {
                client.client().fetch_watermarks(&topic, partition, Duration::from_secs(10))
            });
            let (low, high) = asked.await??;
            if high > low {
                return Ok(high);
            }
            ensure!(Instant::now() < deadline, "no dead letter within 30 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
