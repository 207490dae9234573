//! From a file to what is sent: rows gathered to documents, documents in the order of their locations and
//! times, and what must exist before. Everything that grows with the file is sorted on disk.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, NaiveDate, Utc};
use schemas::ids::derived_id;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::map::{Constants, Map};
use super::rows::{Reader, Refused, Row, clean, fold, unit_price};
use super::sort::{Entry, Merge, Sorter};
use super::source::Source;

/// Goes up when the same file is read differently: kept plans are made again.
const FORM: u8 = 2;

/// A document of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub document: String,
    pub sale_id: Uuid,
    pub occurred_at: DateTime<Utc>,
    pub customer: Option<String>,
    pub lines: Vec<DocumentLine>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentLine {
    /// Line of the file.
    pub line: u64,
    pub sku: String,
    pub qty: i64,
    pub amount_minor: i64,
    pub discount_minor: i64,
}

impl Document {
    /// What was paid for it.
    pub fn paid_minor(&self) -> i64 {
        self.lines.iter().map(|line| line.amount_minor - line.discount_minor).sum()
    }
}

/// A location met in the file, and where its documents lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub external_id: String,
    pub name: String,
    /// Byte position in the documents file.
    pub offset: u64,
    pub documents: u64,
    pub opened_on: NaiveDate,
}

/// A SKU met in the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    pub sku: String,
    pub name: String,
    pub category: String,
    /// Unit price of its first row, rounded up to a minor unit: the list price of its lines.
    pub price_minor: i64,
    /// Some row has a fraction of a unit.
    pub is_measured: bool,
}

/// A file made ready, kept beside its sorted documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the file, its map and how they are read: another plan is made when any of it changes.
    pub fingerprint: String,
    pub rows: u64,
    pub refused_rows: u64,
    pub documents: u64,
    pub variants: u64,
    pub members: u64,
    pub locations: Vec<Location>,
}

/// The files of an import in its directory.
pub struct Files(pub PathBuf);

impl Files {
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }
    pub fn documents(&self) -> PathBuf {
        self.0.join("documents.jsonl")
    }
    pub fn variants(&self) -> PathBuf {
        self.0.join("variants.jsonl")
    }
    pub fn members(&self) -> PathBuf {
        self.0.join("members.jsonl")
    }
    /// Rows refused before anything was sent.
    pub fn refused_rows(&self) -> PathBuf {
        self.0.join("refused-rows.jsonl")
    }
}

/// The plan of a file: the kept one while file and map are the same.
pub fn find_or_make(file: &Path, map: &Map, map_text: &str, files: &Files) -> anyhow::Result<Plan> {
    let fingerprint = fingerprint(file, map, map_text)?;
    if let Ok(bytes) = std::fs::read(files.plan())
        && let Ok(plan) = serde_json::from_slice::<Plan>(&bytes)
        && plan.fingerprint == fingerprint
    {
        return Ok(plan);
    }
    std::fs::create_dir_all(&files.0)?;
    let plan = make(file, map, fingerprint, files)?;
    crate::endpoints::write_private(&files.plan(), &serde_json::to_vec(&plan)?)?;
    Ok(plan)
}

