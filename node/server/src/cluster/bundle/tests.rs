//! Bundles over a connection in memory and a clock that is moved by hand: nothing here waits for real time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use unisondb_api::Respond;
use unisondb_api::peer::{GroupId, Haste, Peer as _, envelope};
use unisondb_http::{Connections, serve_peers};
use unisondb_platform::memory::MemoryClock;
use unisondb_platform::{Dial, Dialled, Listener};
use unisondb_types::{LineageId, Namespace};

use super::*;
use crate::cluster::ways::{Book, Ways};

/// Members on the one other node: what each does with a message.
const ECHO: u64 = 1;
const OTHER_ECHO: u64 = 2;
const STALLED: u64 = 3;
const STRANGER: u64 = 4;

/// Connections to that node.
struct Wire(mpsc::Sender<DuplexStream>);

impl Dial for Wire {
    fn dial<'a>(&'a self, _: &'a str) -> Dialled<'a> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(1 << 16);
            self.0.send(far).await.unwrap();
            Ok(Box::new(near) as Box<dyn unisondb_platform::Stream>)
        })
    }
}

struct Door(tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>);

impl Listener for Door {
    type Stream = DuplexStream;

    async fn accept(&self) -> std::io::Result<(DuplexStream, SocketAddr)> {
        let stream = self.0.lock().await.recv().await;
        Ok((stream.unwrap(), ([127, 0, 0, 1], 1).into()))
    }

    fn address(&self) -> std::io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 2).into())
    }
}

/// The other node: what came, as the number of parts of each message, 0 for one that went by itself.
struct Node {
    clock: MemoryClock,
    came: Mutex<Vec<usize>>,
}

async fn member(to: u64, message: Bytes) -> Result<(Told, Bytes), String> {
    match to {
        STALLED => std::future::pending().await,
        STRANGER => Err("no such member".to_owned()),
        _ => Ok((Told::Raft, [b"to ", &message[..]].concat().into())),
    }
}

impl Respond for Node {
    fn respond(&self, message: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>> {
        Box::pin(async move {
            let (asked, rest) = envelope::decode::<Asked>(message).unwrap();
            let (told, rest) = match asked.ask {
                Ask::Several => {
                    let parts = parts::take::<Ask>(rest.clone()).unwrap().len();
                    self.came.lock().push(parts);
                    let told = answer(&self.clock, rest, |_, to, message| member(to, message));
                    (Told::Several, told.await.unwrap())
                }
                Ask::Raft { to, .. } => {
                    self.came.lock().push(0);
                    member(to, rest).await.unwrap()
                }
                other => unreachable!("{other:?}"),
            };
            envelope::encode(&told, |out| out.extend_from_slice(&rest))
        })
    }
}

struct Rig {
    ways: Ways,
    clock: MemoryClock,
    node: Arc<Node>,
}

fn rig() -> Rig {
    let clock = MemoryClock::default();
    let (dialled, taken) = mpsc::channel(1);
    let ways = Ways::new(Arc::new(Wire(dialled)), Arc::new(clock.clone()));
    let members = [ECHO, OTHER_ECHO, STALLED, STRANGER];
    ways.turn_to(Book {
        addresses: members.map(|id| (id, "other:1".to_owned())).into(),
        members: BTreeMap::new(),
    });
    let node = Arc::new(Node {
        clock: clock.clone(),
        came: Mutex::default(),
    });
    let respond = node.clone();
    tokio::spawn(async move {
        let doors = vec![Door(taken.into())];
        let never = std::future::pending();
        serve_peers(doors, respond, None, Connections::default(), never).await;
    });
    Rig { ways, clock, node }
}

fn group() -> GroupId {
    GroupId {
        namespace: Namespace::cluster(),
        lineage: LineageId::from_bytes([1; 16]),
    }
}

impl Rig {
    async fn call(&self, to: u64, message: &'static str, haste: Haste) -> Result<Bytes, PeerError> {
        self.ways.call(&group(), to, message.into(), haste).await
    }

