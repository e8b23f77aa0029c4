//! A node without its server: what it is told to write is durable and applied at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value as Json;
use tower::ServiceExt;
use unisondb_api::error::SUCCESS_FIELDS;
use unisondb_api::{Answer as Promise, Sealed, WriteError, Writer, Written};
use unisondb_engine::start::{self, Folders, Opened, Request as Start};
use unisondb_engine::{Applier, Engine};
use unisondb_http::{About, Act, Host, HostError, Note, Settings, Standing, State};
use unisondb_platform::{DiskExt, Platform, real};
use unisondb_types::{
    Action, ClusterId, Command, Idempotency, Lsn, Namespace, Outcome, Term, limits,
};
use unisondb_wal::SegmentState;

pub const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// A node and its routes.
pub struct Rig {
    pub host: Arc<FakeHost>,
    pub router: Router,
    _dir: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Rig {
    /// A node with nothing in it, that makes namespaces as they are written to.
    pub fn new() -> Rig {
        Rig::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Rig {
        LOG.get_or_init(listen);
        let dir = tempfile::tempdir().unwrap();
        let host = Arc::new(FakeHost {
            platform: real::platform(),
            data: dir.path().to_owned(),
            namespaces: Arc::default(),
            switches: Arc::default(),
        });
        let router = unisondb_http::router(host.clone(), settings);
        Rig {
            host,
            router,
            _dir: dir,
        }
    }

    /// Sends a request, and holds the answer to the rules of every route.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(target)
            .header("host", "localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .expect("the body comes whole")
            .to_bytes()
            .to_vec();
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body,
        };
        answer.keeps_the_rules(method, target);
        answer
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], "").await
    }

    pub async fn post(&self, target: &str, body: impl Into<Body>) -> Answer {
        self.send("POST", target, &[], body).await
    }

    pub async fn put(&self, target: &str, body: impl Into<Body>) -> Answer {
        self.send("PUT", target, &[], body).await
    }

    pub async fn delete(&self, target: &str) -> Answer {
        self.send("DELETE", target, &[], "").await
    }

    /// Writes one key with its value as it is.
    pub async fn put_raw(&self, key: &str, value: &[u8]) -> Lsn {
        let target = format!("/api/v1/users/kv/{key}");
        let raw = [("content-type", "application/octet-stream")];
        let answer = self.send("PUT", &target, &raw, value.to_vec()).await;
        answer.is(200);
        Lsn::new(answer.json()["lsn"].as_u64().unwrap())
    }

    pub fn engine(&self) -> Engine {
        let all = self.host.namespaces.lock().unwrap();
        let Some(Kept::Open(open)) = all.get("users") else {
            panic!("users is open");
        };
        open.engine.clone()
    }

    pub fn data(&self) -> &Path {
        &self.host.data
    }
}

