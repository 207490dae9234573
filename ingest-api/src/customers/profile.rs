//! What is known of the person behind a member: read and edited in the clear, stored sealed (`crate::privacy`). None of
//! these types shows its content in a log.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use runtime::pg::PgTx;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Member;
use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::customers as members;
use crate::db::profiles as db;
use crate::edits::with_etag;
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, PathId, Valid};
use crate::privacy::{Contact, Digest, Vault};
use crate::{email, phone};

const NOTES_CHARS_MAX: usize = 2_000;
const SOURCE_CHARS_MAX: usize = 40;

/// A way of turning to a person that needs consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Email,
    Sms,
    Phone,
    Post,
    /// Offers made from what was bought.
    Profiling,
}

/// Consent given or withdrawn.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    pub channel: Channel,
    pub is_given: bool,
    pub at: DateTime<Utc>,
    /// Where it was said, as a code of your own: 1 to 40 of `a-z`, `0-9`, `_`, `-`.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
    pub source: String,
}

/// The personal fields of a member.
#[derive(Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Profile {
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub email: Option<String>,
    /// In international form.
    pub phone: Option<String>,
    pub birthday: Option<NaiveDate>,
    pub notes: Option<String>,
    /// The last word on each channel.
    pub consents: Vec<Consent>,
}

/// What becomes known of a person: an absent field stays as it is, null removes it.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileEdit {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub given_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub family_name: Option<Option<String>>,
    /// Kept in lower case.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
    /// In international form, for instance `+49 30 901820`.
    #[serde(default, deserialize_with = "given_phone")]
    #[schema(value_type = Option<String>)]
    pub phone: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<NaiveDate>)]
    pub birthday: Option<Option<NaiveDate>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub notes: Option<Option<String>>,
    /// Each takes the place of what was said about its channel.
    pub consents: Option<Vec<Consent>>,
}

/// Tells null from absent.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

fn given_phone<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<String>>, D::Error> {
    let number = Option::<phone::Phone>::deserialize(reader)?;
    Ok(Some(number.map(|phone::Phone(text)| text)))
}

impl fmt::Debug for ProfileEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProfileEdit")
    }
}

impl ProfileEdit {
    /// Brings every value into its one spelling; `at` is the pointer to the profile.
    pub fn check(&mut self, checks: &mut Checks, at: &str) {
        for (name, text, chars_max) in [
            ("given_name", &mut self.given_name, NAME_CHARS_MAX),
            ("family_name", &mut self.family_name, NAME_CHARS_MAX),
            ("notes", &mut self.notes, NOTES_CHARS_MAX),
        ] {
            checks.text_opt(format_args!("{at}/{name}"), text.as_mut().unwrap_or(&mut None), chars_max);
        }
        check_contact(checks, &format!("{at}/email"), &mut self.email, email::normalised, "is no e-mail address");
        let unusable = "is no telephone number in international form";
        check_contact(checks, &format!("{at}/phone"), &mut self.phone, phone::normalised, unusable);
        if let Some(Some(birthday)) = self.birthday {
            let is_past = birthday.year() >= 1900 && birthday <= Utc::now().date_naive();
            checks.that(is_past, format_args!("{at}/birthday"), "must lie between 1900 and today");
        }
        for (i, consent) in self.consents.iter().flatten().enumerate() {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
            let is_code =
                (1..=SOURCE_CHARS_MAX).contains(&consent.source.len()) && consent.source.bytes().all(is_plain);
            let message = "must be a code of 1 to 40 characters: a to z, 0 to 9, _ and -";
            checks.that(is_code, format_args!("{at}/consents/{i}/source"), message);
            checks.past(format_args!("{at}/consents/{i}/at"), consent.at);
            let earlier = self.consents.iter().flatten().take(i).any(|earlier| earlier.channel == consent.channel);
            checks.that(!earlier, format_args!("{at}/consents/{i}/channel"), "stands twice");
        }
    }

    /// Names of the fields it is about whose present value is another one.
    fn differing(&self, profile: &Profile) -> Vec<&'static str> {
        let after = profile.clone().with(self);
        let (before, after) = (profile.fields(), after.fields());
        FIELDS.iter().copied().filter(|name| value(&before, name) != value(&after, name)).collect()
    }
}

