//! scratch
use std::time::Instant;
use unisondb_engine::start::{self, Folders, Request};
use unisondb_types::*;
fn main() {
    let n: u64 = std::env::args()
        .nth(1)
        .map_or(300_000, |s| s.parse().unwrap());
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let p = unisondb_platform::real::platform();
    let f = Folders {
        namespace: Some("users".parse().unwrap()),
        home: dir.path().join("users"),
        backups: dir.path().join("b"),
    };
    let r = Request {
        create: Some(ClusterId::from_bytes([1; 16])),
        flush_bytes: 32 << 20,
        ..Request::default()
    };
    let o = start::open(&p, &f, &r).unwrap();
    let wal = o.engine.wal().clone();
    let mut x = 88172645463325252u64;
    let t = Instant::now();
    let mut all = vec![];
    let mut i = 0;
    while i < n {
        let mut cmds = vec![];
        for _ in 0..1000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let k = format!("{:016x}", x);
            let c = Command::User {
                idempotency: None,
                action: Action::Write {
                    conditions: vec![],
                    ops: vec![Op::KvPut {
                        key: Key::new(k.into_bytes()).unwrap(),
                        value: Value::new(vec![x as u8; 256]),
                    }],
                },
            };
            cmds.push((c.kind(), c.payload()));
            i += 1;
        }
        wal.reserve(1 << 20).unwrap();
        all.extend(wal.append(o.term, p.clock.now(), &cmds).unwrap());
        wal.sync().unwrap();
        wal.commit(wal.last());
    }
    println!("append+sync {} rec/s", n as f64 / t.elapsed().as_secs_f64());
    drop(all);
    drop(wal);
    drop(o);
    let t = Instant::now();
    let o = start::open(&p, &f, &r).unwrap();
    println!(
        "open+replay {} rec/s ({:?})",
        n as f64 / t.elapsed().as_secs_f64(),
        t.elapsed()
    );
    let t2 = Instant::now();
    o.engine.flush().unwrap();
    println!("last flush {:?}", t2.elapsed());
    println!("total {} rec/s", n as f64 / t.elapsed().as_secs_f64());
}
