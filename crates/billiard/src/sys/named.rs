//! Shared memory with a name: files in memory, and who removes them.
//!
//! A file says in its time of last access, which means nothing else for such a file, that it was made here, and which process
//! is its *keeper*. Whoever has it open holds a shared lock on it, which the kernel takes away with the last copy of the
//! descriptor and the last mapping, however that ended. So a file whose keeper is over, and on which nobody has a lock, is
//! removed by whoever passes by: see [`sweep`].
//!
//! ```
//! use billiard::arena::Mapping;
//! use billiard::sys::{named, pid};
//!
//! let name = format!("billiard-example-{}", pid());
//! let made = named::create(&name, 4096, Some(pid()))?;
//! Mapping::new(&made, 0, 4096)?.write(0, b"hello");
//!
//! let opened = named::open(&name)?;
//! let mut bytes = [0; 5];
//! Mapping::new(&opened, 0, 4096)?.read(0, &mut bytes);
//! assert_eq!(&bytes, b"hello");
//!
//! named::remove(&name)?;
//! assert!(named::open(&name).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use super::descriptor::above_standard;
use super::life;
use crate::failpoint;

const FOLDER: &str = "/dev/shm";
/// Above the keeper's start time, in the seconds of the time of last access.
const MARK: i64 = 0x62_69_6c;
const STARTED_BITS: u32 = 32;
const PID_BITS: u32 = 22;
/// So many namespaces of process ids are told apart.
const SPACES: u64 = 128;

/// Why something could not be done with a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No file can have this name.
    #[error("{0:?} is no name of shared memory: it is a file's name, without slashes")]
    NoName(String),
    /// The system refused. `Interrupted`: a signal came first, and nothing has happened; it can be tried again.
    #[error("cannot {doing} the shared memory {name:?}")]
    Os {
        /// What.
        doing: &'static str,
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a name is, and what is being done with it.
#[derive(Clone, Copy)]
struct Task<'a> {
    doing: &'static str,
    name: &'a str,
}

impl Task<'_> {
    fn path(self) -> Result<PathBuf, NameError> {
        let name = self.name;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(NameError::NoName(name.to_owned()));
        }
        Ok(PathBuf::from(FOLDER).join(name))
    }

    fn failed(self, source: impl Into<io::Error>) -> NameError {
        NameError::Os { doing: self.doing, name: self.name.to_owned(), source: source.into() }
    }
}

/// A process that keeps names: while it runs, they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keeper {
    pid: i32,
    /// The tick at which it began.
    started: i64,
}

impl Keeper {
    /// `None`: it is over.
    fn of(pid: i32) -> Option<Self> {
        let started = life::start_time(pid)?.cast_signed();
        Some(Self { pid, started })
    }

    /// What the files say that it keeps.
    fn mark(self) -> Timespec {
        Timespec {
            tv_sec: MARK << STARTED_BITS | self.started,
            tv_nsec: (space() << PID_BITS | self.pid as u64).cast_signed(),
        }
    }
}

/// What a file tells of its keeper.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    By(Keeper),
    /// It was made by something else, or where processes are counted differently.
    Unknown,
}

impl Kept {
    fn read(seconds: i64, nanoseconds: i64) -> Self {
        let nanoseconds = nanoseconds.cast_unsigned();
        if seconds >> STARTED_BITS != MARK || nanoseconds >> PID_BITS != space() {
            return Self::Unknown;
        }
        let pid = (nanoseconds & ((1 << PID_BITS) - 1)) as i32;
        Self::By(Keeper { pid, started: seconds & ((1 << STARTED_BITS) - 1) })
    }
}

/// Something of the namespace in which process ids are counted here.
fn space() -> u64 {
    life::namespace() % SPACES
}

