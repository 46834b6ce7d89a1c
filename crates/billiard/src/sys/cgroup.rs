//! The control groups of this process: where their files are, from its own group up to the root.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The two generations of control groups; their files have different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// The folder of one control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which file names to expect in it.
    pub version: Version,
    /// The folder.
    pub folder: PathBuf,
}

impl Group {
    /// The trimmed text of one of the group's files; `None` where the controller is not active.
    #[must_use]
    pub fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(file)).ok().map(|text| text.trim().to_owned())
    }
}

/// The groups that limit this process through `controller` (`cpu`, `memory`), innermost first. Empty without control
/// groups: then nothing is limited.
#[must_use]
pub fn groups(controller: &str) -> Vec<Group> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    locate(controller, &read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// Finds the groups from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
#[must_use]
pub fn locate(controller: &str, memberships: &str, mounts: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = match controllers {
            "" => Version::V2,
            list if list.split(',').any(|name| name == controller) => Version::V1,
            _ => continue,
        };
        if let Some(mount) =
            mounts.lines().filter_map(Mount::parse).find(|mount| mount.carries(version, controller))
        {
            found.extend(mount.upwards(path).map(|folder| Group { version, folder }));
        }
    }
    found
}

struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `id parent device root point options [tags] - kind source super-options`
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1).unwrap_or_default();
        Some(Self { root: unescape(root), point: unescape(point), kind, options })
    }

    fn carries(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::V2 => self.kind == "cgroup2",
            Version::V1 => self.kind == "cgroup" && self.options.split(',').any(|name| name == controller),
        }
    }

    /// The folders from the group `path` up to the mount point. A path outside of what is mounted here, as containers
    /// without a namespace of their own see it, means the mount point itself.
    fn upwards(&self, path: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let inside = Path::new(path)
            .strip_prefix(&self.root)
            .ok()
            .filter(|inside| inside.components().all(|part| matches!(part, Component::Normal(_))));
        // Joining nothing would leave a slash at the end.
        let inside = inside.filter(|inside| !inside.as_os_str().is_empty());
        let mut folder = Some(inside.map_or_else(|| self.point.clone(), |inside| self.point.join(inside)));
        let top = self.point.clone();
        std::iter::from_fn(move || {
            let here = folder.take()?;
            if here != top {
                folder = here.parent().map(Path::to_path_buf);
            }
            Some(here)
        })
    }
}

/// The kernel writes blanks and backslashes in paths as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code =
            tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some(digits) = code {
            out.push(
                digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
            );
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    PathBuf::from(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn folders(groups: &[Group]) -> Vec<&str> {
        groups.iter().map(|group| group.folder.to_str().unwrap()).collect()
    }

    #[test]
    fn a_v2_group_is_followed_up_to_the_mount() {
        let groups = locate(
            "cpu",
            "0::/user.slice/a.scope\n",
            "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert_eq!(
            folders(&groups),
            ["/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]
        );
        assert!(groups.iter().all(|group| group.version == Version::V2));
    }

    #[test]
    fn a_container_that_sees_the_hosts_path_gets_the_mount_point() {
        let mounts = "40 30 0:30 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n";
        let inside = locate("cpu", "4:cpu,cpuacct:/docker/abc/job\n", mounts);
        assert_eq!(folders(&inside), ["/sys/fs/cgroup/cpu/job", "/sys/fs/cgroup/cpu"]);
        let outside = locate("cpu", "4:cpu,cpuacct:/elsewhere\n", mounts);
        assert_eq!(folders(&outside), ["/sys/fs/cgroup/cpu"]);
        assert_eq!(outside[0].version, Version::V1);
    }

    #[test]
    fn a_path_that_climbs_out_of_the_namespace_is_not_followed() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(folders(&locate("cpu", "0::/../sibling\n", mounts)), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn the_other_controllers_hierarchy_is_not_mine() {
        let mounts = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert!(locate("cpu", "4:cpuacct:/x\n3:memory:/x\n", mounts).is_empty());
        assert_eq!(locate("memory", "3:memory:/x\n", mounts).len(), 2);
    }

    #[test]
    fn blanks_in_paths_are_understood() {
        let mounts = "1 1 0:1 / /mnt/with\\040blank rw shared:1 master:2 - cgroup2 none rw\n";
        assert_eq!(folders(&locate("cpu", "0::/\n", mounts)), ["/mnt/with blank"]);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(memberships in ".{0,200}", mounts in ".{0,200}", text in "[\\\\0-9a ]{0,40}") {
            let _ = locate("cpu", &memberships, &mounts);
            let _ = unescape(&text);
        }
    }
}