fn check_contact(
    checks: &mut Checks,
    at: &str,
    text: &mut Option<Option<String>>,
    normalised: fn(&str) -> Option<String>,
    message: &str,
) {
    let Some(Some(text)) = text else { return };
    match normalised(text) {
        Some(one) => *text = one,
        None => checks.fail(at, message),
    }
}

impl Body for ProfileEdit {
    fn check(&mut self, checks: &mut Checks) {
        ProfileEdit::check(self, checks, "");
    }
}

/// Every field that is sealed.
const FIELDS: [&str; 7] = ["given_name", "family_name", "email", "phone", "birthday", "notes", "consents"];

type Fields = Vec<(&'static str, Vec<u8>)>;

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(field, _)| *field == name).map(|(_, bytes)| bytes.as_slice())
}

impl Profile {
    /// The profile after an edit.
    pub fn with(mut self, edit: &ProfileEdit) -> Profile {
        fn set<T: Clone>(field: &mut Option<T>, edit: &Option<Option<T>>) {
            if let Some(value) = edit {
                field.clone_from(value);
            }
        }
        set(&mut self.given_name, &edit.given_name);
        set(&mut self.family_name, &edit.family_name);
        set(&mut self.email, &edit.email);
        set(&mut self.phone, &edit.phone);
        set(&mut self.birthday, &edit.birthday);
        set(&mut self.notes, &edit.notes);
        for consent in edit.consents.iter().flatten() {
            self.consents.retain(|known| known.channel != consent.channel);
            self.consents.push(consent.clone());
        }
        self
    }

    /// The profile of two members who are one person: what this one lacks comes from the other; of two words on a
    /// channel the later one counts.
    pub fn filled_from(mut self, other: Profile) -> Profile {
        self.given_name = self.given_name.or(other.given_name);
        self.family_name = self.family_name.or(other.family_name);
        self.email = self.email.or(other.email);
        self.phone = self.phone.or(other.phone);
        self.birthday = self.birthday.or(other.birthday);
        self.notes = self.notes.or(other.notes);
        for consent in other.consents {
            let is_older = |known: &Consent| known.channel == consent.channel && known.at < consent.at;
            self.consents.retain(|known| !is_older(known));
            if !self.consents.iter().any(|known| known.channel == consent.channel) {
                self.consents.push(consent);
            }
        }
        self
    }

    /// The fields there are, as they are sealed.
    fn fields(&self) -> Fields {
        // Plain structs of texts always serialise.
        let bytes = |value: serde_json::Value| value.to_string().into_bytes();
        let text = |text: &Option<String>| text.as_ref().map(|text| bytes(json!(text)));
        let consents = (!self.consents.is_empty()).then(|| bytes(json!(self.consents)));
        let birthday = self.birthday.map(|day| bytes(json!(day)));
        [
            ("given_name", text(&self.given_name)),
            ("family_name", text(&self.family_name)),
            ("email", text(&self.email)),
            ("phone", text(&self.phone)),
            ("birthday", birthday),
            ("notes", text(&self.notes)),
            ("consents", consents),
        ]
        .into_iter()
        .filter_map(|(name, bytes)| Some((name, bytes?)))
        .collect()
    }

    fn set(&mut self, field: &str, bytes: &[u8]) -> serde_json::Result<()> {
        match field {
            "given_name" => self.given_name = serde_json::from_slice(bytes)?,
            "family_name" => self.family_name = serde_json::from_slice(bytes)?,
            "email" => self.email = serde_json::from_slice(bytes)?,
            "phone" => self.phone = serde_json::from_slice(bytes)?,
            "birthday" => self.birthday = serde_json::from_slice(bytes)?,
            "notes" => self.notes = serde_json::from_slice(bytes)?,
            _ => self.consents = serde_json::from_slice(bytes)?,
        }
        Ok(())
    }

    fn contacts(&self) -> impl Iterator<Item = Contact<'_>> {
        let (email, phone) = (self.email.as_deref().map(Contact::Email), self.phone.as_deref().map(Contact::Phone));
        email.into_iter().chain(phone)
    }

    /// What the member can be looked up by.
    pub fn digests(&self, vault: &Vault) -> Vec<Digest> {
        self.contacts().map(|contact| vault.digest(contact)).collect()
    }

    pub fn has(&self, contact: Contact) -> bool {
        self.contacts().any(|known| known == contact)
    }
}

/// 410: there was a person, and nobody can know any more who.
pub fn erased() -> ApiError {
    ApiError::new(StatusCode::GONE, "erased", "the personal data of this member has been erased")
}