fn open_at(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    above_standard(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Makes shared memory of `len` zeros, and says that it is in use here.
///
/// While the `keeper` runs, nobody sweeps the name away; if it is over already, this process is the keeper. Without a keeper
/// the name stays until somebody removes it.
///
/// # Blocking
/// For as long as the kernel takes to find the memory. A signal ends it.
///
/// # Errors
/// `AlreadyExists`; there is no memory, or no descriptor left; a signal came. Then there is no such name.
pub fn create(name: &str, len: u64, keeper: Option<i32>) -> Result<OwnedFd, NameError> {
    let task = Task { doing: "make", name };
    let path = task.path()?;
    // Before any memory is looked for; if somebody is quicker, the kernel says so later.
    if fs::symlink_metadata(&path).is_ok() {
        return Err(task.failed(Errno::EXIST));
    }
    let made = make(&path, len, keeper);
    made.map_err(|error| task.failed(error))
}

/// The name comes last: whoever is killed in the middle of this leaves nothing.
fn make(path: &Path, len: u64, keeper: Option<i32>) -> io::Result<OwnedFd> {
    let fd = match open_at(Path::new(FOLDER), OFlags::TMPFILE) {
        // KERNEL: where the folder is no tmpfs, its file system may not know files without a name.
        Err(error) if is_unknown(&error) => return make_by_name(path, len, keeper),
        fd => fd?,
    };
    furnish(&fd, len, keeper)?;
    failpoint::pass("named.furnished");
    let file = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match rustix::fs::linkat(CWD, &file, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(fd),
        // KERNEL: without /proc there is no way to the file.
        Err(Errno::NOENT) => {
            drop(fd);
            make_by_name(path, len, keeper)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL)
    )
}

/// The same with the name first, which stays if we are killed before the file says whose it is.
fn make_by_name(path: &Path, len: u64, keeper: Option<i32>) -> io::Result<OwnedFd> {
    let fd = open_at(path, OFlags::CREATE | OFlags::EXCL)?;
    furnish(&fd, len, keeper).inspect_err(|_| {
        // If somebody else has removed it meanwhile, all the better.
        let _ = fs::remove_file(path);
    })?;
    Ok(fd)
}

fn furnish(fd: &OwnedFd, len: u64, keeper: Option<i32>) -> io::Result<()> {
    // Before it is marked: from then on, what nobody has locked may go.
    rustix::fs::flock(fd, FlockOperation::LockShared)?;
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
        // KERNEL: where the folder is no tmpfs, memory is found when it is touched.
        Err(Errno::OPNOTSUPP) => rustix::fs::ftruncate(fd, len)?,
        done => done?,
    }
    let Some(keeper) = keeper else { return Ok(()) };
    // KERNEL: without /proc nobody can tell who runs, so that nobody is promised to.
    let Some(keeper) = Keeper::of(keeper).or_else(|| Keeper::of(super::pid())) else { return Ok(()) };
    let as_it_is = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: keeper.mark(), last_modification: as_it_is };
    Ok(rustix::fs::futimens(fd, &times)?)
}

/// Opens shared memory, and says that it is in use here.
///
/// # Blocking
/// For the moment in which somebody sweeps. A signal ends it.
///
/// # Errors
/// `NotFound`; it may not be opened; a signal came.
pub fn open(name: &str) -> Result<OwnedFd, NameError> {
    let task = Task { doing: "open", name };
    let fd = open_at(&task.path()?, OFlags::empty()).map_err(|error| task.failed(error))?;
    rustix::fs::flock(&fd, FlockOperation::LockShared).map_err(|error| task.failed(error))?;
    let told = rustix::fs::fstat(&fd).map_err(|error| task.failed(error))?;
    // Somebody has swept it away before the lock was had.
    if told.st_nlink == 0 { Err(task.failed(Errno::NOENT)) } else { Ok(fd) }
}

/// Says that it is not in use here any more, be it that the descriptor or a mapping stays.
///
/// # Errors
/// It is no file.
///
/// # Fork
/// Parent and child have one use of what was inherited: only who has opened it should say so.
pub fn let_go(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(fd, FlockOperation::Unlock)?)
}

/// Removes a name. Whoever has the memory open keeps it.
///
/// # Errors
/// `NotFound`.
pub fn remove(name: &str) -> Result<(), NameError> {
    let task = Task { doing: "remove", name };
    fs::remove_file(task.path()?).map_err(|error| task.failed(error))
}