fn fingerprint(file: &Path, map: &Map, map_text: &str) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    hash.update([FORM]);
    hash.update(map_text.as_bytes());
    for path in std::iter::once(file.to_owned()).chain(master_path(file, map)) {
        let mut source = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = source.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn master_path(file: &Path, map: &Map) -> Option<PathBuf> {
    map.master.as_ref().map(|master| file.with_file_name(&master.file))
}

fn make(file: &Path, map: &Map, fingerprint: String, files: &Files) -> anyhow::Result<Plan> {
    let mut refused = BufWriter::new(File::create(files.refused_rows())?);
    let mut by_document = Sorter::new(&files.0);
    let mut things = Things { sorter: Sorter::new(&files.0), lately: HashSet::new() };
    let (mut rows, mut refused_rows) = (0, 0);
    let mut source = Source::open(file, &map.constants)?;
    let reader = Reader::new(map, &source)?;
    while let Some(raw) = source.next_row()? {
        rows += 1;
        match reader.read(raw) {
            Ok(row) => {
                things.push(&row)?;
                by_document.push(document_key(&row, &map.constants), serde_json::to_vec(&row)?)?;
            }
            Err(row) => {
                refused_rows += 1;
                write_line(&mut refused, &row)?;
            }
        }
    }
    refused.flush()?;
    push_master(&mut things.sorter, file, map)?;
    let by_time = gather(by_document.finish()?, map, &files.0)?;
    let (locations, documents) = write_documents(by_time.finish()?, &map.constants, &files.documents())?;
    let (variants, members) = write_things(things.sorter.finish()?, files)?;
    Ok(Plan { fingerprint, rows, refused_rows, documents, variants, members, locations })
}

fn document_key(row: &Row, constants: &Constants) -> Vec<u8> {
    let day = if constants.documents_restart_daily {
        row.occurred_at.with_timezone(&constants.zone).date_naive().to_string()
    } else {
        String::new()
    };
    // cells carry no control characters, so zero bytes part them
    [row.location.as_bytes(), &[0], row.document.as_bytes(), &[0], day.as_bytes()].concat()
}

/// Things that must exist, sorted by kind and name so that equal ones meet. What was pushed lately is
/// remembered, so that a variant sold a million times does not weigh a million entries.
struct Things {
    sorter: Sorter,
    lately: HashSet<Vec<u8>>,
}

impl Things {
    const REMEMBERED: usize = 200_000;

    fn push(&mut self, row: &Row) -> anyhow::Result<()> {
        let is_measured = row.qty % 1_000 != 0;
        let key = [b"v", row.sku.as_bytes()].concat();
        if self.is_new([&key[..], &[0, u8::from(is_measured)]].concat()) {
            let variant = Variant {
                sku: row.sku.clone(),
                name: row.description.clone(),
                category: row.category.clone(),
                price_minor: i64::try_from(unit_price(row.amount_minor, row.qty))?,
                is_measured,
            };
            self.sorter.push(key, serde_json::to_vec(&variant)?)?;
        }
        if let Some(customer) = &row.customer {
            let key = [b"m", customer.as_bytes()].concat();
            if self.is_new(key.clone()) {
                self.sorter.push(key, Vec::new())?;
            }
        }
        Ok(())
    }

    fn is_new(&mut self, key: Vec<u8>) -> bool {
        if self.lately.len() >= Things::REMEMBERED {
            self.lately.clear();
        }
        self.lately.insert(key)
    }
}

/// Names of the products that a master file knows, to meet the SKUs of the rows.
fn push_master(things: &mut Sorter, file: &Path, map: &Map) -> anyhow::Result<()> {
    let (Some(path), Some(master)) = (master_path(file, map), &map.master) else { return Ok(()) };
    let mut source = Source::open(&path, &map.constants)?;
    let (sku, description) = (source.column(&master.sku)?, source.columns(&master.description)?);
    let category = master.category.as_ref().map(|name| source.column(name)).transpose()?;
    while let Some(raw) = source.next_row()? {
        if raw.broken.is_some() {
            continue;
        }
        let cell = |column: usize| clean(&String::from_utf8_lossy(raw.record.get(column).unwrap_or_default()));
        let name = clean(&description.iter().map(|column| cell(*column)).collect::<Vec<_>>().join(" "));
        let (sku, category) = (fold(&cell(sku)), category.map(cell).unwrap_or_default());
        let variant = Variant { sku: sku.clone(), name, category, price_minor: -1, is_measured: false };
        things.push([b"v", sku.as_bytes()].concat(), serde_json::to_vec(&variant)?)?;
    }
    Ok(())
}

/// Rows in the order of their documents to documents in the order of location and time.
fn gather(rows: Merge, map: &Map, dir: &Path) -> anyhow::Result<Sorter> {
    let mut by_time = Sorter::new(dir);
    for_each_group(rows, |key, rows| {
        let rows: Vec<Row> = rows.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<_, _>>()?;
        let Some(first) = rows.iter().min_by_key(|row| row.occurred_at) else { return Ok(()) };
        let document = Document {
            document: first.document.clone(),
            sale_id: sale_id(&map.name, &key, first.occurred_at),
            occurred_at: first.occurred_at,
            customer: rows.iter().find_map(|row| row.customer.clone()),
            lines: rows
                .iter()
                .map(|row| DocumentLine {
                    line: row.line,
                    sku: row.sku.clone(),
                    qty: row.qty,
                    amount_minor: row.amount_minor,
                    discount_minor: row.discount_minor,
                })
                .collect(),
        };
        let name = rows.iter().map(|row| row.location_name.as_str()).find(|name| !name.is_empty()).unwrap_or("");
        // shifted so that bytes order like numbers, years before 1970 too
        let time = (first.occurred_at.timestamp_micros() as u64 ^ (1 << 63)).to_be_bytes();
        let order = [first.location.as_bytes(), &[0], &time, &key].concat();
        let value = serde_json::to_vec(&(&first.location, name, &document))?;
        by_time.push(order, value)?;
        Ok(())
    })?;
    Ok(by_time)
}

fn write_documents(documents: Merge, constants: &Constants, path: &Path) -> anyhow::Result<(Vec<Location>, u64)> {
    let mut writer = BufWriter::new(File::create(path)?);
    let mut locations: Vec<Location> = Vec::new();
    let (mut offset, mut count) = (0, 0);
    for entry in documents {
        let (_, value) = entry?;
        let (external_id, name, document): (String, String, Document) = serde_json::from_slice(&value)?;
        if locations.last().is_none_or(|last| last.external_id != external_id) {
            let opened_on = document.occurred_at.with_timezone(&constants.zone).date_naive();
            let name = if name.is_empty() { format!("Location {external_id}") } else { name };
            locations.push(Location { external_id, name, offset, documents: 0, opened_on });
        }
        if let Some(location) = locations.last_mut() {
            location.documents += 1;
        }
        offset += write_line(&mut writer, &document)?;
        count += 1;
    }
    writer.flush()?;
    Ok((locations, count))
}

fn write_things(things: Merge, files: &Files) -> anyhow::Result<(u64, u64)> {
    let mut variants = BufWriter::new(File::create(files.variants())?);
    let mut members = BufWriter::new(File::create(files.members())?);
    let (mut variant_count, mut member_count) = (0, 0);
    for_each_group(things, |key, values| {
        if key.first() == Some(&b'm') {
            member_count += 1;
            write_line(&mut members, &String::from_utf8_lossy(&key[1..]))?;
            return Ok(());
        }
        let of_sku: Vec<Variant> =
            values.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<_, _>>()?;
        if let Some(variant) = merged(of_sku) {
            variant_count += 1;
            write_line(&mut variants, &variant)?;
        }
        Ok(())
    })?;
    variants.flush()?;
    members.flush()?;
    Ok((variant_count, member_count))
}

/// One variant of what rows and master say about a SKU; None when only the master knows it.
fn merged(mut all: Vec<Variant>) -> Option<Variant> {
    // the master carries the price -1 and its names win
    all.sort_by_key(|variant| variant.price_minor >= 0);
    let seen = all.iter().find(|variant| variant.price_minor >= 0)?;
    let first = |field: fn(&Variant) -> &String| {
        all.iter().map(field).find(|text| !text.is_empty()).cloned().unwrap_or_default()
    };
    let name = first(|variant| &variant.name);
    Some(Variant {
        sku: seen.sku.clone(),
        name: if name.is_empty() { seen.sku.clone() } else { name },
        category: first(|variant| &variant.category),
        price_minor: seen.price_minor,
        is_measured: all.iter().any(|variant| variant.is_measured),
    })
}

fn for_each_group(
    entries: Merge,
    mut each: impl FnMut(Vec<u8>, Vec<Vec<u8>>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut group: Option<(Vec<u8>, Vec<Vec<u8>>)> = None;
    for entry in entries {
        let (key, value): Entry = entry?;
        match &mut group {
            Some((held, values)) if *held == key => {
                values.push(value);
            }
            _ => {
                if let Some((held, values)) = group.replace((key, vec![value])) {
                    each(held, values)?;
                }
            }
        }
    }
    match group {
        Some((held, values)) => each(held, values),
        None => Ok(()),
    }
}

/// A UUIDv7 that the same document of the same import always gets.
fn sale_id(name: &str, key: &[u8], occurred_at: DateTime<Utc>) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(key);
    let digest = hash.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    let millis = occurred_at.timestamp_millis().max(0) as u64;
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Id of something the import makes: the same for the same import.
pub fn id(map: &Map, kind: &str, key: &str) -> Uuid {
    derived_id(&format!("replay.{kind}"), &format!("{}/{key}", map.name))
}

fn write_line(writer: &mut impl Write, value: &impl Serialize) -> anyhow::Result<u64> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    Ok(line.len() as u64)
}

/// Reads a file of one JSON value per line, from a position on.
pub struct Lines<T> {
    reader: BufReader<File>,
    what: std::marker::PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub fn open(path: &Path, offset: u64) -> anyhow::Result<Lines<T>> {
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Lines { reader: BufReader::new(file), what: std::marker::PhantomData })
    }
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = anyhow::Result<T>;

    fn next(&mut self) -> Option<anyhow::Result<T>> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_slice(&line).map_err(Into::into)),
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// Every refused row of the plan.
pub fn refused_rows(files: &Files) -> anyhow::Result<Lines<Refused>> {
    Lines::open(&files.refused_rows(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rows: &str) -> (tempfile::TempDir, Plan, Vec<Document>, Vec<Variant>) {
        let text = include_str!("../../../maps/completejourney.toml");
        let map = Map::parse(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        std::fs::write(
            &file,
            format!("household_id,store_id,basket_id,product_id,quantity,sales_value,retail_disc,coupon_disc,transaction_timestamp\n{rows}"),
        )
        .unwrap();
        std::fs::write(
            dir.path().join("completejourney-products.csv.gz"),
            "product_id,brand,product_type,package_size,department\n1,Own,Ice,22 LB,FROZEN\n99,Own,Never sold,,X\n",
        )
        .unwrap();
        let files = Files(dir.path().join("work"));
        let plan = find_or_make(&file, &map, text, &files).unwrap();
        let documents = Lines::open(&files.documents(), 0).unwrap().collect::<Result<_, _>>().unwrap();
        let variants = Lines::open(&files.variants(), 0).unwrap().collect::<Result<_, _>>().unwrap();
        (dir, plan, documents, variants)
    }

    const ROWS: &str = "7,2,B,1,1,1.00,0,0,2017-01-02 10:00:00\n\
                        8,1,A,1,1,2.00,0,0,2017-01-03 10:00:00\n\
                        7,2,B,2,0.5,3.00,0.5,0,2017-01-02 10:00:00\n\
                        7,2,C,1,0,0,0,0,2017-01-01 10:00:00\n\
                        ,2,D,1,1,4.00,0,0,2017-01-01 09:00:00\n";

    #[test]
    fn scattered_rows_become_documents_in_the_order_of_location_and_time() {
        let (_dir, plan, documents, variants) = plan(ROWS);
        assert_eq!((plan.rows, plan.refused_rows, plan.documents, plan.variants, plan.members), (5, 1, 3, 2, 2));
        let order: Vec<&str> = documents.iter().map(|document| document.document.as_str()).collect();
        assert_eq!(order, ["A", "D", "B"]);
        assert_eq!(documents[2].lines.iter().map(|line| line.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(documents[2].paid_minor(), 400);
        assert_eq!(plan.locations.iter().map(|l| l.documents).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((variants[0].name.as_str(), variants[0].category.as_str()), ("Own Ice 22 LB", "FROZEN"));
        assert_eq!((variants[1].name.as_str(), variants[1].is_measured, variants[1].price_minor), ("2", true, 700));
    }

    #[test]
    fn the_same_document_gets_the_same_version_7_id_again() {
        let [first, second] = [plan(ROWS).2, plan(ROWS).2];
        assert_eq!(first, second);
        assert!(first.iter().all(|document| document.sale_id.get_version_num() == 7));
    }

    #[test]
    fn an_offset_leads_to_the_documents_of_a_location() {
        let (dir, plan, documents, _) = plan(ROWS);
        let files = Files(dir.path().join("work"));
        let mut lines: Lines<Document> = Lines::open(&files.documents(), plan.locations[1].offset).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), documents[1]);
    }
}
