//! Every query of the analyst guide runs as the analyst.

use crate::world::{analyst, sink};

const GUIDE: &str = include_str!("../../../docs/analysts.md");

fn queries() -> Vec<String> {
    let blocks = GUIDE.split("```sql\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(sql, _)| sql));
    blocks.map(|sql| sql.trim().trim_end_matches(';').to_owned()).collect()
}

#[tokio::test]
async fn every_query_of_the_guide_runs_as_the_analyst() {
    sink();
    let analyst = analyst();
    let queries = queries();
    assert!(queries.len() >= 10, "found {}", queries.len());
    for sql in queries {
        // Counted, so that any shape of result can be read.
        let counted = format!("SELECT count() FROM (\n{sql}\n)");
        if let Err(error) = analyst.fetch::<u64>(&counted).await {
            panic!("{:#}\n{sql}", anyhow::Error::new(error));
        }
    }
}
