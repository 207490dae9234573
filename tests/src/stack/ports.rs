//! Loopback ports: taken once per run folder, kept in its identity file, below the kernel's range for outgoing connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use anyhow::{Result, bail};
use rand::Rng;

/// Outgoing connections use 32768 and up; a stopped service must find its port still free when it comes back.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;

/// Is nobody listening on this loopback port right now?
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Gives every name a port of its own, keeping those in `kept` that are usable. `taken` are ports of other checkouts.
pub fn assign(names: &[&str], kept: &BTreeMap<String, u16>, taken: &BTreeSet<u16>) -> Result<BTreeMap<String, u16>> {
    let mut ports = BTreeMap::new();
    let mut used: BTreeSet<u16> = taken.clone();
    for name in names {
        if let Some(port) = kept.get(*name).filter(|port| is_free(**port)) {
            ports.insert((*name).to_owned(), *port);
            used.insert(*port);
        }
    }
    let mut rng = rand::rng();
    for name in names {
        if ports.contains_key(*name) {
            continue;
        }
        let Some(port) = (0..5_000).map(|_| rng.random_range(FIRST..LAST)).find(|p| !used.contains(p) && is_free(*p))
        else {
            bail!("no free loopback port between {FIRST} and {LAST}")
        };
        used.insert(port);
        ports.insert((*name).to_owned(), port);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_kept_and_avoid_those_of_other_checkouts() {
        let first = assign(&["a", "b", "c"], &BTreeMap::new(), &BTreeSet::new()).unwrap();
        assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3);
        let again = assign(&["a", "b", "c", "d"], &first, &BTreeSet::new()).unwrap();
        assert!(first.iter().all(|(name, port)| again[name] == *port));
        let busy = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = busy.local_addr().unwrap().port();
        let moved = assign(&["a"], &BTreeMap::from([("a".to_owned(), port)]), &BTreeSet::new()).unwrap();
        assert_ne!(moved["a"], port);
    }
}