/// Opens the profile of a member; empty when nothing is known, 410 when its key was destroyed.
pub async fn open(conn: &mut PgConnection, vault: &Vault, customer: Uuid) -> Result<Profile, ApiError> {
    let stored = db::fields(conn, customer).await?;
    let mut profile = Profile::default();
    if stored.is_empty() {
        return Ok(profile);
    }
    let key = vault.key(customer).await?.ok_or_else(erased)?;
    for field in stored {
        let sealed = crate::privacy::seal::Sealed { nonce: field.nonce, ciphertext: field.ciphertext };
        let is_read = key.open(&field.field, sealed).is_some_and(|bytes| profile.set(&field.field, &bytes).is_ok());
        if !is_read {
            let source = anyhow::anyhow!("field {} of member {customer} does not open", field.field);
            return Err(
                ApiError::unavailable("unavailable", "personal data cannot be read at present").with_source(source)
            );
        }
    }
    Ok(profile)
}

/// Seals what differs from `before` and lets the member be looked up by it. The member is locked; 410 when it was erased.
pub async fn store(
    tx: &mut PgTx,
    vault: &Vault,
    customer: Uuid,
    before: &Profile,
    after: &Profile,
) -> Result<(), ApiError> {
    let key = vault.key_or_new(customer).await?.ok_or_else(erased)?;
    vault.add_lookups(customer, &after.digests(vault)).await?;
    let (before, after) = (before.fields(), after.fields());
    for (name, bytes) in after.iter().filter(|(name, bytes)| value(&before, name) != Some(bytes)) {
        db::put_field(tx, customer, name, key.key_id, &key.seal(name, bytes)).await?;
    }
    let names: Vec<&str> = after.iter().map(|(name, _)| *name).collect();
    Ok(db::keep_fields(tx, customer, &names).await?)
}

/// The member itself, or the one it was merged into.
pub async fn survivor(conn: &mut PgConnection, id: Uuid) -> Result<Member, ApiError> {
    let absent = || ApiError::not_found("member");
    let member = members::find(&mut *conn, id).await?.ok_or_else(absent)?;
    match member.merged_into {
        None => Ok(member),
        Some(survivor) => members::find(conn, survivor).await?.ok_or_else(absent),
    }
}

/// A profile with the member it belongs to.
#[derive(Serialize, ToSchema)]
pub struct MemberProfile {
    /// Of the survivor, where the member was merged.
    pub customer_id: Uuid,
    pub version: i64,
    #[serde(flatten)]
    pub profile: Profile,
}

/// `GET /members/{customer_id}/profile`: audited before it is answered.
pub async fn find_profile(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let vault = app.vault()?;
    let read = app
        .writer
        .write((id, vault, access.principal, context), |tx, (id, vault, who, context)| {
            Box::pin(async move {
                let member = survivor(tx, *id).await?;
                if member.erased_at.is_some() {
                    return Err(erased());
                }
                let profile = open(tx, vault, member.customer_id).await?;
                let target = format!("member/{}", member.customer_id);
                audit::record(tx, context, Entry::done(who, "member.profile.read", target)).await?;
                Ok(MemberProfile { customer_id: member.customer_id, version: member.version, profile })
            })
        })
        .await?;
    with_etag(StatusCode::OK, &read, read.version)
}

/// `PATCH /members/{customer_id}/profile`: a stale edit is told which of its fields differ, not how.
pub async fn edit_profile(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<ProfileEdit>,
) -> Result<Response, ApiError> {
    let vault = app.vault()?;
    let input = (id, if_match, edit, Arc::clone(&vault), access.principal, context);
    let stored = app
        .writer
        .write(input, |tx, (id, if_match, edit, vault, who, context)| {
            Box::pin(async move {
                let id = survivor(tx, *id).await?.customer_id;
                let locked = db::lock(tx, &[id]).await?;
                let member = locked
                    .into_iter()
                    .find(|member| member.customer_id == id)
                    .ok_or_else(|| ApiError::not_found("member"))?;
                if member.erased_at.is_some() {
                    return Err(erased());
                }
                let before = open(tx, vault, id).await?;
                check_version(*if_match, member.version, edit, &before)?;
                let sealed_before = db::fields(&mut **tx, id).await?;
                let profile = before.clone().with(edit);
                store(tx, vault, id, &before, &profile).await?;
                let member = db::raise_version(tx, id).await?;
                // Digests of ciphertext: one of the text itself would tell whoever can guess the text.
                let sealed = db::fields(&mut **tx, id).await?;
                let entry = Entry::done(who, "member.profile.edit", format!("member/{id}"))
                    .states(Some(&sealed_before), &sealed);
                audit::record(tx, context, entry).await?;
                Ok(MemberProfile { customer_id: id, version: member.version, profile })
            })
        })
        .await?;
    drop_old_lookups(&vault, stored.customer_id, &stored.profile).await;
    with_etag(StatusCode::OK, &stored, stored.version)
}

