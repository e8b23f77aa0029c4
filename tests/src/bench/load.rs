//! The load generator: one thread, one epoll set, any number of connections, one request in flight
//! on each. It shares two cores with the server that it measures, so it does as little as it can,
//! and the same for every protocol.
//!
//! Two paces. *Closed*: each connection sends as soon as it was answered; this gives the highest
//! throughput. *Offered*: requests fall due at a fixed rate whatever the server does, and a latency
//! counts from the moment at which its request was due, so a stall is seen by all who would have
//! come during it (no coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::data::{Draw, Item, Payloads};
use super::wire::{Wire, contains};

/// How requests are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The next one when the last one is answered.
    Closed,
    /// So many a second in all, due at fixed moments.
    Offered(f64),
}

/// What a run did.
#[derive(Debug)]
pub struct Run {
    /// Answered requests a second.
    pub rate: f64,
    /// Their latencies in microseconds, ascending.
    latencies: Vec<f64>,
    /// What was written, in no order.
    pub written: Vec<Item>,
}

impl Run {
    /// The latency below which so many thousandths of the requests stayed, in microseconds.
    pub fn percentile(&self, thousandths: usize) -> f64 {
        super::stats::percentile(&self.latencies, thousandths)
    }
}

struct Connection {
    stream: TcpStream,
    wire: Box<dyn Wire>,
    input: Vec<u8>,
    filled: usize,
    out: Vec<u8>,
    /// Since when the request in flight was due, and what it writes.
    flight: Option<(Instant, Item)>,
}

/// Largest answer, with room.
const INPUT_BYTES: usize = 16 << 10;
/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

impl Connection {
    fn open(address: &str, mut wire: Box<dyn Wire>) -> Result<Connection> {
        let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        let mut out = Vec::new();
        wire.hello(&mut out);
        stream.write_all(&out)?;
        out.clear();
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            wire,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            out,
            flight: None,
        })
    }

    /// Whether the server has closed it while nothing was asked.
    fn is_closed(&self) -> bool {
        matches!(self.stream.peek(&mut [0]), Ok(0))
    }

    fn send(&mut self) -> Result<()> {
        // One small request is in flight: a socket's buffer always has room for it.
        let sent = self.stream.write(&self.out)?;
        ensure!(sent == self.out.len(), "the peer does not read");
        self.out.clear();
        Ok(())
    }

    /// Reads what is there; whether the request in flight has been answered.
    fn receive(&mut self) -> Result<bool> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => bail!("the peer closed the connection"),
            Ok(n) => self.filled += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        let fed = self.wire.feed(&self.input[..self.filled], &mut self.out);
        let fed = fed.map_err(anyhow::Error::msg)?;
        self.input.copy_within(fed.used..self.filled, 0);
        self.filled -= fed.used;
        if !self.out.is_empty() {
            self.send()?;
        }
        Ok(fed.whole)
    }
}

/// Speaks to the server at an address.
type Speak = dyn Fn(&str) -> Box<dyn Wire>;

/// The connections to one server.
pub struct Load {
    address: String,
    wire: Box<Speak>,
    connections: Vec<Connection>,
    draw: Draw,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Load({} connections)", self.connections.len())
    }
}

impl Load {
    /// Opens `count` connections.
    ///
    /// # Errors
    /// The first one that fails.
    pub fn connect(
        address: &str,
        count: usize,
        seed: u64,
        wire: impl Fn(&str) -> Box<dyn Wire> + 'static,
    ) -> Result<Load> {
        let connections = (0..count)
            .map(|_| Connection::open(address, wire(address)))
            .collect::<Result<_>>()?;
        Ok(Load {
            address: address.to_owned(),
            wire: Box::new(wire),
            connections,
            draw: Draw::new(seed),
        })
    }

