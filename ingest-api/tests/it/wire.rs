//! A wire to Postgres that a test can have cut at the next COMMIT.

use std::sync::{Arc, Mutex};

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where the wire is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of the COMMIT.
    BeforeCommit,
    /// The server has committed, nobody hears of it.
    AfterCommit,
}

#[derive(Default)]
struct State {
    /// Armed: the next COMMIT is cut.
    cut: Option<Cut>,
    /// No connection is let through after the cut.
    then_down: bool,
    is_down: bool,
    /// How often it was cut.
    cuts: u32,
}

pub struct Wire {
    /// The same database, over the wire.
    pub options: PgConnectOptions,
    state: Arc<Mutex<State>>,
}

impl Wire {
    pub async fn to(options: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let far = (options.get_host().to_owned(), options.get_port());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if shared.lock().unwrap().is_down {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&far).await else { continue };
                tokio::spawn(carry(near, far, Arc::clone(&shared)));
            }
        });
        Wire { options: options.clone().host("127.0.0.1").port(port), state }
    }

    /// The next COMMIT is cut, and what follows comes through again.
    pub fn arm(&self, cut: Cut) {
        self.state.lock().unwrap().cut = Some(cut);
    }

    /// The next COMMIT is cut, and nothing comes through afterwards.
    pub fn arm_for_good(&self, cut: Cut) {
        let mut state = self.state.lock().unwrap();
        (state.cut, state.then_down) = (Some(cut), true);
    }

    pub fn cuts(&self) -> u32 {
        self.state.lock().unwrap().cuts
    }
}

/// Both ways until one side ends, or the cut.
async fn carry(mut near: TcpStream, mut far: TcpStream, state: Arc<Mutex<State>>) {
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = near.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let cut = if is_commit(&asked[..count]) { take(&state) } else { None };
                if cut == Some(Cut::BeforeCommit) || far.write_all(&asked[..count]).await.is_err() {
                    return;
                }
                if cut == Some(Cut::AfterCommit) {
                    // Its answer is the proof that it was done; it ends here.
                    let _answer = far.read(&mut answered).await;
                    return;
                }
            }
            read = far.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if near.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A simple query `commit`: type, length of what follows, text, zero.
fn is_commit(message: &[u8]) -> bool {
    message == b"Q\0\0\0\x0bcommit\0"
}

fn take(state: &Mutex<State>) -> Option<Cut> {
    let mut state = state.lock().unwrap();
    let cut = state.cut.take();
    if cut.is_some() {
        state.cuts += 1;
        state.is_down = state.then_down;
    }
    cut
}
