//! How many processors this process may really use.

use std::sync::atomic::{AtomicU8, Ordering};

use super::cgroup::{self, Group, Version};

/// How many processors this process may use: the least of its affinity and of every processor quota from its own control
/// group up to the root. A quota counts rounded up; the answer is at least 1.
///
/// `ordered` is what the user ordered instead, if anything.
#[must_use]
pub fn usable(ordered: Option<usize>) -> usize {
    if let Some(ordered) = ordered {
        return ordered.max(1);
    }
    cgroup::groups("cpu").iter().filter_map(quota).fold(by_affinity(), usize::min).max(1)
}

/// Whether somebody else can run while we look again and again. Found out once, since it takes reading files: what the answer
/// decides is only how a wait begins.
#[must_use]
pub fn several() -> bool {
    const UNKNOWN: u8 = 0;
    const ONE: u8 = 1;
    const SEVERAL: u8 = 2;
    // FORK: a number, which is right in a child too. Relaxed: whoever finds it unknown finds the same out again.
    static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
    let found = match FOUND.load(Ordering::Relaxed) {
        UNKNOWN => {
            let found = if usable(None) > 1 { SEVERAL } else { ONE };
            FOUND.store(found, Ordering::Relaxed);
            found
        }
        known => known,
    };
    found == SEVERAL
}

fn by_affinity() -> usize {
    let counted = rustix::thread::sched_getaffinity(None).map(|set| set.count() as usize);
    // The set has 1024 places; a larger machine refuses it, and then std asks with a larger one.
    counted.ok().or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1)
}

fn quota(group: &Group) -> Option<usize> {
    match group.version {
        Version::V2 => parse_cpu_max(&group.read("cpu.max")?),
        Version::V1 => parse_cfs(&group.read("cpu.cfs_quota_us")?, &group.read("cpu.cfs_period_us")?),
    }
}

/// The number of processors that a v2 `cpu.max` grants, rounded up. `max`, and what cannot be understood, limit nothing.
#[must_use]
pub fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(char::is_whitespace)?;
    parse_cfs(quota, period)
}

/// The same for the two v1 files. A negative quota limits nothing.
#[must_use]
pub fn parse_cfs(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    if period == 0 {
        return None;
    }
    Some(usize::try_from(quota.div_ceil(period)).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotas_are_rounded_up_and_at_least_one() {
        for (text, cpus) in [
            ("150000 100000", 2),
            ("100000 100000", 1),
            ("1000 100000", 1),
            ("0 100000", 1),
            ("400001 100000\n", 5),
        ] {
            assert_eq!(parse_cpu_max(text), Some(cpus), "{text:?}");
        }
        assert_eq!(parse_cfs("250000", "100000"), Some(3));
    }

    #[test]
    fn no_limit_is_no_limit() {
        for text in ["max 100000", "", "max", "12", "5 0", "-1 100000", "a b", "99999999999999999999 1"] {
            assert_eq!(parse_cpu_max(text), None, "{text:?}");
        }
        assert_eq!(parse_cfs("-1", "100000"), None);
    }

    #[test]
    fn an_order_wins() {
        assert_eq!(usable(Some(7)), 7);
        assert_eq!(usable(Some(0)), 1);
        assert!(usable(None) >= 1);
        assert!(usable(None) <= by_affinity());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,60}") {
            prop_assert!(parse_cpu_max(&text).is_none_or(|cpus| cpus >= 1));
        }
    }
}
