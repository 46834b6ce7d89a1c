//! Memory: what a process uses, what it may use, and whether the kernel has killed for it.

use std::fs;
use std::io;

use super::cgroup::{self, Version};

/// A limit this large is how v1 control groups say that there is none (the largest page-aligned number).
const V1_NO_LIMIT: u64 = 1 << 60;

/// The resident memory of this process now, in KiB.
pub fn rss_kib() -> io::Result<u64> {
    rss_from("/proc/self/statm")
}

/// The resident memory of process `pid` now, in KiB.
pub fn rss_kib_of(pid: i32) -> io::Result<u64> {
    rss_from(&format!("/proc/{pid}/statm"))
}

/// The most resident memory that process `pid` ever had, in KiB. A process that has ended has none.
pub fn peak_rss_kib_of(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_kib(&text, "VmHWM").ok_or_else(|| unreadable("VmHWM"))
}

/// What the system could give to new work without swapping, in KiB.
pub fn available_kib() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    parse_kib(&text, "MemAvailable").ok_or_else(|| unreadable("MemAvailable"))
}

/// The least memory limit of the control groups of this process, in bytes. `None`: no limit.
#[must_use]
pub fn limit_bytes() -> Option<u64> {
    let limits = cgroup::groups("memory").into_iter().filter_map(|group| match group.version {
        Version::V2 => group.read("memory.max")?.parse().ok(),
        Version::V1 => group.read("memory.limit_in_bytes")?.parse().ok().filter(|&limit| limit < V1_NO_LIMIT),
    });
    limits.min()
}

/// How many processes the kernel has killed for memory in the control group of this process. `None` where it does not count.
/// A number that grew while a worker died of SIGKILL says why.
#[must_use]
pub fn oom_kills() -> Option<u64> {
    cgroup::groups("memory").into_iter().find_map(|group| {
        let file = match group.version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        };
        parse_count(&group.read(file)?, "oom_kill")
    })
}

fn rss_from(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let pages = parse_statm(&text).ok_or_else(|| unreadable("statm"))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64) / 1024)
}

fn unreadable(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot find {what} in what the kernel tells"))
}

/// The resident pages in a `statm`.
fn parse_statm(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The number of `name: 123 kB` in a `status` or `meminfo`.
fn parse_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.trim().strip_suffix("kB")?.trim_end().parse().ok()
    })
}

/// The number of `name 123` in an events file.
fn parse_count(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_texts_are_understood() {
        assert_eq!(parse_statm("2000 1234 300 1 0 500 0\n"), Some(1234));
        let status = "Name:\tVmHWM: 1 kB\nVmHWM:\t   20480 kB\nVmRSS:\t 10 kB\n";
        assert_eq!(parse_kib(status, "VmHWM"), Some(20480));
        assert_eq!(parse_kib(status, "VmPeak"), None);
        assert_eq!(parse_count("oom 4\noom_kill 3\noom_group_kill 9\n", "oom_kill"), Some(3));
        assert_eq!(parse_count("oom_kill_disable 0\n", "oom_kill"), None);
    }

    #[test]
    fn memory_that_is_touched_shows() {
        let before = rss_kib().unwrap();
        let block = vec![1_u8; 64 << 20];
        let after = rss_kib().unwrap();
        assert!(after >= before + (32 << 10), "{before} -> {after} with {} bytes", block.len());
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert!(rss_kib_of(own).unwrap() > 0);
        assert!(peak_rss_kib_of(own).unwrap() >= 32 << 10);
        assert!(available_kib().unwrap() > 0);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        for pid in [-5, 0, i32::MAX] {
            assert!(rss_kib_of(pid).is_err(), "{pid}");
            assert!(peak_rss_kib_of(pid).is_err(), "{pid}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = (parse_statm(&text), parse_kib(&text, "VmHWM"), parse_count(&text, "oom_kill"));
        }
    }
}
