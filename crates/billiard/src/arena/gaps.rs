//! What is free of a range: found by size, and merged with its neighbours when it comes back.

use std::collections::{BTreeMap, BTreeSet};

/// What is free of a range. There may be memory behind a gap or not; gaps of both kinds are never merged with each other.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    by_place: BTreeMap<u64, Gap>,
    /// Whether there is no memory behind it, length, place: so the first one that fits is the best one.
    by_size: BTreeSet<(bool, u64, u64)>,
    /// Bytes in gaps with memory behind them.
    warm: u64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    len: u64,
    backed: bool,
}

impl Gaps {
    /// One gap, without memory behind it.
    pub(super) fn over(at: u64, len: u64) -> Self {
        let mut gaps = Self::default();
        gaps.insert(at, Gap { len, backed: false });
        gaps
    }

    fn insert(&mut self, at: u64, gap: Gap) {
        self.by_place.insert(at, gap);
        self.by_size.insert((!gap.backed, gap.len, at));
        self.warm += if gap.backed { gap.len } else { 0 };
    }

    fn remove(&mut self, at: u64) -> Option<Gap> {
        let gap = self.by_place.remove(&at)?;
        self.by_size.remove(&(!gap.backed, gap.len, at));
        self.warm -= if gap.backed { gap.len } else { 0 };
        Some(gap)
    }

    /// The first `len` bytes of the smallest gap that has them; one with memory behind it, if there is one. Answers where they
    /// begin, and whether there is memory behind them.
    pub(super) fn take(&mut self, len: u64) -> Option<(u64, bool)> {
        let fitting = |bare| self.by_size.range((bare, len, 0)..=(bare, u64::MAX, u64::MAX)).next();
        let &(bare, room, at) = fitting(false).or_else(|| fitting(true))?;
        self.remove(at);
        if room > len {
            self.insert(at + len, Gap { len: room - len, backed: !bare });
        }
        Some((at, !bare))
    }

    /// Whether [`Gaps::take`] would find so many bytes with memory behind them.
    pub(super) fn has_warm(&self, len: u64) -> bool {
        self.by_size.range((false, len, 0)..=(false, u64::MAX, u64::MAX)).next().is_some()
    }

    /// Takes up to `len` bytes that begin at `at`, if a gap without memory behind it begins there. Answers how many.
    pub(super) fn take_bare(&mut self, at: u64, len: u64) -> u64 {
        match self.by_place.get(&at) {
            Some(gap) if !gap.backed => {}
            _ => return 0,
        }
        let Some(gap) = self.remove(at) else { return 0 };
        let taken = len.min(gap.len);
        if gap.len > taken {
            self.insert(at + taken, Gap { len: gap.len - taken, backed: false });
        }
        taken
    }

    /// Takes just this range, if it lies in a gap with memory behind it.
    pub(super) fn carve(&mut self, at: u64, len: u64) -> bool {
        let around = self.by_place.range(..=at).next_back().map(|(place, gap)| (*place, *gap));
        let Some((place, gap)) = around.filter(|(place, gap)| gap.backed && place + gap.len >= at + len)
        else {
            return false;
        };
        self.remove(place);
        let behind = place + gap.len - (at + len);
        for (start, rest) in [(place, at - place), (at + len, behind)] {
            if rest > 0 {
                self.insert(start, Gap { len: rest, backed: true });
            }
        }
        true
    }

    /// Puts a range back that was taken.
    pub(super) fn put_back(&mut self, at: u64, len: u64, backed: bool) {
        let (mut at, mut len) = (at, len);
        let before = self.by_place.range(..at).next_back().map(|(place, gap)| (*place, *gap));
        if let Some((place, gap)) = before
            && place + gap.len == at
            && gap.backed == backed
        {
            self.remove(place);
            (at, len) = (place, gap.len + len);
        }
        if let Some(after) = self.by_place.get(&(at + len)).copied()
            && after.backed == backed
        {
            self.remove(at + len);
            len += after.len;
        }
        self.insert(at, Gap { len, backed });
    }

