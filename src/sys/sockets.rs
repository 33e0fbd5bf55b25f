//! Who listens on this host: the sockets as the kernel lists them in `/proc/net` (proc_net(5)), and
//! the processes that have them open. Everybody may see the sockets; whose they are only root, but
//! for one's own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The most of a list of sockets that is read, in octets: about 50 000 connections.
const MAX_LIST: u64 = 8 << 20;
/// The most of another file of `/proc`, in octets.
const MAX_FILE: u64 = 64 << 10;
/// The most processes, and the most open files of each, that are looked at.
const MAX_PROCESSES: usize = 32_768;
const MAX_OPEN_FILES: usize = 4096;
/// TCP_LISTEN of `net/tcp_states.h`, and the flag of a Unix socket that listens.
const LISTEN: &str = "0A";
const ACCEPTS: u32 = 0x10000;

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// The user id of who made it.
    pub owner: u32,
    /// By which a process that has it open is found.
    pub inode: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The number of the process that made it.
    pub parent: u32,
    /// Its name, as ps(1) has it: at most 15 octets.
    pub name: String,
    /// The file of its program, if we may know. One that was replaced meanwhile ends in ` (deleted)`.
    pub program: Option<PathBuf>,
    /// The unit of systemd that it belongs to, such as `exim4.service`.
    pub unit: Option<String>,
}

/// All TCP sockets that listen; none where the kernel does not tell.
pub fn listening() -> Vec<Listening> {
    let lists = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| read(Path::new(path), MAX_LIST));
    lists.iter().flat_map(|list| listening_in(list)).collect()
}

/// The inode of the socket that listens at `path`, if one does.
pub fn listening_at(path: &Path) -> Option<u64> {
    unix_in(&read(Path::new("/proc/net/unix"), MAX_LIST), path)
}

/// The processes that have the socket with this inode open, as far as we may know, parents before
/// their children.
pub fn holders(inode: u64) -> Vec<Process> {
    let target = format!("socket:[{inode}]");
    let has_it = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        let mut open = open.take(MAX_OPEN_FILES).flatten();
        open.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&target)))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> =
        pids.take(MAX_PROCESSES).filter(|pid| has_it(*pid)).filter_map(process).collect();
    let pids: Vec<_> = found.iter().map(|process: &Process| process.pid).collect();
    found.sort_by_key(|process| (pids.contains(&process.parent), process.pid));
    found
}

fn process(pid: u32) -> Option<Process> {
    let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let (name, parent) = name_and_parent(&read(&of("stat"), MAX_FILE))?;
    let program = fs::read_link(of("exe")).ok();
    let unit = unit_in(&read(&of("cgroup"), MAX_FILE));
    Some(Process { pid, parent, name, program, unit })
}

/// Reads `PID (NAME) STATE PARENT ...`; the name may have anything in it.
fn name_and_parent(stat: &str) -> Option<(String, u32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let parent = after.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((name.to_owned(), parent))
}

/// The service that a cgroup(7) file tells of: the last one on its path.
fn unit_in(cgroup: &str) -> Option<String> {
    let line =
        cgroup.lines().find(|line| line.starts_with("0::") || line.contains(":name=systemd:"));
    let path = line?.rsplit(':').next()?;
    let unit = path.split('/').rfind(|part| part.ends_with(".service"))?;
    let is_name = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.@\\:".contains(&octet);
    (unit.len() < 256 && unit.bytes().all(is_name)).then(|| unit.to_owned())
}

/// Reads the lines of `/proc/net/tcp` and `tcp6`: number, local address, remote address, state,
/// queues, timer, retransmissions, user id, timeout, inode.
fn listening_in(list: &str) -> impl Iterator<Item = Listening> {
    list.lines().filter_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().take(10).collect();
        let [_, local, _, LISTEN, _, _, _, owner, _, inode] = words[..] else { return None };
        Some(Listening {
            address: address(local)?,
            owner: owner.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    })
}

