//! What a row of the matrix tried, what came back, and whether that is what had to come. Whatever the row, no answer may
//! be a bug of ours, show anything of the inside, or be a refusal without its form.

use serde::Serialize;

use super::ask::Answer;

/// What no answer may hold: words of the parts behind it, and of its language when it breaks.
const INSIDES: [&str; 18] = [
    "sqlx",
    "postgres",
    "pg_catalog",
    // As it stands in JSON.
    "relation \\\"",
    "syntax error at",
    "violates",
    "clickhouse",
    "code: 62",
    "rdkafka",
    "redis",
    "panicked",
    "backtrace",
    "thread '",
    ".rs:",
    "/src/",
    "rustc",
    "stack overflow",
    "select * from",
];
/// Headers that tell what runs here.
const TELLING: [&str; 3] = ["server", "x-powered-by", "via"];

/// One request, or several that mean something together.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    pub what: String,
    pub came: String,
    /// Why that is not what had to come.
    pub wrong: Option<String>,
}

/// The attempts of one row.
#[derive(Debug, Default)]
pub struct Trial {
    pub attempts: Vec<Attempt>,
}

/// A status and a code that are right; an empty code is any.
pub type Wanted = (u16, &'static str);

impl Trial {
    pub fn note(&mut self, what: impl Into<String>, came: impl Into<String>, wrong: Option<String>) {
        self.attempts.push(Attempt { what: what.into(), came: came.into(), wrong });
    }

    /// The answer has to be one of these.
    pub fn expect(&mut self, what: impl Into<String>, answer: &Answer, wanted: &[Wanted]) {
        let (status, code) = (answer.status, answer.code());
        let is_wanted = wanted.iter().any(|(its, text)| *its == status && (text.is_empty() || *text == code));
        let wrong = inside_out(answer).or_else(|| {
            let wanted: Vec<String> = wanted.iter().map(|(status, code)| format!("{status} {code}")).collect();
            (!is_wanted).then(|| format!("wanted {}; {}", wanted.join(" or "), excerpt(answer)))
        });
        self.note(what, answer.brief(), wrong);
    }

    /// Something else that has to be so.
    pub fn holds(&mut self, what: impl Into<String>, came: impl Into<String>, is_so: bool) {
        self.note(what, came, (!is_so).then(|| "it has to be otherwise".to_owned()));
    }

    /// Nobody can tell these two apart: neither by status and body, nor by the headers there are.
    pub fn alike(&mut self, what: impl Into<String>, one: &Answer, other: &Answer) {
        let (one_seen, other_seen) = (seen(one), seen(other));
        let wrong = inside_out(one).or_else(|| inside_out(other)).or_else(|| {
            (one_seen != other_seen).then(|| format!("they can be told apart: {one_seen:?} and {other_seen:?}"))
        });
        self.note(what, format!("{} for both", one.brief()), wrong);
    }

    pub fn has_held(&self) -> bool {
        !self.attempts.is_empty() && self.attempts.iter().all(|attempt| attempt.wrong.is_none())
    }

    /// Each kind of answer with its number: `401 unauthenticated x12, 200`.
    pub fn came(&self) -> String {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for attempt in &self.attempts {
            match kinds.iter_mut().find(|(kind, _)| *kind == attempt.came) {
                Some((_, count)) => *count += 1,
                None => kinds.push((&attempt.came, 1)),
            }
        }
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|(kind, count)| if count == 1 { kind.to_owned() } else { format!("{kind} x{count}") })
            .collect();
        kinds.join(", ")
    }
}