    /// Lets time pass, a millisecond whenever everybody waits, until `done` is.
    async fn while_time_passes<T>(&self, done: impl Future<Output = T>) -> T {
        let passing = async {
            loop {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                self.clock.advance(Duration::from_millis(1));
            }
        };
        tokio::select! {
            biased;
            done = done => done,
            () = passing => unreachable!("it goes on"),
        }
    }
}

#[tokio::test]
async fn what_comes_within_the_wait_goes_as_one_and_each_gets_its_own_answer() {
    let rig = rig();
    let calls = async {
        tokio::join!(
            rig.call(ECHO, "a", Haste::Soon),
            rig.call(OTHER_ECHO, "b", Haste::Soon),
            rig.call(ECHO, "c", Haste::Soon),
        )
    };
    let (a, b, c) = rig.while_time_passes(calls).await;
    assert_eq!(
        (a.unwrap(), b.unwrap(), c.unwrap()),
        ("to a".into(), "to b".into(), "to c".into())
    );
    assert_eq!(*rig.node.came.lock(), [3]);
    // What comes later goes later.
    let later = rig
        .while_time_passes(rig.call(ECHO, "d", Haste::Soon))
        .await;
    assert_eq!(later.unwrap(), "to d");
    assert_eq!(*rig.node.came.lock(), [3, 1]);
}

#[tokio::test]
async fn what_is_urgent_waits_for_no_bundle() {
    let rig = rig();
    let soon = rig.call(ECHO, "soon", Haste::Soon);
    // No time passes at all.
    let now = tokio::select! {
        biased;
        _ = soon => unreachable!("it waits"),
        now = rig.call(OTHER_ECHO, "now", Haste::Now) => now,
    };
    assert_eq!(now.unwrap(), "to now");
    assert_eq!(*rig.node.came.lock(), [0]);
}

#[tokio::test]
async fn a_part_that_stalls_fails_alone_and_holds_the_others_up_for_a_bounded_time() {
    let rig = rig();
    let begun = rig.clock.monotonic();
    let calls = async {
        tokio::join!(
            rig.call(ECHO, "a", Haste::Soon),
            rig.call(STALLED, "b", Haste::Soon),
            rig.call(ECHO, "c", Haste::Soon),
        )
    };
    let (a, b, c) = rig.while_time_passes(calls).await;
    assert_eq!((a.unwrap(), c.unwrap()), ("to a".into(), "to c".into()));
    assert!(
        matches!(&b, Err(PeerError::Lost(why)) if why.contains("in time")),
        "{b:?}"
    );
    let took = rig.clock.monotonic() - begun;
    assert!(
        took >= PART && took < Duration::from_millis(250),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_part_that_is_refused_fails_alone() {
    let rig = rig();
    let calls = async {
        tokio::join!(
            rig.call(STRANGER, "a", Haste::Soon),
            rig.call(ECHO, "b", Haste::Soon),
        )
    };
    let (a, b) = rig.while_time_passes(calls).await;
    assert!(
        matches!(&a, Err(PeerError::Unreachable(why)) if why.contains("no such member")),
        "{a:?}"
    );
    assert_eq!(b.unwrap(), "to b");
    assert_eq!(*rig.node.came.lock(), [2]);
}

#[tokio::test]
async fn who_no_longer_waits_has_taken_its_message_back() {
    let rig = rig();
    let mut gone = Box::pin(rig.call(ECHO, "gone", Haste::Soon));
    let calls = async {
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        rig.call(ECHO, "stays", Haste::Soon).await
    };
    assert_eq!(rig.while_time_passes(calls).await.unwrap(), "to stays");
    assert_eq!(*rig.node.came.lock(), [1]);
}

#[tokio::test]
async fn what_does_not_fit_a_bundle_goes_by_itself() {
    let rig = rig();
    let long: &'static str = "x".repeat(BYTES / 2).leak();
    let calls = async {
        tokio::join!(
            rig.call(ECHO, long, Haste::Soon),
            rig.call(ECHO, long, Haste::Soon),
        )
    };
    let (a, b) = rig.while_time_passes(calls).await;
    assert!(a.unwrap().len() == b.unwrap().len());
    assert_eq!(*rig.node.came.lock(), [0, 1]);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_fails_all_of_a_bundle() {
    struct Deaf;
    impl Dial for Deaf {
        fn dial<'a>(&'a self, _: &'a str) -> Dialled<'a> {
            Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
        }
    }
    let rig = rig();
    let clock = rig.clock.clone();
    let bundles = Bundles::new(Arc::new(clock.clone()));
    let link = Link::new("nobody:1".to_owned(), Arc::new(Deaf), Arc::new(clock));
    let (ask, message) = (
        Ask::Raft {
            group: group(),
            to: ECHO,
        },
        Bytes::from("x"),
    );
    let both = async {
        tokio::join!(
            bundles.ask(&link, None, &ask, &message),
            bundles.ask(&link, None, &ask, &message),
        )
    };
    let (a, b) = rig.while_time_passes(both).await;
    for told in [a, b] {
        assert!(
            matches!(told, Some(Err(PeerError::Unreachable(_)))),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn a_bundle_in_a_bundle_or_anything_but_a_groups_message_is_refused_in_words() {
    let clock = MemoryClock::default();
    let mut rest = BytesMut::new();
    parts::put(&Ask::Several, b"", &mut rest);
    parts::put(&Ask::Who, b"", &mut rest);
    parts::put(
        &Ask::Raft {
            group: group(),
            to: ECHO,
        },
        b"x",
        &mut rest,
    );
    let told = answer(&clock, rest.freeze(), |_, to, message| member(to, message)).await;
    let told = parts::take::<Told>(told.unwrap()).unwrap();
    let refused = Told::Refused("only messages of groups go together".to_owned());
    let refused = (refused, Bytes::new());
    assert_eq!(
        told,
        [refused.clone(), refused, (Told::Raft, "to x".into())]
    );

    for bad in [
        &b"\xff"[..],
        &[0xff; 64],
        &[4, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let bad = Bytes::copy_from_slice(bad);
        let told = answer(&clock, bad, |_, to, message| member(to, message)).await;
        assert!(told.unwrap_err().contains("damaged"));
    }
}