/// After the commit; what stays behind finds nobody, since who is found is compared.
pub async fn drop_old_lookups(vault: &Vault, customer: Uuid, profile: &Profile) {
    if let Err(error) = vault.keep_lookups(customer, &profile.digests(vault)).await {
        tracing::warn!(%error, "lookups that lead nowhere stay in the key store until the next edit");
    }
}

fn check_version(if_match: IfMatch, version: i64, edit: &ProfileEdit, present: &Profile) -> Result<(), ApiError> {
    if if_match.0 == version {
        return Ok(());
    }
    let fields: Vec<_> = edit.differing(present).into_iter().map(|name| json!({ "field": name })).collect();
    let problem =
        ApiError::new(StatusCode::PRECONDITION_FAILED, "stale_version", "the object has changed since it was read");
    Err(problem.with_extra("current_version", version.into()).with_extra("fields", fields.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent(channel: Channel, is_given: bool, day: u32) -> Consent {
        let at = NaiveDate::from_ymd_opt(2026, 1, day).unwrap().and_time(chrono::NaiveTime::MIN).and_utc();
        Consent { channel, is_given, at, source: "till".into() }
    }

    fn profile(name: &str, email: Option<&str>, consents: Vec<Consent>) -> Profile {
        Profile { given_name: Some(name.into()), email: email.map(str::to_owned), consents, ..Profile::default() }
    }

    fn edit(body: serde_json::Value) -> ProfileEdit {
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn an_edit_changes_what_it_names() {
        let before = profile("Anna", Some("a@example.com"), vec![consent(Channel::Email, true, 1)]);
        let change = edit(json!({"email": null, "phone": "+4930901820",
            "consents": [{"channel": "email", "is_given": false, "at": "2026-01-02T00:00:00Z", "source": "web"}]}));
        let after = before.clone().with(&change);
        assert_eq!(
            (after.given_name.as_deref(), &after.email, after.phone.as_deref()),
            (Some("Anna"), &None, Some("+4930901820"))
        );
        assert_eq!((after.consents.len(), after.consents[0].is_given), (1, false));
        assert_eq!(change.differing(&before), ["email", "phone", "consents"]);
        assert!(change.differing(&after).is_empty());
        assert!(!format!("{change:?}").contains("4930"));
    }

    #[test]
    fn fields_are_read_as_they_were_sealed() {
        let mut whole = profile("Änna \"x\"", Some("a@example.com"), vec![consent(Channel::Sms, true, 3)]);
        whole.birthday = NaiveDate::from_ymd_opt(1980, 2, 29);
        whole.notes = Some("likes tea".into());
        let mut read = Profile::default();
        for (name, bytes) in whole.fields() {
            read.set(name, &bytes).unwrap();
        }
        assert!(read == whole);
        assert!(Profile::default().fields().is_empty());
    }

    #[test]
    fn of_two_profiles_the_survivors_counts_and_the_later_word_on_a_channel() {
        let ours = profile("Anna", None, vec![consent(Channel::Email, true, 1), consent(Channel::Sms, true, 9)]);
        let theirs = profile(
            "Ann",
            Some("ann@example.com"),
            vec![consent(Channel::Email, false, 5), consent(Channel::Sms, false, 5), consent(Channel::Post, true, 1)],
        );
        let one = ours.filled_from(theirs);
        assert_eq!((one.given_name.as_deref(), one.email.as_deref()), (Some("Anna"), Some("ann@example.com")));
        let said: Vec<_> = [Channel::Email, Channel::Sms, Channel::Post]
            .map(|channel| one.consents.iter().find(|known| known.channel == channel).unwrap().is_given)
            .into();
        assert_eq!((said, one.consents.len()), (vec![false, true, true], 3));
    }
}
