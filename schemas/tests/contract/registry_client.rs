//! What the client makes of a registry that fails: unavailable is asked again, unknown is malformed, and what
//! was learnt is never asked twice. The server here answers from a script; the real one is in `registry.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemas::codec::{Codec, DecodeError, encode, frame};
use schemas::events::StockMoved;
use schemas::registry::{Registry, RegistryError, register_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::golden::examples;
use crate::newest;

/// Answers request after request with the given status and body; the last one for ever.
async fn scripted(answers: Vec<(u16, String)>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let (status, body) = &answers[turn.min(answers.len() - 1)];
            let mut request = [0; 65_536];
            let _read = socket.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            let _written = socket.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await;
        }
    });
    (url, asked)
}

fn movement() -> (StockMoved, Vec<u8>) {
    schemas::codec::init();
    let (event, _) = examples::<StockMoved>(1).remove(0);
    let framed = frame(7, &encode(&event));
    (event, framed)
}

fn found() -> (u16, String) {
    (200, serde_json::json!({ "schema": newest::<StockMoved>() }).to_string())
}

#[tokio::test]
async fn a_failing_registry_is_asked_again_and_a_known_id_never() {
    let (event, framed) = movement();
    let broken = |status| (status, r#"{"error_code":50001,"message":"store"}"#.to_owned());
    let (url, asked) = scripted(vec![broken(500), broken(503), (200, "<html>".to_owned()), found()]).await;
    let codec = Codec::new(&url);
    for _ in 0..3 {
        let outcome = codec.decode::<StockMoved>(&framed).await;
        assert!(matches!(outcome, Err(DecodeError::Unavailable(_))), "{outcome:?}");
    }
    for _ in 0..3 {
        assert_eq!(codec.decode::<StockMoved>(&framed).await, Ok(event.clone()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_id_the_registry_does_not_know_is_malformed_but_not_remembered() {
    let (event, framed) = movement();
    let unknown = (404, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned());
    let (url, _) = scripted(vec![unknown, found()]).await;
    let codec = Codec::new(&url);
    let outcome = codec.decode::<StockMoved>(&framed).await;
    assert_eq!(outcome, Err(DecodeError::Malformed("unknown schema id 7".to_owned())));
    assert_eq!(codec.decode::<StockMoved>(&framed).await, Ok(event));
    let negative = codec.decode::<StockMoved>(&frame(-1, &[])).await;
    assert_eq!(negative, Err(DecodeError::Malformed("unknown schema id -1".to_owned())));
}

#[tokio::test]
async fn a_404_of_some_other_server_is_no_verdict_on_the_record() {
    let (_, framed) = movement();
    let (url, _) = scripted(vec![(404, "<h1>Not Found</h1>".to_owned())]).await;
    let outcome = Codec::new(&url).decode::<StockMoved>(&framed).await;
    assert!(matches!(outcome, Err(DecodeError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn an_absent_registry_is_unavailable_and_the_error_says_where_to_look() {
    let (_, framed) = movement();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let outcome = Codec::new(&url).decode::<StockMoved>(&framed).await;
    assert!(matches!(outcome, Err(DecodeError::Unavailable(_))), "{outcome:?}");
    let error = register_all(&url).await.expect_err("nobody listens");
    let text = error.to_string();
    assert!(text.contains(&url) && text.contains("VORCA__REGISTRY__URL"), "{text}");
}

#[tokio::test]
async fn answers_that_are_none_are_errors_not_panics() {
    schemas::codec::init();
    for (status, body) in [(200, "[]"), (200, "{\"id\":\"seven\"}"), (422, "{}"), (302, ""), (200, "")] {
        let (url, _) = scripted(vec![(status, body.to_owned())]).await;
        let outcome = Registry::new(&url).register("s-value", "\"string\"").await;
        assert!(outcome.is_err(), "{status} {body}: {outcome:?}");
    }
    let (url, _) = scripted(vec![(409, r#"{"error_code":409,"message":"Incompatible"}"#.to_owned())]).await;
    let refused = Registry::new(&url).register("s-value", "\"string\"").await.expect_err("a conflict");
    assert!(matches!(&refused, RegistryError::Incompatible { subject, .. } if subject == "s-value"), "{refused:?}");
}
