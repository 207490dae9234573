//! Members by what people say of themselves at the till. In a body, so that no address stands in a log of a proxy; by
//! an HMAC, so that no address stands in a table.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Member, profile};
use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::customers as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};
use crate::phone::Phone;
use crate::privacy::Contact;
use crate::{email, phone};

/// Members of one address, at most: a family, not a company.
const FOUND_MAX: i64 = 20;

/// Exactly one of both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    pub email: Option<String>,
    /// In international form.
    #[schema(value_type = Option<String>)]
    pub phone: Option<Phone>,
}

impl Body for Lookup {
    fn check(&mut self, checks: &mut Checks) {
        checks.that(
            self.email.is_some() != self.phone.is_some(),
            "/email",
            "give an e-mail address or a telephone number",
        );
        if let Some(text) = &mut self.email {
            match email::normalised(text) {
                Some(one) => *text = one,
                None => checks.fail("/email", "is no e-mail address"),
            }
        }
        if let Some(Phone(text)) = &mut self.phone {
            match phone::normalised(text) {
                Some(one) => *text = one,
                None => checks.fail("/phone", "is no telephone number in international form"),
            }
        }
    }
}

/// Who was found; nothing of what is known of them.
#[derive(Serialize, ToSchema)]
pub struct Found {
    /// At most 20, by their ids.
    pub members: Vec<Member>,
}

/// `POST /members/lookup`: audited before it is answered, with who was found and never with what was asked.
pub async fn look_up(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(lookup): Valid<Lookup>,
) -> Result<Response, ApiError> {
    let vault = app.vault()?;
    let contact = match (&lookup.email, &lookup.phone) {
        (Some(email), _) => Contact::Email(email),
        (None, Some(Phone(phone))) => Contact::Phone(phone),
        (None, None) => return Err(ApiError::invalid_value("/email", "give an e-mail address or a telephone number")),
    };
    let candidates = vault.find(&vault.digest(contact), FOUND_MAX).await?;
    let mut conn = app.reads.acquire().await?;
    let mut members = Vec::new();
    for id in candidates {
        let Some(member) = db::find(&mut *conn, id).await?.filter(|member| member.erased_at.is_none()) else {
            continue;
        };
        // A digest may be left over from an earlier address.
        if profile::open(&mut conn, &vault, id).await?.has(contact) {
            members.push(member);
        }
    }
    drop(conn);
    let mut targets: Vec<String> = members.iter().map(|member| format!("member/{}", member.customer_id)).collect();
    if targets.is_empty() {
        targets.push("members".to_owned());
    }
    app.writer
        .write((targets, access.principal, context), |tx, (targets, who, context)| {
            Box::pin(async move {
                for target in targets {
                    audit::record(tx, context, Entry::done(who, "member.lookup", target.clone())).await?;
                }
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    json_response(StatusCode::OK, &Found { members })
}
