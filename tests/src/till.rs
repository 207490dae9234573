//! `./dev till`: enrols a fresh terminal through the public API and prints what a developer needs to sell
//! with it.

use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use uuid::Uuid;

use crate::client::Client;
use crate::demo::owner;
use crate::device::DeviceKey;
use crate::endpoints::Endpoints;
use crate::terminal::Terminal;
use crate::wire::{Grant, Location, NewTerminal, NewUser};

/// A till ready to sell.
pub struct Till {
    pub terminal: Terminal,
    pub location: Location,
    pub cashier_id: Uuid,
    /// PKCS#8 PEM of its private key.
    pub key_file: PathBuf,
}

/// Makes a terminal at the location with this name or external id (the first one without), and a cashier
/// who may sell there.
pub async fn make(endpoints: &Endpoints, location: Option<&str>) -> anyhow::Result<Till> {
    let owner = owner(endpoints)?;
    let location = find_location(&owner, location).await?;
    let cashier_id = cashier(&owner, &location).await.context("cashier")?;
    let terminal_id = Uuid::now_v7();
    let name = &terminal_id.simple().to_string()[24..];
    let body = NewTerminal {
        terminal_id,
        location_id: location.location_id,
        register_id: format!("D-{name}"),
        name: format!("Developer {name}"),
    };
    owner.post::<serde_json::Value>("/terminals", &body).await.context("terminal")?;
    let key = DeviceKey::generate()?;
    let key_file = endpoints.run_dir.join("tills").join(format!("{terminal_id}.pem"));
    key.write_pem(&key_file)?;
    let terminal = Terminal::enrol(&owner, terminal_id, key, None).await?;
    Ok(Till { terminal, location, cashier_id, key_file })
}

async fn find_location(owner: &Client, wanted: Option<&str>) -> anyhow::Result<Location> {
    let locations: Vec<Location> = owner.list("/locations").await.context("locations")?;
    let is_it = |location: &Location| wanted.is_none_or(|text| location.name == text || location.external_id == text);
    let names: Vec<String> = locations.iter().take(30).map(|location| location.name.clone()).collect();
    locations.into_iter().find(is_it).with_context(|| match wanted {
        Some(wanted) => format!("no location {wanted}; there are {}", names.join(", ")),
        None => "there is no location yet: ./dev up makes some".to_owned(),
    })
}

async fn cashier(owner: &Client, location: &Location) -> anyhow::Result<Uuid> {
    #[derive(Deserialize)]
    struct User {
        user_id: Uuid,
        grants: Vec<Grant>,
    }
    let here = Grant { role: "cashier".to_owned(), location_id: Some(location.location_id) };
    let users: Vec<User> = owner.list("/users").await?;
    if let Some(user) = users.into_iter().find(|user| user.grants.contains(&here)) {
        return Ok(user.user_id);
    }
    let user_id = Uuid::now_v7();
    let code = format!("D-{}", &user_id.simple().to_string()[22..]);
    let user = NewUser { user_id, login: code.to_lowercase(), code, password: None, grants: vec![here] };
    owner.post::<serde_json::Value>("/users", &user).await?;
    Ok(user_id)
}

impl Till {
    /// Shell exports: what `docs/first-sale.sh` and `docs/terminal-token.sh` read.
    pub fn exports(&self, endpoints: &Endpoints) -> Vec<(&'static str, String)> {
        vec![
            ("VORCA_URL", endpoints.api.clone()),
            ("VORCA_TERMINAL_ID", self.terminal.terminal_id.to_string()),
            ("VORCA_DEVICE_KEY", self.key_file.display().to_string()),
            ("VORCA_LOCATION_ID", self.location.location_id.to_string()),
            ("VORCA_CURRENCY", self.location.currency.clone()),
            ("VORCA_CASHIER_ID", self.cashier_id.to_string()),
            ("VORCA_SERIES_EPOCH", self.terminal.series_epoch.to_string()),
            ("VORCA_NEXT_TERMINAL_SEQ", self.terminal.next_terminal_seq.to_string()),
            ("VORCA_NEXT_RECEIPT_NUMBER", self.terminal.next_receipt_number.to_string()),
        ]
    }

    /// Prints it: exports to standard output, words for people to standard error, so that
    /// `eval "$(./dev till)"` does both.
    pub fn print(&self, endpoints: &Endpoints) {
        let at = &self.terminal;
        eprintln!(
            "A till at {} ({}, {}), enrolled with its own device key:",
            self.location.name, self.location.currency, self.location.time_zone
        );
        eprintln!("  API                  {}/api/v1   try it: {}/docs", endpoints.api, endpoints.api);
        eprintln!("  terminal             {}", at.terminal_id);
        eprintln!("  next terminal_seq    {}", at.next_terminal_seq);
        eprintln!("  next receipt number  {} (series epoch {})", at.next_receipt_number, at.series_epoch);
        eprintln!("  device key           {}", self.key_file.display());
        eprintln!("  a token, renewed     sh docs/terminal-token.sh   (10 minutes each; signs with the device key)");
        eprintln!("  sell                 eval \"$(./dev till)\" && sh docs/first-sale.sh\n");
        for (name, value) in self.exports(endpoints) {
            // values are ids, addresses and paths of ours: none holds a quote
            println!("export {name}='{value}'");
        }
    }
}
