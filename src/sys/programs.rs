//! Which program answers to a name on this host, and which Debian package brought it.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where programs look for `sendmail`, whatever their PATH says (FHS 3.0 §4.16).
const USUAL: [&str; 2] = ["/usr/sbin", "/usr/lib"];
/// The most folders of PATH that are looked into.
const MAX_FOLDERS: usize = 64;
/// The most of a package's list of files that is read, in octets.
const MAX_LIST: u64 = 1 << 20;

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

/// Which of these packages brought the file at `path`, by dpkg(1)'s lists.
pub fn package_of<'a>(path: &Path, packages: &[&'a str]) -> Option<&'a str> {
    let has = |package: &&str| {
        let list = format!("/var/lib/dpkg/info/{package}.list");
        let Ok(file) = File::open(list) else { return false };
        let mut lines = BufReader::new(file.take(MAX_LIST)).lines().map_while(Result::ok);
        lines.any(|line| Path::new(&line) == path)
    };
    packages.iter().copied().find(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_once() {
        let found = named("sh");
        assert!(!found.is_empty() && found.iter().all(|path| path.is_absolute()));
        assert!(named("no-such-program-here").is_empty());
        assert!(is_this(&env::current_exe().unwrap()) && !is_this(&found[0]));
        assert!(!is_this(Path::new("/nowhere")));
    }
}
