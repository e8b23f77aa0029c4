//! `notify-start PIDFILE LOG SECONDS COMMAND...`: starts a service as systemd does for `Type=notify`:
//! returns 0 once the service has said `READY=1`, 1 when it ended or did not say so in time.
//! The service goes on by itself; its pid is in PIDFILE. Used by the `systemctl` stand-in.

use std::env;
use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[expect(
    clippy::zombie_processes,
    reason = "a service that is ready outlives its starter, and is the init process's then"
)]
fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let [_, pid_file, log, seconds, command, rest @ ..] = args.as_slice() else {
        eprintln!("usage: notify-start PIDFILE LOG SECONDS COMMAND...");
        return ExitCode::from(2);
    };
    let limit = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let socket = format!("{pid_file}.notify");
    if fs::exists(&socket).expect("the folder is there") {
        fs::remove_file(&socket).expect("an old socket can be removed");
    }
    let listener = UnixDatagram::bind(&socket).expect("a socket can be made");
    listener
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout can be set");

    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log can be made");
    let mut service = Command::new(command)
        .args(rest)
        .env("NOTIFY_SOCKET", &socket)
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("a handle can be doubled"))
        .stderr(out)
        .spawn()
        .expect("the service can be run");
    fs::write(pid_file, service.id().to_string()).expect("the pid can be written");

    let begun = Instant::now();
    let mut message = [0; 4096];
    while begun.elapsed() < limit {
        if let Ok(n) = listener.recv(&mut message)
            && String::from_utf8_lossy(&message[..n])
                .lines()
                .any(|l| l == "READY=1")
        {
            return ExitCode::SUCCESS;
        }
        if let Some(status) = service.try_wait().expect("a child can be asked") {
            fs::remove_file(pid_file).expect("it was written above");
            eprintln!("Job for the service failed: {status}");
            return ExitCode::FAILURE;
        }
    }
    eprintln!("the service did not say that it is ready within {limit:?}");
    service.kill().expect("a child can be killed");
    service.wait().expect("a child can be waited for");
    fs::remove_file(pid_file).expect("it was written above");
    ExitCode::FAILURE
}
