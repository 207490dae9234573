//! Reads Prometheus text from the admin ports.

use std::collections::BTreeMap;
use std::time::Duration;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The samples of a Prometheus text; lines that are none are left out.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (head, rest) = match line.find('{') {
        Some(open) => {
            let close = line.rfind('}')?;
            (line[..open].to_owned(), (&line[open + 1..close], &line[close + 1..]))
        }
        None => {
            let (name, value) = line.split_once(' ')?;
            (name.to_owned(), ("", value))
        }
    };
    let (labels, value) = rest;
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: head, labels: parse_labels(labels), value })
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some(end) = after.find('"') else { break };
        labels.insert(name.trim_start_matches(',').trim().to_owned(), after[..end].to_owned());
        rest = &after[end + 1..];
    }
    labels
}

/// The samples of one process; none when it does not answer within three seconds.
pub async fn scrape(http: &reqwest::Client, admin: &str) -> Vec<Sample> {
    let request = http.get(format!("{admin}/metrics")).timeout(Duration::from_secs(3));
    match request.send().await {
        Ok(response) => response.text().await.map(|text| parse(&text)).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Sum over all series of a metric; None when there is none.
pub fn sum(samples: &[Sample], name: &str) -> Option<f64> {
    samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).reduce(|a, b| a + b)
}

/// Highest of all series of a metric; None when there is none.
pub fn max(samples: &[Sample], name: &str) -> Option<f64> {
    samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_with_and_without_labels_are_read() {
        let samples =
            parse("# HELP x y\nx 3\nlag{group=\"a b\",partition=\"1\"} 4.5\nlag{group=\"c\"} 2 17000\n\nbroken{\n");
        assert_eq!(sum(&samples, "x"), Some(3.0));
        assert_eq!(sum(&samples, "lag"), Some(6.5));
        assert_eq!(max(&samples, "lag"), Some(4.5));
        assert_eq!(samples[1].labels["group"], "a b");
        assert_eq!(sum(&samples, "none"), None);
    }
}
