//! What file system a path is on: how much room there is, and whether it lasts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

/// TMPFS_MAGIC and RAMFS_MAGIC of `linux/magic.h`.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// What is known of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// The octets that an unprivileged writer may still add.
    pub free_octets: u64,
    /// The files that may still be made; `None` where it has no such bound.
    pub free_files: Option<u64>,
    /// Whether nothing can be written.
    pub is_read_only: bool,
    /// Whether all of it is gone after a restart of the host.
    pub is_in_memory: bool,
}

impl FileSystem {
    /// The one that `path` is on.
    ///
    /// # Errors
    /// When there is nothing at the path, or the file system does not say.
    pub fn of(path: &Path) -> io::Result<Self> {
        let space = statvfs(path)?;
        // The field is wider or narrower elsewhere; the numbers have 32 bits.
        let kind = statfs(path)?.f_type as u32;
        Ok(Self {
            free_octets: space.f_bavail.saturating_mul(space.f_frsize),
            free_files: (space.f_files > 0).then_some(space.f_favail),
            is_read_only: space.f_flag.contains(StatVfsMountFlags::RDONLY),
            is_in_memory: IN_MEMORY.contains(&kind),
        })
    }
}

/// The mount point on the way to `path` that fstab(5) has and at which nothing is mounted.
pub fn unmounted(path: &Path) -> Option<PathBuf> {
    let text = |path| fs::read_to_string(path).ok();
    let mounted = mount_points(&text("/proc/self/mounts")?);
    let wanted = mount_points(&text("/etc/fstab")?);
    first_missing(path, &wanted, &mounted)
}

fn first_missing(path: &Path, wanted: &[PathBuf], mounted: &[PathBuf]) -> Option<PathBuf> {
    let is_missing = |point: &&PathBuf| path.starts_with(point) && !mounted.contains(point);
    wanted.iter().find(is_missing).cloned()
}

/// The second field of each line that has four, with the blanks in it, but for what is mounted only
/// when somebody asks.
fn mount_points(table: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().take(4).collect();
        let [device, point, _, options] = words[..] else { return None };
        let is_on_demand = options
            .split(',')
            .any(|word| word == "noauto" || word.starts_with("x-systemd.automount"));
        let is_one = point.starts_with('/') && !device.starts_with('#') && !is_on_demand;
        is_one.then(|| PathBuf::from(point.replace("\\040", " ")))
    };
    table.lines().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fstab_wants_and_is_not_mounted_is_found() {
        let fstab = "# a comment /x y z\nUUID=1 / ext4 defaults 0 1\n/dev/sda1 /mnt/a\\040b ext4 rw 0 2\n\
                     /dev/sdb1 /srv ext4 noauto 0 0\nserver:/x /net nfs x-systemd.automount,rw 0 0\n";
        let wanted = mount_points(fstab);
        let mounted = mount_points("/dev/root / ext4 rw,relatime 0 0\n");
        let missing = |path: &str| first_missing(Path::new(path), &wanted, &mounted);
        assert_eq!(missing("/mnt/a b/spool"), Some("/mnt/a b".into()));
        for path in ["/mnt/a", "/mnt/a bc", "/var/spool", "/srv/spool", "/net/spool"] {
            assert_eq!(missing(path), None, "{path}");
        }
    }

    #[test]
    fn memory_is_told_from_disk() {
        let proc = FileSystem::of(Path::new("/proc")).unwrap();
        assert!(!proc.is_in_memory && proc.free_octets == 0);
        assert!(FileSystem::of(Path::new("/dev/shm")).unwrap().is_in_memory);
        assert!(FileSystem::of(Path::new("/nowhere")).is_err());
    }
}
