//! The KPI definitions of `sinks/kpi/`: named, versioned SQL.

use std::sync::LazyLock;

use super::Slice;

/// What a slice of a mart covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Five minutes of the business day of a location.
    Slot,
    /// The whole business day of a location.
    Day,
}

/// One definition and where it reads and writes.
#[derive(Debug, Clone)]
pub struct Definition {
    pub name: &'static str,
    /// Raised in the file when the meaning changes; replaces every slice once.
    pub version: u16,
    pub grain: Grain,
    /// Mart table in `vorca_raw`.
    pub mart: &'static str,
    /// Raw table it is computed from.
    pub raw: &'static str,
    /// SQL of the slot of a raw row.
    pub slot: &'static str,
    /// SQL of how many rows of `raw` a withdrawn document had.
    pub weight: &'static str,
    /// Query that gives one row per slice; `{slices}` stands for the condition on the slices.
    pub select: String,
}

/// KPIs of sales by slot, cashier and tender.
pub static SALES: LazyLock<Definition> =
    LazyLock::new(|| Definition::parse("sales", "mart_sales", "documents", "1", include_str!("../../kpi/sales.sql")));

/// KPIs of products and variants by day.
pub static PRODUCTS: LazyLock<Definition> = LazyLock::new(|| {
    Definition::parse("products", "mart_products", "lines", "line_count", include_str!("../../kpi/products.sql"))
});

impl Definition {
    /// Reads version and grain from the head of the file.
    ///
    /// # Panics
    /// When the file is not what this binary was built for; a test reads every file.
    fn parse(name: &'static str, mart: &'static str, raw: &'static str, weight: &'static str, file: &str) -> Self {
        let head = |key: &str| {
            let line = file.lines().find_map(|line| line.strip_prefix(&format!("-- {key}: ")));
            line.unwrap_or_else(|| panic!("kpi/{name}.sql does not say its {key}")).trim()
        };
        assert_eq!(head("kpi"), name, "kpi/{name}.sql names another definition");
        let version = head("version").parse().unwrap_or_else(|_| panic!("kpi/{name}.sql: version is no number"));
        let (grain, slot) = match head("grain") {
            "slot" => (Grain::Slot, "slot"),
            "day" => (Grain::Day, "toUInt16(0)"),
            other => panic!("kpi/{name}.sql: unknown grain {other}"),
        };
        assert!(file.contains("{slices}"), "kpi/{name}.sql does not restrict itself to slices");
        let select: Vec<&str> = file.lines().filter(|line| !line.starts_with("--")).collect();
        Definition { name, version, grain, mart, raw, slot, weight, select: select.join("\n") }
    }

    /// The slice of this mart that a document's slot belongs to.
    pub fn slice(&self, slot: Slice) -> Slice {
        match self.grain {
            Grain::Slot => slot,
            Grain::Day => Slice { slot: 0, ..slot },
        }
    }

    /// SQL of the lowest slice version of this definition.
    pub(super) fn version_base(&self) -> String {
        format!("toUInt128('{}')", u128::from(self.version) << 112)
    }

    /// SQL that picks the rows of the slices, along the sort key.
    pub(super) fn condition(&self, slices: &[Slice]) -> String {
        let keys: Vec<String> = match self.grain {
            Grain::Slot => slices
                .iter()
                .map(|s| format!("('{}', toDate32({}), {})", s.location_id, s.business_date, s.slot))
                .collect(),
            Grain::Day => {
                slices.iter().map(|s| format!("('{}', toDate32({}))", s.location_id, s.business_date)).collect()
            }
        };
        match self.grain {
            Grain::Slot => format!("(location_id, business_date, slot) IN ({})", keys.join(", ")),
            Grain::Day => format!("(location_id, business_date) IN ({})", keys.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_reads() {
        assert_eq!((SALES.name, SALES.grain), ("sales", Grain::Slot));
        assert_eq!((PRODUCTS.name, PRODUCTS.grain), ("products", Grain::Day));
    }

    #[test]
    fn a_higher_definition_wins_over_any_data() {
        let base = |version| Definition { version, ..SALES.clone() }.version_base();
        let data_max = (1u128 << 112) - 1;
        assert_eq!(base(2), format!("toUInt128('{}')", (1u128 << 112) + data_max + 1));
    }
}
