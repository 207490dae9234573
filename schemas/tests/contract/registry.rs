//! The real registry. Its URL comes from `VORCA__REGISTRY__URL`; subjects are named at random, so runs do not
//! meet each other.

use schemas::codec::{Codec, DecodeError, Record, SUBJECTS, encode, frame, subject};
use schemas::events::{Cashier, StockMoved};
use schemas::registry::{Registry, RegistryError, register_all};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::golden::examples;
use crate::newest;

fn url() -> String {
    schemas::codec::init();
    std::env::var("VORCA__REGISTRY__URL").expect("VORCA__REGISTRY__URL names the schema registry: run ./dev test")
}

fn own_subject() -> String {
    format!("test.{}-value", Uuid::new_v4())
}

fn changed<E: Record>(change: impl FnOnce(&mut Vec<Value>)) -> String {
    let mut schema: Value = serde_json::from_str(newest::<E>()).expect("a schema file is JSON");
    change(schema["fields"].as_array_mut().expect("fields"));
    schema.to_string()
}

#[tokio::test]
async fn registering_again_gives_the_same_ids_and_producers_find_them() {
    let url = url();
    let pinned = register_all(&url).await.expect("registered");
    assert_eq!(pinned.len(), SUBJECTS.iter().map(|one| one.versions.len()).sum::<usize>(), "each version of each");
    assert_eq!(register_all(&url).await.expect("registered again"), pinned);
    let codec = Codec::new(&url);
    let mine = pinned.iter().find(|one| one.subject == subject(&StockMoved::TOPIC)).expect("movements are pinned");
    assert_eq!((mine.schema_version, Ok(mine.schema_id)), (1, codec.schema_id::<StockMoved>().await));
    let (event, _) = examples::<StockMoved>(1).remove(0);
    let framed = frame(mine.schema_id, &encode(&event));
    assert_eq!(Codec::new(&url).decode::<StockMoved>(&framed).await, Ok(event));
    let wrong = Codec::new(&url).decode::<Cashier>(&framed).await;
    assert!(matches!(wrong, Err(DecodeError::Malformed(_))), "{wrong:?}");
}

#[tokio::test]
async fn an_incompatible_change_is_refused_and_changes_nothing() {
    let url = url();
    register_all(&url).await.expect("FULL_TRANSITIVE is set");
    let (registry, subject) = (Registry::new(&url), own_subject());
    let id = registry.register(&subject, newest::<Cashier>()).await.expect("the first version");
    let breaking = [
        (
            "removed field without a default",
            changed::<Cashier>(|fields| {
                fields.push(json!({"name": "added", "type": "long"}));
            }),
        ),
        (
            "retyped field",
            changed::<Cashier>(|fields| {
                fields[0]["type"] = json!("string");
                fields[0]["default"] = json!("");
            }),
        ),
        (
            "nullable field",
            changed::<Cashier>(|fields| {
                fields[0]["type"] = json!(["null", "long"]);
                fields[0]["default"] = Value::Null;
            }),
        ),
    ];
    for (what, schema) in breaking {
        assert_eq!(registry.compatible(&subject, &schema).await, Ok(false), "{what}");
        let error = registry.register(&subject, &schema).await.expect_err(what);
        assert!(matches!(&error, RegistryError::Incompatible { subject: named, .. } if *named == subject), "{error:?}");
        assert!(error.to_string().contains("add one with a default"), "{error}");
        assert!(matches!(registry.id_of(&subject, &schema).await, Err(RegistryError::NotRegistered { .. })));
    }
    assert_eq!(registry.id_of(&subject, newest::<Cashier>()).await, Ok(id));
}

#[tokio::test]
async fn an_added_field_is_accepted_and_old_readers_go_on() {
    let url = url();
    register_all(&url).await.expect("FULL_TRANSITIVE is set");
    let (registry, subject) = (Registry::new(&url), own_subject());
    let old = registry.register(&subject, newest::<Cashier>()).await.expect("the first version");
    let later = changed::<Cashier>(|fields| fields.push(json!({"name": "added", "type": "long", "default": 3})));
    assert_eq!(registry.compatible(&subject, &later).await, Ok(true));
    let new = registry.register(&subject, &later).await.expect("a field with a default may be added");
    assert_ne!(old, new);
    assert_eq!(registry.register(&subject, newest::<Cashier>()).await, Ok(old), "ids are stable");
    let (event, _) = examples::<Cashier>(1).remove(0);
    let written = [encode(&event), vec![10]].concat();
    assert_eq!(Codec::new(&url).decode::<Cashier>(&frame(new, &written)).await, Ok(event));
}

#[tokio::test]
async fn an_unknown_id_is_malformed() {
    let outcome = Codec::new(&url()).decode::<Cashier>(&frame(i32::MAX, &[])).await;
    assert_eq!(outcome, Err(DecodeError::Malformed(format!("unknown schema id {}", i32::MAX))));
}
