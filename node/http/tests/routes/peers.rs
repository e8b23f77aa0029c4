//! The listener for other nodes, and the way to it, over real sockets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unisondb_api::peer::ask::{MESSAGE_BYTES, PROTOCOL};
use unisondb_api::peer::{Ask, Asked, GroupId, Link, Told, envelope};
use unisondb_api::{PeerError, Respond};
use unisondb_http::{Connections, serve_peers};
use unisondb_platform::real::{self, TcpDial};
use unisondb_types::{LineageId, Namespace};

/// Says back what lies behind a question, and refuses what is none.
struct Echo;

impl Respond for Echo {
    fn respond(&self, message: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>> {
        Box::pin(async move {
            match envelope::decode::<Asked>(message) {
                Ok((asked, _)) if asked.ask == Ask::Who => std::future::pending().await,
                Ok((_, rest)) => envelope::encode(&Told::Raft, |out| out.extend_from_slice(&rest)),
                Err(e) => envelope::encode(&Told::Refused(e.to_string()), |_| ()),
            }
        })
    }
}

fn asked(ask: Ask) -> Asked {
    Asked {
        protocol: PROTOCOL,
        cluster: None,
        ask,
    }
}

fn raft() -> Asked {
    asked(Ask::Raft {
        group: GroupId {
            namespace: Namespace::cluster(),
            lineage: LineageId::from_bytes([1; 16]),
        },
        to: 7,
    })
}

fn link(address: &str) -> Link {
    Link::new(
        address.to_owned(),
        Arc::new(TcpDial),
        real::platform().clock,
    )
}

fn listen(listener: TcpListener) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        serve_peers(
            vec![listener],
            Arc::new(Echo),
            None,
            Connections::default(),
            async { drop(stopped.await) },
        )
        .await;
    });
    (stop, task)
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    (listener, at)
}

#[tokio::test]
async fn many_questions_go_over_one_connection_at_once() {
    let (listener, at) = listener().await;
    let (stop, task) = listen(listener);
    let link = link(&at);
    // One that is never answered holds nobody up.
    let stuck = tokio::spawn({
        let link = link.clone();
        async move { link.ask(&asked(Ask::Who), b"").await }
    });
    let mut all = tokio::task::JoinSet::new();
    for n in 0..200usize {
        let link = link.clone();
        all.spawn(async move {
            let rest = vec![n.to_le_bytes()[0]; n * 1_000];
            let (told, back) = link.ask(&raft(), &rest).await.unwrap();
            assert!(told == Told::Raft && back == rest);
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert!(!stuck.is_finished());
    stuck.abort();
    drop(stuck.await);
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_message_past_the_limit_is_refused_and_the_connection_goes_on() {
    let (listener, at) = listener().await;
    let (_stop, _task) = listen(listener);
    let link = link(&at);
    let long = vec![0; MESSAGE_BYTES];
    let error = link.ask(&raft(), &long).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Lost(why) if why.contains("413")),
        "{error}"
    );
    let (told, _) = link.ask(&raft(), b"short").await.unwrap();
    assert_eq!(told, Told::Raft);
}

#[tokio::test]
async fn who_is_gone_is_said_at_once_and_found_again_when_back() {
    let (listener, at) = listener().await;
    let socket = listener.local_addr().unwrap();
    let (stop, task) = listen(listener);
    let link = link(&at);
    link.ask(&raft(), b"").await.unwrap();
    stop.send(()).unwrap();
    task.await.unwrap();
    loop {
        // Whether the end of the connection has been seen yet decides which of the two it is.
        match link.ask(&raft(), b"").await.unwrap_err() {
            PeerError::Unreachable(why) => {
                assert!(why.contains(&at), "{why}");
                break;
            }
            PeerError::Lost(_) => tokio::task::yield_now().await,
        }
    }
    let _back = listen(TcpListener::bind(socket).await.unwrap());
    let found = async {
        while link.ask(&raft(), b"").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found)
        .await
        .unwrap();
}
