//! A simulated till: enrolment with a device key, its own numbering, and a journal that is on the
//! disk before anything is sent.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use uuid::Uuid;

use crate::client::{ApiError, Call, Client, Identity, Problem, decode};
use crate::device::DeviceKey;
use crate::journal::{Entry, Journal, Op, sha256_hex};
use crate::wire::{Enrolment, EnrolmentCode, Receipt, Sale};

/// How long a till goes on asking before it leaves a sale unknown.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What became of a sale.
#[derive(Debug)]
pub enum Outcome {
    /// 201, or 200 when an earlier attempt had committed it.
    Sold(Sold),
    /// A final refusal; the numbers may be used by the corrected document.
    Refused(Box<Problem>),
    /// No answer within patience: send the same again later, never a new one.
    Unknown(String),
}

#[derive(Debug)]
pub struct Sold {
    /// Answered from what is stored: 200 with `Idempotency-Replayed: true`.
    pub replayed: bool,
    /// The exact bytes of the answer.
    pub body: Bytes,
}

/// A till with its place in its two series.
pub struct Terminal {
    pub client: Client,
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub register_id: String,
    pub series_epoch: i32,
    /// The number the next committed document takes; a refused one gives it back.
    pub next_terminal_seq: i64,
    pub next_receipt_number: i64,
    journal: Option<Journal>,
}

impl Terminal {
    /// Enrols `key` for a terminal that exists: `office` makes the one-time code, the device uses it.
    pub async fn enrol(
        office: &Client,
        terminal_id: Uuid,
        key: DeviceKey,
        journal: Option<Journal>,
    ) -> anyhow::Result<Terminal> {
        let path = format!("/terminals/{terminal_id}/enrolment-codes");
        let code: EnrolmentCode = office.post(&path, &serde_json::json!({})).await.context("enrolment code")?;
        let device = office.with(Identity::Anonymous);
        let body = serde_json::json!({ "code": code.code, "device_public_key": key.public_base64() });
        let enrolment: Enrolment = device.post("/enrolments", &body).await.context("enrolment")?;
        anyhow::ensure!(enrolment.terminal_id == terminal_id, "enrolled as another terminal");
        Ok(Terminal::at(office, enrolment, key, journal))
    }

    /// Takes an enrolled till up again: its numbers are read back as its own device.
    pub async fn resume(
        office: &Client,
        terminal_id: Uuid,
        key: DeviceKey,
        journal: Option<Journal>,
    ) -> Result<Terminal, ApiError> {
        let client = office.with(Identity::Terminal { terminal_id, key });
        client.token().await?;
        let at: Enrolment = office.get(&format!("/terminals/{terminal_id}")).await?;
        Ok(Terminal::of(client, at, journal))
    }

    /// Takes the till up if its key is enrolled, else enrols it.
    pub async fn resume_or_enrol(
        office: &Client,
        terminal_id: Uuid,
        key: impl Fn() -> anyhow::Result<DeviceKey>,
        journal: Option<Journal>,
    ) -> anyhow::Result<Terminal> {
        match Terminal::resume(office, terminal_id, key()?, journal.clone()).await {
            Ok(terminal) => Ok(terminal),
            Err(ApiError::Refused(problem)) if matches!(problem.status, 401 | 403 | 404) => {
                Terminal::enrol(office, terminal_id, key()?, journal).await
            }
            Err(error) => Err(error).context("till"),
        }
    }

    fn at(office: &Client, enrolment: Enrolment, key: DeviceKey, journal: Option<Journal>) -> Terminal {
        let client = office.with(Identity::Terminal { terminal_id: enrolment.terminal_id, key });
        Terminal::of(client, enrolment, journal)
    }

    fn of(client: Client, at: Enrolment, journal: Option<Journal>) -> Terminal {
        Terminal {
            client,
            terminal_id: at.terminal_id,
            location_id: at.location_id,
            register_id: at.register_id,
            series_epoch: at.series_epoch,
            next_terminal_seq: at.next_terminal_seq,
            next_receipt_number: at.next_receipt_number,
            journal,
        }
    }

    /// Puts this till's location and next numbers into a sale.
    pub fn number(&self, sale: &mut Sale) {
        sale.location_id = self.location_id;
        sale.terminal_seq = self.next_terminal_seq;
        sale.receipt = Receipt { series_epoch: self.series_epoch, number: self.next_receipt_number };
    }

    /// Numbers a sale, sends it under its own id as key until the outcome is known or patience ends,
    /// and moves both series on when it is committed.
    pub async fn sell(&mut self, mut sale: Sale) -> anyhow::Result<Outcome> {
        self.number(&mut sale);
        let key = sale.sale_id.to_string();
        let outcome = self.send(&sale, &key).await?;
        if matches!(outcome, Outcome::Sold(_)) {
            self.next_terminal_seq = sale.terminal_seq + 1;
            self.next_receipt_number = sale.receipt.number + 1;
        }
        Ok(outcome)
    }

    /// Sends a sale as it stands. The attempt is journalled before, the answer after.
    pub async fn send(&self, sale: &Sale, key: &str) -> anyhow::Result<Outcome> {
        let body = Bytes::from(serde_json::to_vec(sale)?);
        self.note(Op::Attempt, sale, key, &body, None).await?;
        let call = Call {
            method: Method::POST,
            path: "/sales",
            body: Some(body.clone()),
            idempotency_key: Some(key),
            if_match: None,
            repeat: true,
        };
        let answer = match self.client.send(&call).await {
            Ok(answer) => answer,
            Err(ApiError::Unknown(what)) => return Ok(Outcome::Unknown(what)),
            Err(ApiError::Refused(problem)) => return Ok(Outcome::Unknown(format!("token: {}", problem.code))),
        };
        if answer.status.is_success() {
            self.note(Op::Ack, sale, key, &body, Some((answer.status, &answer.body))).await?;
            return Ok(Outcome::Sold(Sold { replayed: answer.status == StatusCode::OK, body: answer.body }));
        }
        if answer.is_retryable() || answer.status.is_server_error() {
            return Ok(Outcome::Unknown(format!("{} {}", answer.status.as_u16(), answer.problem().code)));
        }
        self.note(Op::Refused, sale, key, &body, Some((answer.status, &answer.body))).await?;
        Ok(Outcome::Refused(Box::new(answer.problem())))
    }

    /// A committed sale as the API reads it back.
    pub async fn read_back<T: for<'de> Deserialize<'de>>(&self, sale_id: Uuid) -> Result<T, ApiError> {
        let path = format!("/sales/{sale_id}");
        let call =
            Call { method: Method::GET, path: &path, body: None, idempotency_key: None, if_match: None, repeat: true };
        decode(self.client.send(&call).await?)
    }

    async fn note(
        &self,
        op: Op,
        sale: &Sale,
        key: &str,
        body: &[u8],
        answer: Option<(StatusCode, &Bytes)>,
    ) -> anyhow::Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        journal
            .append(&Entry {
                op,
                sale_id: sale.sale_id,
                terminal_id: self.terminal_id,
                terminal_seq: sale.terminal_seq,
                key: key.to_owned(),
                body_hash: sha256_hex(body),
                status: answer.map(|(status, _)| status.as_u16()),
                response_hash: answer.map(|(_, bytes)| sha256_hex(bytes)),
                t: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            })
            .await
    }
}