/// Removes the names that begin so, whoever uses the memory.
pub fn remove_all(prefix: &str) {
    for entry in entries() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            // One that is gone meanwhile is what was wanted.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// When it is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// In passing.
    Passing,
    /// As the last thing that this process does: it counts as over.
    Leaving,
}

/// Removes the names that nobody needs any more: whose keeper is over, and which nobody has open.
pub fn sweep(when: Sweep) {
    for entry in entries() {
        // One that is gone meanwhile, or not ours to look at, is nobody's concern here.
        let _ = sweep_one(&entry, when);
    }
}

fn entries() -> impl Iterator<Item = DirEntry> {
    fs::read_dir(FOLDER).into_iter().flatten().flatten()
}

fn is_kept(told: &Metadata, when: Sweep) -> bool {
    let Kept::By(keeper) = Kept::read(told.atime(), told.atime_nsec()) else { return true };
    if when == Sweep::Leaving && keeper.pid == super::pid() {
        return false;
    }
    Keeper::of(keeper.pid) == Some(keeper)
}

fn sweep_one(entry: &DirEntry, when: Sweep) -> io::Result<()> {
    let told = entry.metadata()?;
    if !told.is_file() || told.uid() != rustix::process::geteuid().as_raw() || is_kept(&told, when) {
        return Ok(());
    }
    let path = entry.path();
    let fd = open_at(&path, OFlags::empty())?;
    // Refused while anybody has it open. Who comes now waits for this lock, then finds that it is gone.
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    failpoint::pass("named.sweeping");
    let now = fs::symlink_metadata(&path)?;
    if (now.dev(), now.ino()) == (told.dev(), told.ino()) {
        fs::remove_file(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Forked, PidFd, exit_now, fill_random, fork, pid};
    use proptest::prelude::*;

    /// A name that nobody has, which is gone with this value.
    struct Name(String);

    impl Name {
        fn new() -> Self {
            let mut dice = [0; 8];
            fill_random(&mut dice).unwrap();
            Self(format!("billiard-test-{:x}", u64::from_ne_bytes(dice)))
        }

        fn is_there(&self) -> bool {
            PathBuf::from(FOLDER).join(&self.0).exists()
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = remove(&self.0);
        }
    }

    /// Runs something in a child that ends without tidying up, and answers its process id.
    fn in_child_that_dies(body: impl FnOnce()) -> i32 {
        match fork().unwrap() {
            Forked::Child => {
                body();
                exit_now(0)
            }
            Forked::Parent(pid) => {
                PidFd::open(pid).unwrap().wait().unwrap();
                pid
            }
        }
    }

    fn kind(error: &NameError) -> io::ErrorKind {
        match error {
            NameError::Os { source, .. } => source.kind(),
            NameError::NoName(_) => io::ErrorKind::InvalidInput,
        }
    }

    #[test]
    fn it_is_made_once_opened_and_removed() {
        let name = Name::new();
        let made = create(&name.0, 100, Some(pid())).unwrap();
        assert_eq!(rustix::fs::fstat(&made).unwrap().st_size, 100);
        assert_eq!(kind(&create(&name.0, 1, None).unwrap_err()), io::ErrorKind::AlreadyExists);
        rustix::io::pwrite(&made, b"abc", 0).unwrap();
        let mut read = [0; 4];
        rustix::io::pread(open(&name.0).unwrap(), &mut read, 0).unwrap();
        assert_eq!(&read, b"abc\0");
        remove(&name.0).unwrap();
        for error in [open(&name.0).unwrap_err(), remove(&name.0).unwrap_err()] {
            assert_eq!(kind(&error), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn what_there_is_no_memory_for_leaves_no_name() {
        let name = Name::new();
        create(&name.0, 1 << 60, None).unwrap_err();
        assert!(!name.is_there());
        let path = PathBuf::from(FOLDER).join(&name.0);
        make_by_name(&path, 1 << 60, None).unwrap_err();
        assert!(!name.is_there());
    }

    #[test]
    fn where_files_need_a_name_it_is_made_by_name() {
        let name = Name::new();
        let path = PathBuf::from(FOLDER).join(&name.0);
        let made = make_by_name(&path, 100, Some(pid())).unwrap();
        assert_eq!(make_by_name(&path, 1, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let kept = fs::metadata(&path).unwrap();
        let keeper = Keeper::of(pid()).unwrap();
        assert_eq!(Kept::read(kept.atime(), kept.atime_nsec()), Kept::By(keeper));
        assert_eq!(
            rustix::fs::fstat(&made).unwrap().st_ino,
            rustix::fs::fstat(open(&name.0).unwrap()).unwrap().st_ino
        );
    }

    #[test]
    fn of_many_who_make_it_at_once_one_does() {
        let name = Name::new();
        let made = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| {
                    let make = || create(&name.0, 4096, Some(pid())).is_ok();
                    std::thread::Builder::new().spawn_scoped(scope, make).unwrap()
                })
                .collect();
            makers.into_iter().map(|maker| usize::from(maker.join().unwrap())).sum::<usize>()
        });
        assert_eq!(made, 1);
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for name in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(matches!(create(name, 1, None), Err(NameError::NoName(_))));
            assert!(matches!(open(name), Err(NameError::NoName(_))));
            assert!(matches!(remove(name), Err(NameError::NoName(_))));
        }
    }

    #[test]
    fn what_the_dead_have_left_goes_when_nobody_uses_it() {
        let (used, left, kept) = (Name::new(), Name::new(), Name::new());
        let mut using = None;
        // The child is its own keeper, but for the last one.
        in_child_that_dies(|| {
            for (name, keeper) in
                [(&used, pid()), (&left, pid()), (&kept, super::super::parent_pid().unwrap())]
            {
                let fd = create(&name.0, 10, Some(keeper)).unwrap();
                // Closed by the end of the process.
                let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
            }
        });
        using.replace(open(&used.0).unwrap());
        sweep(Sweep::Passing);
        assert_eq!([&used, &left, &kept].map(Name::is_there), [true, false, true]);
        drop(using);
        sweep(Sweep::Passing);
        assert_eq!([&used, &kept].map(Name::is_there), [false, true]);
    }

    #[test]
    fn who_leaves_takes_along_what_nobody_uses() {
        let (used, free) = (Name::new(), Name::new());
        in_child_that_dies(|| {
            let using = create(&used.0, 10, Some(pid())).unwrap();
            let free = create(&free.0, 10, Some(pid())).unwrap();
            let_go(&free).unwrap();
            sweep(Sweep::Leaving);
            drop(using);
        });
        assert_eq!([&used, &free].map(Name::is_there), [true, false]);
    }

    #[test]
    fn a_keeper_that_is_over_is_replaced_and_nobody_sweeps_what_has_none() {
        let (late, free) = (Name::new(), Name::new());
        let dead = in_child_that_dies(|| {});
        drop(create(&late.0, 10, Some(dead)).unwrap());
        drop(create(&free.0, 10, None).unwrap());
        sweep(Sweep::Passing);
        assert_eq!([&late, &free].map(Name::is_there), [true, true]);
    }

    #[test]
    fn all_that_begin_alike_go_together() {
        let (one, other) = (Name::new(), Name::new());
        let more = Name(format!("{}-more", one.0));
        for name in [&one, &more, &other] {
            create(&name.0, 1, None).unwrap();
        }
        remove_all(&one.0);
        assert_eq!([&one, &more, &other].map(Name::is_there), [false, false, true]);
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(pid in 1..1 << 22, started in 1..i64::from(u32::MAX)) {
            let keeper = Keeper { pid, started };
            let Timespec { tv_sec, tv_nsec } = keeper.mark();
            prop_assert!((0..1_000_000_000).contains(&tv_nsec));
            prop_assert_eq!(Kept::read(tv_sec, tv_nsec), Kept::By(keeper));
        }

        #[test]
        fn usual_times_are_no_marks(seconds in -1 << 40..1_i64 << 40, nanoseconds in 0..1_000_000_000_i64) {
            prop_assert_eq!(Kept::read(seconds, nanoseconds), Kept::Unknown);
        }
    }
}