    /// Bytes in gaps with memory behind them.
    pub(super) const fn warm(&self) -> u64 {
        self.warm
    }

    /// The same, of those with memory behind them; the smallest first.
    pub(super) fn iter_warm(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_size.range(..(true, 0, 0)).map(|(_, len, at)| (*at, *len))
    }

    /// Where the last gap with memory behind it begins, and how long it is.
    pub(super) fn last_warm(&self) -> Option<(u64, u64)> {
        self.by_place.iter().rev().find(|(_, gap)| gap.backed).map(|(at, gap)| (*at, gap.len))
    }

    /// Where each gap begins, and how long it is, in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_place.iter().map(|(at, gap)| (*at, gap.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: usize = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        TakeBare(u64, u64),
        Carve(u64, u64),
        PutBack(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..12_u64).prop_map(Step::Take),
            1 => (0..SPAN as u64, 1..12_u64).prop_map(|(at, len)| Step::TakeBare(at, len)),
            1 => (0..SPAN as u64, 1..12_u64).prop_map(|(at, len)| Step::Carve(at, len)),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(which, backed)| Step::PutBack(which, backed)),
        ];
        prop::collection::vec(step, 1..200)
    }

    /// What each byte is: taken, or free with or without memory behind it.
    type Model = [Option<bool>; SPAN];

    fn runs(model: &Model) -> Vec<(u64, u64, bool)> {
        let mut runs: Vec<(u64, u64, bool)> = Vec::new();
        for (at, byte) in model.iter().enumerate() {
            match (byte, runs.last_mut()) {
                (Some(backed), Some((start, len, kind))) if *start + *len == at as u64 && kind == backed => {
                    *len += 1
                }
                (Some(backed), _) => runs.push((at as u64, 1, *backed)),
                (None, _) => {}
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn gaps_are_what_a_row_of_bytes_says(steps in steps()) {
            let mut gaps = Gaps::over(0, SPAN as u64);
            let mut model: Model = [Some(false); SPAN];
            let mut out: Vec<(u64, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(len) => {
                        let free = runs(&model);
                        let best = free.iter().filter(|run| run.1 >= len).min_by_key(|run| (!run.2, run.1, run.0));
                        prop_assert_eq!(gaps.has_warm(len), best.is_some_and(|run| run.2));
                        prop_assert_eq!(gaps.take(len), best.map(|run| (run.0, run.2)));
                        if let Some(run) = best {
                            model[run.0 as usize..(run.0 + len) as usize].fill(None);
                            out.push((run.0, len));
                        }
                    }
                    Step::TakeBare(at, len) => {
                        let run = runs(&model).into_iter().find(|run| run.0 == at && !run.2);
                        let taken = run.map_or(0, |run| run.1.min(len));
                        prop_assert_eq!(gaps.take_bare(at, len), taken);
                        if taken > 0 {
                            model[at as usize..(at + taken) as usize].fill(None);
                            out.push((at, taken));
                        }
                    }
                    Step::Carve(at, len) => {
                        let inside = |run: &(u64, u64, bool)| run.2 && run.0 <= at && run.0 + run.1 >= at + len;
                        let found = runs(&model).iter().any(inside);
                        prop_assert_eq!(gaps.carve(at, len), found);
                        if found {
                            model[at as usize..(at + len) as usize].fill(None);
                            out.push((at, len));
                        }
                    }
                    Step::PutBack(which, backed) => {
                        if out.is_empty() {
                            continue;
                        }
                        let (at, len) = out.swap_remove(which % out.len());
                        gaps.put_back(at, len, backed);
                        model[at as usize..(at + len) as usize].fill(Some(backed));
                    }
                }
                let free = runs(&model);
                prop_assert_eq!(gaps.iter().collect::<Vec<_>>(), free.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>());
                prop_assert_eq!(gaps.warm(), free.iter().filter(|r| r.2).map(|r| r.1).sum::<u64>());
                prop_assert_eq!(gaps.by_size.len(), gaps.by_place.len());
            }
        }
    }
}