/// What stands in an answer that must stand in none.
pub fn inside_out(answer: &Answer) -> Option<String> {
    let is_honest = answer.status == 503 && !answer.header("retry-after").is_empty();
    if answer.status >= 500 && !is_honest {
        return Some(format!("a bug of ours: {}", excerpt(answer)));
    }
    if let Some(name) = TELLING.into_iter().find(|name| answer.headers.contains_key(*name)) {
        return Some(format!("the header {name} tells what runs here: {}", answer.header(name)));
    }
    if answer.status < 400 {
        return None;
    }
    // What was sent may come back as a pointer or a value; the words of a refusal are ours.
    let problem = answer.json();
    let words = format!("{} {} {}", problem["title"], problem["detail"], problem["type"]).to_lowercase();
    if let Some(word) = INSIDES.into_iter().find(|word| words.contains(word)) {
        return Some(format!("it shows the inside ({word}): {}", excerpt(answer)));
    }
    let is_problem = answer.header("content-type") == "application/problem+json"
        && problem["code"].is_string()
        && problem["request_id"].as_str().is_some_and(|id| !id.is_empty())
        && problem["status"] == answer.status;
    let is_bodiless = answer.body.is_empty() && answer.header("content-type").is_empty();
    (!is_problem && !is_bodiless).then(|| format!("a refusal without its form: {}", excerpt(answer)))
}

/// What a caller sees of an answer, without what differs from request to request.
fn seen(answer: &Answer) -> (u16, String, Vec<String>) {
    let mut body = answer.json();
    if let Some(members) = body.as_object_mut() {
        members.remove("request_id");
    }
    let mut names: Vec<String> = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort_unstable();
    (answer.status, body.to_string(), names)
}

fn excerpt(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.text().chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::header::{HeaderMap, HeaderValue};
    use serde_json::{Value, json};

    use super::*;

    fn answer(status: u16, body: &Value) -> Answer {
        let kind = if status < 400 { "application/json" } else { "application/problem+json" };
        let headers = HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Answer { status, headers, body: Bytes::from(body.to_string()) }
    }

    fn problem(status: u16, code: &str, detail: &str) -> Answer {
        let body = json!({"status": status, "code": code, "detail": detail, "title": "", "request_id": "1"});
        answer(status, &body)
    }

    #[test]
    fn a_refusal_in_its_form_that_was_wanted_holds_and_any_other_does_not() {
        let held = |answer: &Answer, wanted: &[Wanted]| {
            let mut trial = Trial::default();
            trial.expect("it", answer, wanted);
            trial.has_held()
        };
        let refused = problem(401, "unauthenticated", "no valid credentials");
        assert!(held(&refused, &[(401, "unauthenticated")]) && held(&refused, &[(403, ""), (401, "")]));
        assert!(!held(&refused, &[(401, "locked")]) && !held(&refused, &[(403, "unauthenticated")]));
        for (bad, wanted) in [
            (problem(500, "internal", ""), (500, "internal")),
            (problem(503, "unavailable", ""), (503, "unavailable")),
            (problem(409, "id_conflict", "relation \"sales\" has it"), (409, "id_conflict")),
            (problem(409, "id_conflict", "thread 'main' panicked"), (409, "id_conflict")),
            (answer(404, &json!({"error": "nothing here"})), (404, "")),
        ] {
            assert!(!held(&bad, &[wanted]), "{}", bad.text());
        }
        let mut telling = problem(401, "unauthenticated", "");
        telling.headers.insert("server", HeaderValue::from_static("hyper"));
        assert!(!held(&telling, &[(401, "")]));
        assert!(!Trial::default().has_held(), "nothing tried proves nothing");
    }

    #[test]
    fn answers_that_differ_can_be_told_apart() {
        let alike = |one: &Answer, other: &Answer| {
            let mut trial = Trial::default();
            trial.alike("they", one, other);
            trial.has_held()
        };
        let (one, mut other) = (problem(404, "not_found", "no such sale"), problem(404, "not_found", "no such sale"));
        assert!(alike(&one, &other));
        other.headers.insert("etag", HeaderValue::from_static("\"1\""));
        assert!(!alike(&one, &other));
        assert!(!alike(&one, &problem(404, "not_found", "no such location")));
        assert!(!alike(&one, &problem(403, "not_found", "no such sale")));
    }
}
