//! Which program answers to a name on this host, and which Debian package brought it.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where programs look for `sendmail`, whatever their PATH says (FHS 3.0 §4.16).
const USUAL: [&str; 2] = ["/usr/sbin", "/usr/lib"];
/// The most folders of PATH that are looked into.
const MAX_FOLDERS: usize = 64;

/// The files that answer to `name`: in PATH, then where programs look anyway; each once.
pub fn named(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).take(MAX_FOLDERS).filter(|folder| folder.is_absolute());
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for folder in folders.chain(USUAL.map(PathBuf::from)) {
        let file = folder.join(name);
        // Two names of one file, as where /sbin is a link, are one.
        let Some(target) = file.canonicalize().ok().filter(|target| target.is_file()) else {
            continue;
        };
        if found.iter().all(|(_, other)| *other != target) {
            found.push((file, target));
        }
    }
    found.into_iter().map(|(file, _)| file).collect()
}

/// What a path leads to in the end.
pub fn target(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Whether the file at `path` is the program that runs.
pub fn is_this(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    identity(path).is_some() && identity(path) == identity(Path::new("/proc/self/exe"))
}

/// Which Debian package brought the file at `path`, as dpkg-query(1) knows; `None` where none did, or
/// where there is no dpkg.
pub fn package_of(path: &Path) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.arg("--search").arg(path).stdin(Stdio::null()).stderr(Stdio::null()).env("LC_ALL", "C");
    let output = query.output().ok().filter(|output| output.status.success())?;
    package_in(&String::from_utf8_lossy(&output.stdout), path)
}

/// The first package that a line of `dpkg-query --search` names for the path: `a, b: /path`.
fn package_in(found: &str, path: &Path) -> Option<String> {
    let mut lines = found.lines().filter_map(|line| line.split_once(": "));
    let (packages, _) =
        lines.find(|(who, file)| Path::new(file) == path && !who.starts_with("diversion "))?;
    let package = packages.split([',', ':']).next()?.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (!package.is_empty() && package.chars().all(is_name)).then(|| package.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_line() {
        let path = Path::new("/usr/sbin/sendmail");
        for (found, package) in [
            ("exim4-daemon-light: /usr/sbin/sendmail\n", Some("exim4-daemon-light")),
            ("dma:amd64, x: /usr/sbin/sendmail\n", Some("dma")),
            ("y: /usr/sbin/sendmail.y\nmsmtp-mta: /usr/sbin/sendmail\n", Some("msmtp-mta")),
            ("diversion by z from: /usr/sbin/sendmail\n", None),
            ("a b; reboot: /usr/sbin/sendmail\n", None),
            ("", None),
        ] {
            assert_eq!(package_in(found, path).as_deref(), package, "{found}");
        }
    }

    #[test]
    fn a_program_is_found_once() {
        let found = named("sh");
        assert!(!found.is_empty() && found.iter().all(|path| path.is_absolute()));
        assert!(named("no-such-program-here").is_empty());
        assert!(is_this(&env::current_exe().unwrap()) && !is_this(&found[0]));
        assert!(!is_this(Path::new("/nowhere")));
    }
}
