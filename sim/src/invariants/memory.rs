//! Memory is bounded: a minute of small writes, and restores of some hundred KiB, need no hundreds of MiB.
//! Asked of the system, so it is no part of the trace.

use super::Seen;

/// Besides the product it holds the disks, the archive and every record in the oracle.
const MOST_BYTES: u64 = 1 << 30;

#[allow(clippy::disallowed_methods)]
pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        seen.counters.add("memory was not measured");
        return Vec::new();
    };
    let peak = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?;
        kib.trim().parse::<u64>().ok()
    });
    match peak {
        Some(kib) if kib * 1024 > MOST_BYTES => vec![format!("{kib} KiB were used at once")],
        _ => Vec::new(),
    }
}
