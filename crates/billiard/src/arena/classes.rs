//! The sizes that cells have: so few that one that is free fits the next of its kind.

use super::segment::LINE;

/// Cells up to this size are small: they have rooms of their own, and there is one class for each multiple of [`LINE`].
pub(super) const SMALL: usize = 1024;
/// Up to this size there are classes, above [`SMALL`] four from each power of two to the next. One that is free is kept for
/// the next of its class, and not merged with its neighbours at once.
const CLASSED: usize = 64 << 10;
const SMALL_CLASSES: usize = SMALL / LINE;
/// How many there are.
pub(super) const CLASSES: usize = SMALL_CLASSES + 4 * (CLASSED / SMALL).ilog2() as usize;

/// The size that a cell of at least `len` bytes has. `None`: larger than anything.
pub(super) fn size_of(len: usize) -> Option<usize> {
    let step = if len <= SMALL || len > CLASSED { LINE } else { 1 << ((len - 1).ilog2() - 2) };
    len.max(1).checked_next_multiple_of(step)
}

/// The class of a size that has one.
pub(super) const fn class_of(size: usize) -> Option<usize> {
    if size <= SMALL {
        return Some(size / LINE - 1);
    }
    if size > CLASSED {
        return None;
    }
    let power = (size - 1).ilog2();
    // How many quarters above the power of two: 0 to 3.
    let quarter = (size - 1) / (1 << (power - 2)) - 4;
    Some(SMALL_CLASSES + 4 * (power - SMALL.ilog2()) as usize + quarter)
}

/// The size of the cells of a class.
pub(super) const fn size_in(class: usize) -> usize {
    if class < SMALL_CLASSES {
        return (class + 1) * LINE;
    }
    let above = class - SMALL_CLASSES;
    let power = SMALL << (above / 4);
    power + (above % 4 + 1) * (power / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_class_that_gives_it_back() {
        let mut sizes: Vec<_> = (0..=CLASSED).filter_map(size_of).collect();
        sizes.dedup();
        assert!(sizes.iter().all(|size| class_of(*size).is_some_and(|class| size_in(class) == *size)));
        assert_eq!(sizes, (0..CLASSES).map(size_in).collect::<Vec<_>>());
        assert_eq!(
            (class_of(CLASSED + 1), size_of(CLASSED + 1), size_of(usize::MAX)),
            (None, Some(CLASSED + LINE), None)
        );
    }
}
