//! `mailwren demo`: the whole server with no configuration and no privileges. It writes a
//! configuration into its folder, so that what one has tried can be kept and changed.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Ran;
use super::invocation::{Argument, Invocation};
use super::output::{say, warn};
use super::serve::serve;
use crate::report::log_format;
use crate::sys::process::exit;

/// Whom the printed example writes to; any other name would do.
const SOMEBODY: &str = "ann";

/// Serves until it is interrupted.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let (mut listen, mut folder) = ("127.0.0.1:2525".to_owned(), PathBuf::from("mailwren-demo"));
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Option("listen", value) => listen = value.to_string_lossy().into_owned(),
            Argument::Option("dir", value) => folder = value.into(),
            other => return Err(other.unexpected()),
        }
    }
    let address: SocketAddr = listen
        .parse()
        .map_err(|_| format!("--listen {listen:?}: give an address and a port, 127.0.0.1:2525"))?;
    let (path, text) = match prepare(&folder, address) {
        Ok(prepared) => prepared,
        Err(error) => {
            warn(format_args!("{}: {error}", folder.display()));
            return Ok(exit::OSERR);
        }
    };
    let settings =
        match crate::config::parse(&path.to_string_lossy(), text.as_bytes(), super::host_names()) {
            Ok(settings) => settings,
            Err(error) => {
                warn(error);
                return Ok(exit::CONFIG);
            }
        };
    log_format::start(settings.log_level, settings.log_to);
    Ok(serve(settings, &path, |address| tell(&path, address)))
}

/// Makes the folder and writes its configuration.
fn prepare(folder: &Path, address: SocketAddr) -> io::Result<(PathBuf, String)> {
    fs::create_dir_all(folder.join("mail"))?;
    let folder = folder.canonicalize()?;
    let text = configuration(&folder, address);
    let path = folder.join("mailwren.ini");
    fs::write(&path, &text)?;
    Ok((path, text))
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "# Written by mailwren demo: mail for anybody at any domain lands in {folder}/mail.\n\
         [server]\n\
         domains = *\n\
         user = root\n\
         spool = {folder}/spool\n\
         state = {folder}/state\n\
         socket = {folder}/submit.sock\n\
         min_free_space = 1M\n\
         \n\
         [listen.demo]\n\
         address = {address}\n\
         \n\
         [local]\n\
         format = maildir\n\
         path = {folder}/mail/{{user}}\n\
         users = any\n\
         aliases =\n"
    )
}

/// Prints the two commands: one sends a first message, the other reads it.
fn tell(config: &Path, address: Option<SocketAddr>) {
    let program = std::env::current_exe().unwrap_or_else(|_| "mailwren".into());
    let mail = config.with_file_name("mail").join(SOMEBODY).join("new");
    let address = address.map_or_else(String::new, |address| format!(" on {address}"));
    say(format_args!(
        "mailwren accepts mail{address} for anybody. In another terminal, send a first message:\n\
         \n\
         \x20   printf 'Subject: hello\\n\\nMy first message.\\n' | {} --config {} sendmail {SOMEBODY}\n\
         \n\
         and read it:\n\
         \n\
         \x20   cat {}/*\n\
         \n\
         Any mail program may use the port too. Ctrl-C stops the demo; the mail stays.\n",
        quoted(&program),
        quoted(config),
        quoted(&mail),
    ));
}

/// The path as one word of a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if is_plain { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
