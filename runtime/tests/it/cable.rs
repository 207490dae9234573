//! A cable between a client and the broker in which a test can hold everything up: connections stay open and nothing
//! comes through, as with a broker that stands still, while other clients are served.

use std::sync::Arc;

use runtime::config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Cable {
    /// The broker as seen through the cable.
    pub kafka: config::Kafka,
    frozen: Arc<watch::Sender<bool>>,
}

impl Cable {
    /// A cable to a broker that stands on this machine.
    pub async fn to(broker: &config::Kafka) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let (host, port) = broker.brokers.rsplit_once(':').expect("HOST:PORT");
        let advertised = Advertised { host: host.to_owned(), from: port.parse().unwrap(), to: own_port };
        let frozen = Arc::new(watch::Sender::new(false));
        let (far, held) = (broker.brokers.clone(), Arc::clone(&frozen));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&far).await else { continue };
                let ((from_client, to_client), (from_broker, to_broker)) = (near.into_split(), far.into_split());
                tokio::spawn(requests(from_client, to_broker, held.subscribe()));
                tokio::spawn(answers(from_broker, to_client, held.subscribe(), advertised.clone()));
            }
        });
        let kafka = config::Kafka { brokers: format!("{host}:{own_port}"), ..broker.clone() };
        Cable { kafka, frozen }
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

/// What the broker says its address is, and the port that leads through the cable instead.
#[derive(Clone)]
struct Advertised {
    host: String,
    from: u16,
    to: u16,
}

impl Advertised {
    /// In answers a host name stands right before its port, a number of 32 bits.
    fn redirect(&self, answer: &mut [u8]) {
        let address = [self.host.as_bytes(), &u32::from(self.from).to_be_bytes()].concat();
        let mut at = 0;
        while let Some(found) = answer[at..].windows(address.len()).position(|bytes| bytes == address) {
            let port = at + found + self.host.len();
            answer[port..port + 4].copy_from_slice(&u32::from(self.to).to_be_bytes());
            at = port + 4;
        }
    }
}

async fn until_free(held: &mut watch::Receiver<bool>) {
    // The sender is gone when the test has ended: then nobody waits either.
    held.wait_for(|held| !held).await.ok();
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        until_free(&mut held).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
    address: Advertised,
) {
    while let Ok(length) = from.read_u32().await {
        let mut answer = vec![0; length as usize];
        if from.read_exact(&mut answer).await.is_err() {
            return;
        }
        address.redirect(&mut answer);
        until_free(&mut held).await;
        if to.write_u32(length).await.is_err() || to.write_all(&answer).await.is_err() {
            return;
        }
    }
}