    /// Writes for `time`, then waits for the answers still out (they count as latencies, not in
    /// the rate).
    ///
    /// # Errors
    /// Any refusal: a benchmark of errors is none.
    pub fn write(&mut self, payloads: &Payloads, time: Duration, pace: Pace) -> Result<Run> {
        // On a busy machine a turn comes later than a server waits for a next request.
        for connection in self.connections.iter_mut().filter(|c| c.is_closed()) {
            *connection = Connection::open(&self.address, (self.wire)(&self.address))?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (i, connection) in self.connections.iter().enumerate() {
            let data = epoll::EventData::new_u64(i as u64);
            epoll::add(&epoll, &connection.stream, data, epoll::EventFlags::IN)?;
        }
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let timer_id = u64::MAX;
        let data = epoll::EventData::new_u64(timer_id);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN)?;

        let begun = Instant::now();
        let end = begun + time;
        let mut schedule = Schedule::new(pace, begun);
        let mut idle: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut run = Run {
            rate: 0.0,
            latencies: Vec::with_capacity(1 << 18),
            written: Vec::with_capacity(1 << 18),
        };
        let mut in_time = 0_u64;
        let mut events = Vec::with_capacity(256);
        loop {
            let now = Instant::now();
            while now < end
                && let Some(&next) = idle.front()
                && let Some(due) = schedule.next_due(now)
            {
                idle.pop_front();
                let connection = &mut self.connections[next];
                let item = self.draw.item();
                connection.wire.put(&mut connection.out, item, payloads);
                connection.flight = Some((due, item));
                connection.send()?;
            }
            if now >= end && idle.len() == self.connections.len() {
                break;
            }
            if let Some(wait) = schedule.wait(now).filter(|_| !idle.is_empty()) {
                timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once(wait))?;
            }
            let silence = Timespec {
                tv_sec: i64::try_from(SILENCE.as_secs())?,
                tv_nsec: 0,
            };
            // An idle offered load at its end wakes by its timer; all else by an answer.
            let limit = if now >= end || matches!(pace, Pace::Closed) {
                silence
            } else {
                timespec(end.saturating_duration_since(now) + Duration::from_millis(1))
            };
            events.clear();
            let n = epoll::wait(
                &epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&limit),
            );
            match n {
                Ok(0) if limit == silence => bail!("no answer within {SILENCE:?}"),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let id = event.data.u64();
                if id == timer_id {
                    let mut expirations = [0; 8];
                    // Nothing to read means that it was set anew meanwhile.
                    let _ = rustix::io::read(&timer, &mut expirations);
                    continue;
                }
                let index = usize::try_from(id)?;
                let connection = &mut self.connections[index];
                if !connection.receive()? {
                    continue;
                }
                let now = Instant::now();
                let (due, item) = connection.flight.take().context("an answer to nothing")?;
                run.latencies.push((now - due).as_secs_f64() * 1e6);
                run.written.push(item);
                in_time += u64::from(now <= end);
                idle.push_back(index);
            }
        }
        run.rate = in_time as f64 / time.as_secs_f64();
        run.latencies.sort_unstable_by(f64::total_cmp);
        ensure!(
            !run.latencies.is_empty(),
            "nothing was answered in {time:?}"
        );
        Ok(run)
    }

    /// Reads `count` of what a run wrote back over the first connection.
    ///
    /// # Errors
    /// A value that is not what was written.
    pub fn read_back(&mut self, run: &Run, payloads: &Payloads, count: usize) -> Result<()> {
        let step = (run.written.len() / count).max(1);
        let connection = &mut self.connections[0];
        connection.stream.set_nonblocking(false)?;
        connection.stream.set_read_timeout(Some(SILENCE))?;
        for item in run.written.iter().step_by(step) {
            connection.wire.get(&mut connection.out, *item);
            connection.send()?;
            while !connection.receive()? {}
            ensure!(
                contains(connection.wire.body(), payloads.raw(*item)),
                "{:?} was acknowledged and does not read back",
                String::from_utf8_lossy(&item.key())
            );
        }
        connection.stream.set_nonblocking(true)?;
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn once(after: Duration) -> Itimerspec {
    Itimerspec {
        it_interval: timespec(Duration::ZERO),
        // Zero would switch the timer off.
        it_value: timespec(after.max(Duration::from_nanos(1))),
    }
}

/// The moments at which requests are due.
struct Schedule {
    begun: Instant,
    interval: Option<Duration>,
    sent: u32,
}

impl Schedule {
    fn new(pace: Pace, begun: Instant) -> Schedule {
        let interval = match pace {
            Pace::Closed => None,
            Pace::Offered(rate) => Some(Duration::from_secs_f64(1.0 / rate)),
        };
        Schedule {
            begun,
            interval,
            sent: 0,
        }
    }

    /// When the next request was due, if that is now or past; it then counts as sent.
    fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let Some(interval) = self.interval else {
            return Some(now);
        };
        let due = self.begun + interval * self.sent;
        (due <= now).then(|| {
            self.sent += 1;
            due
        })
    }

    /// How long until the next request falls due.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let due = self.begun + self.interval? * self.sent;
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::wire::Resp;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    /// A redis of one value that stalls once for 300 ms.
    fn stalling(payload: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut stream = stream;
            let mut served = 0;
            while let Some(Ok(first)) = lines.next() {
                let (parts, answer) = match first.as_str() {
                    "*3" => (6, b"+OK\r\n".to_vec()),
                    _ => (4, [b"$2\r\n", &*payload, b"\r\n"].concat()),
                };
                lines.by_ref().take(parts).for_each(drop);
                served += 1;
                if served == 20 {
                    thread::sleep(Duration::from_millis(300));
                }
                stream.write_all(&answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn a_stall_counts_for_every_request_that_was_due_meanwhile() {
        let payloads = Payloads::new(0);
        let address = stalling(b"hi".to_vec());
        let mut load = Load::connect(&address, 1, 1, |_| Box::new(Resp::default())).unwrap();
        let pace = Pace::Offered(200.0);
        let run = load
            .write(&payloads, Duration::from_millis(600), pace)
            .unwrap();
        assert!(
            (100..=121).contains(&run.written.len()),
            "{}",
            run.written.len()
        );
        // A closed loop would see one slow request of about 120: here some 60 waited.
        assert!(run.percentile(700) > 20_000.0, "{}", run.percentile(700));
        assert!(run.percentile(1000) >= 300_000.0);
    }

    #[test]
    fn a_connection_that_was_closed_between_two_turns_is_opened_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (close, told) = std::sync::mpsc::channel();
        // Answers one request a connection, and closes it when it is told to.
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines.take(7).for_each(drop);
                stream.write_all(b"+OK\r\n").unwrap();
                told.recv().unwrap();
            }
        });
        let mut load = Load::connect(&address, 1, 1, |_| Box::new(Resp::default())).unwrap();
        for _ in 0..2 {
            let pace = Pace::Offered(1.0);
            let run = load.write(&Payloads::new(2), Duration::from_millis(200), pace);
            assert_eq!(run.unwrap().written.len(), 1);
            close.send(()).unwrap();
            let begun = Instant::now();
            while !load.connections[0].is_closed() {
                assert!(begun.elapsed() < SILENCE);
                thread::sleep(Duration::from_millis(1));
            }
        }
        server.join().unwrap();
    }

    #[test]
    fn a_value_that_reads_back_otherwise_is_found() {
        let payloads = Payloads::new(2);
        let address = stalling(b"??".to_vec());
        let mut load = Load::connect(&address, 1, 1, |_| Box::new(Resp::default())).unwrap();
        let run = load
            .write(&payloads, Duration::from_millis(50), Pace::Offered(100.0))
            .unwrap();
        assert!(load.read_back(&run, &payloads, 5).is_err());
    }
}