impl Answer {
    #[track_caller]
    pub fn is(&self, status: u16) -> &Answer {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The field `error`.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name}"))
            .to_str()
            .unwrap()
    }

    fn keeps_the_rules(&self, method: &str, target: &str) {
        let what = format!(
            "{method} {target}: {} {:?}",
            self.status,
            self.body.escape_ascii().to_string()
        );
        assert_eq!(self.header("x-unison-node"), "node-1", "{what}");
        assert_eq!(self.header("x-unison-role"), "leader", "{what}");
        if method == "HEAD" || matches!(self.status.as_u16(), 204 | 304) {
            assert!(self.body.is_empty(), "{what}");
            return;
        }
        let success = self.status.is_success();
        let kind = self.header("content-type");
        if kind != "application/json" {
            assert!(success, "only a success is a data stream: {what}");
            return;
        }
        let (last, line) = self.body.split_last().expect("no answer is empty");
        assert_eq!(*last, b'\n', "{what}");
        assert!(!line.contains(&b'\n'), "{what}");
        let json: Json = serde_json::from_slice(line).expect(&what);
        let json = json.as_object().expect(&what);
        let miss = self.status == 404 && json.contains_key("found");
        if success || miss {
            assert!(!json.contains_key("error"), "{what}");
        } else {
            assert!(json["error"].is_string(), "{what}");
            for field in SUCCESS_FIELDS {
                assert!(!json.contains_key(field), "{what}");
            }
        }
        if matches!(self.status.as_u16(), 429 | 503) {
            assert!(self.headers.contains_key("retry-after"), "{what}");
        }
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

/// What all tests of this process have logged so far.
pub fn log() -> String {
    let bytes = LOG
        .get()
        .expect("some rig was made")
        .0
        .lock()
        .unwrap()
        .clone();
    String::from_utf8(bytes).unwrap()
}

/// One subscriber for the process: what a thread sets for itself is not seen by call sites that
/// another thread came by first.
fn listen() -> Log {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    log
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What tests turn on and off.
#[derive(Default)]
pub struct Switches {
    /// What every write and seal is answered with.
    pub refuse: Option<WriteError>,
    /// What only seals and barriers are answered with: no leader.
    pub no_leader: Option<WriteError>,
    /// Unknown namespaces stay unknown.
    pub fixed: bool,
    /// A restored directory.
    pub isolated: bool,
    /// Whether it is restored is not known yet.
    pub origin_unknown: bool,
    /// It ignored its cluster settings.
    pub ignores_cluster: bool,
    /// A namespace is being recovered whose name is not known yet.
    pub unnamed: Option<String>,
    /// Notes of every namespace.
    pub notes: Vec<Note>,
}

pub struct FakeHost {
    platform: Platform,
    pub data: PathBuf,
    pub namespaces: Arc<Mutex<BTreeMap<String, Kept>>>,
    pub switches: Arc<Mutex<Switches>>,
}

pub enum Kept {
    Open(Box<Open>),
    Starting,
    Failed(String),
}

pub struct Open {
    pub engine: Engine,
    applier: Applier,
    term: Term,
}

impl FakeHost {
    fn open(&self, name: &Namespace) -> Engine {
        let mut all = self.namespaces.lock().unwrap();
        if let Some(Kept::Open(open)) = all.get(name.as_str()) {
            return open.engine.clone();
        }
        let folders = Folders {
            namespace: Some(name.clone()),
            home: self.data.join(name.as_str()),
            backups: self.data.join("backups").join(name.as_str()),
        };
        self.platform.disk.create_folders(&folders.home).unwrap();
        let request = Start {
            segment_size: limits::SEGMENT_MIN_BYTES,
            map_size: 256 << 20,
            create: Some(CLUSTER),
            on_gap: start::OnGap::ReadOnly,
            ..Start::default()
        };
        let Opened {
            engine,
            applier,
            vote,
            ..
        } = start::open(&self.platform, &folders, &request).unwrap();
        let term = vote.state().term;
        let open = Open {
            engine: engine.clone(),
            applier,
            term,
        };
        all.insert(name.to_string(), Kept::Open(Box::new(open)));
        engine
    }
}

impl Open {
    fn run(&mut self, command: &Command) -> (Lsn, Outcome) {
        let now = self.engine.platform().clock.now();
        let wal = self.engine.wal();
        let entries = wal
            .append(self.term, now, &[(command.kind(), command.payload())])
            .unwrap();
        wal.commit(wal.sync().unwrap());
        let mut last = None;
        for entry in &entries {
            last = Some(self.applier.apply(entry).unwrap());
        }
        for check in self.engine.unconfirmed_checks() {
            self.run(&Command::Check(check));
        }
        last.unwrap()
    }
}

impl Host for FakeHost {
    fn platform(&self) -> &Platform {
        &self.platform
    }
    fn writer(&self) -> Arc<dyn Writer> {
        Arc::new(FakeWriter {
            namespaces: self.namespaces.clone(),
            switches: self.switches.clone(),
        })
    }
    fn about(&self) -> About {
        let switches = self.switches.lock().unwrap();
        About {
            node: "node-1".into(),
            role: "leader",
            cluster: Some(CLUSTER),
            isolated: (!switches.origin_unknown).then_some(switches.isolated),
            ignores_cluster: switches.ignores_cluster,
            unnamed: switches.unnamed.clone(),
            version: "0.1.0",
            data_dir: self.data.clone(),
            durability: "always",
        }
    }
    fn namespaces(&self) -> Vec<Standing> {
        let names: Vec<String> = self.namespaces.lock().unwrap().keys().cloned().collect();
        names
            .iter()
            .filter_map(|n| self.find(&n.parse().unwrap()))
            .collect()
    }
    fn find(&self, namespace: &Namespace) -> Option<Standing> {
        let all = self.namespaces.lock().unwrap();
        let state = match all.get(namespace.as_str())? {
            Kept::Open(open) => State::Open {
                engine: open.engine.clone(),
                notes: self.switches.lock().unwrap().notes.clone(),
            },
            Kept::Starting => State::Starting {
                doing: "replaying".into(),
            },
            Kept::Failed(reason) => State::Failed {
                reason: reason.clone(),
            },
        };
        Some(Standing {
            namespace: namespace.clone(),
            state,
        })
    }
    fn create<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, Engine> {
        Box::pin(async { Ok(self.open(namespace)) })
    }
    fn auto_create(&self) -> bool {
        !self.switches.lock().unwrap().fixed
    }
    fn delete<'a>(&'a self, namespace: &'a Namespace) -> Act<'a, ()> {
        Box::pin(async {
            let gone = self.namespaces.lock().unwrap().remove(namespace.as_str());
            gone.map(|_| ())
                .ok_or_else(|| HostError::NotFound(namespace.clone()))
        })
    }
}

struct FakeWriter {
    namespaces: Arc<Mutex<BTreeMap<String, Kept>>>,
    switches: Arc<Mutex<Switches>>,
}

impl FakeWriter {
    fn with<T>(
        &self,
        namespace: &Namespace,
        act: impl FnOnce(&mut Open) -> T,
    ) -> Result<T, WriteError> {
        match self.namespaces.lock().unwrap().get_mut(namespace.as_str()) {
            Some(Kept::Open(open)) => Ok(act(open)),
            _ => Err(WriteError::NotFound(namespace.clone())),
        }
    }
    fn refusal(&self, leader_wanted: bool) -> Result<(), WriteError> {
        let s = self.switches.lock().unwrap();
        match s
            .refuse
            .clone()
            .or_else(|| s.no_leader.clone().filter(|_| leader_wanted))
        {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

impl Writer for FakeWriter {
    fn write<'a>(
        &'a self,
        namespace: &'a Namespace,
        action: Action,
        idempotency: Option<Idempotency>,
    ) -> Promise<'a, Written> {
        Box::pin(async move {
            self.refusal(false)?;
            let (lsn, outcome) = self.with(namespace, |open| {
                open.engine
                    .admit(&action, idempotency.as_ref())
                    .map_err(|e| WriteError::TooLarge(e.to_string()))?;
                Ok::<_, WriteError>(open.run(&Command::User {
                    idempotency,
                    action,
                }))
            })??;
            Ok(Written { lsn, outcome })
        })
    }
    fn seal<'a>(&'a self, namespace: &'a Namespace) -> Promise<'a, Sealed> {
        Box::pin(async move {
            self.refusal(true)?;
            self.with(namespace, |open| {
                let active = open.engine.wal().active();
                if active.user_data {
                    open.run(&Command::Seal(active.id));
                }
                let segments = open.engine.wal().segments();
                let sealed = segments.iter().filter(|s| s.state == SegmentState::Sealed);
                Sealed {
                    segment: sealed.map(|s| s.id).max(),
                    lsn: open.engine.applied(),
                }
            })
        })
    }
    fn barrier<'a>(&'a self, namespace: &'a Namespace) -> Promise<'a, Lsn> {
        Box::pin(async move {
            self.refusal(true)?;
            self.with(namespace, |open| open.engine.applied())
        })
    }
}