/// Reads `0100007F:0019`: words of 32 bits as they lie in memory, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = words.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match words.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let octets = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Finds a path in the lines of `/proc/net/unix`: number, references, protocol, flags, type, state,
/// inode, path.
fn unix_in(list: &str, path: &Path) -> Option<u64> {
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
        let inode = words.nth(2)?;
        // The path is all that follows, blanks and all.
        let (_, rest) = line.split_once(&format!(" {inode} "))?;
        let is_it = flags & ACCEPTS != 0 && Path::new(OsStr::from_bytes(rest.as_bytes())) == path;
        is_it.then(|| inode.parse().ok()).flatten()
    })
}

/// As much of a file as is allowed; nothing where it cannot be read.
fn read(path: &Path, most: u64) -> String {
    let mut octets = Vec::new();
    if let Ok(file) = File::open(path) {
        // What could be read before an error still counts.
        let _ = file.take(most).read_to_end(&mut octets);
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_sockets_that_listen_are_found() {
        let list = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 5304280 1 00000000fd938d7e 100 0 0 10 0
   1: 0100007F:0019 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0
   2: 00000000000000000000000001000000:024B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9 1 0 100
   3: 0100007F:00 0A
   4: 0100:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 8 1
   5: 0100007F:FFFFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 8 1
";
        if cfg!(target_endian = "big") {
            return;
        }
        let found: Vec<_> = listening_in(list).collect();
        let of = |address: &str, owner, inode| Listening {
            address: address.parse().unwrap(),
            owner,
            inode,
        };
        assert_eq!(found, [of("127.0.0.1:25", 101, 5_304_280), of("[::1]:587", 0, 9)]);
    }

    #[test]
    fn a_unix_socket_is_found_by_its_path() {
        let list = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000039df87df: 00000003 00000000 00000000 0001 03 11 /run/a b.sock
0000000039df87df: 00000002 00000000 00010000 0001 01 12 /run/a b.sock
00000000d1f566db: 00000003 00000000 00000000 0001 03    45
0000000039df87df: 00000002 00000000 00010000 0001 01 13 @/run/c
";
        let at = |path: &str| unix_in(list, Path::new(path));
        assert_eq!((at("/run/a b.sock"), at("/run/a"), at("/run/c")), (Some(12), None, None));
    }

    #[test]
    fn processes_and_units_are_read() {
        let read = |stat: &str| name_and_parent(stat);
        assert_eq!(read("812 (exim4) S 1 812 812"), Some(("exim4".to_owned(), 1)));
        assert_eq!(read("9 (a) S 7 (b) R 3 1"), Some(("a) S 7 (b".to_owned(), 3)));
        assert_eq!((read(""), read("9 (a"), read("9 (a) S x")), (None, None, None));
        for (cgroup, unit) in [
            ("0::/system.slice/exim4.service\n", Some("exim4.service")),
            ("9:name=systemd:/system.slice/a@b.service/x\n0::/\n", Some("a@b.service")),
            ("0::/user.slice/user-0.slice/session-1.scope", None),
            ("0::/a b;.service", None),
            ("4:memory:/a.service", None),
            ("", None),
        ] {
            assert_eq!(unit_in(cgroup).as_deref(), unit, "{cgroup}");
        }
    }

    #[test]
    fn this_process_is_found_by_what_it_has_open() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let found = listening().into_iter().find(|it| it.address == address).unwrap();
        let by = holders(found.inode);
        assert_eq!(by[0].pid, std::process::id());
        assert_eq!(by[0].program, std::env::current_exe().ok());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(listening_at(&path), None);
        let socket = UnixListener::bind(&path).unwrap();
        assert_eq!(holders(listening_at(&path).unwrap())[0].pid, std::process::id());
        drop(socket);
        assert_eq!(listening_at(&path), None);
    }
}
