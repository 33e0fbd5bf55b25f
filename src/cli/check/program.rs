//! Looks whose `sendmail` the programs of this host call. It is of interest where the configuration
//! is the host's own: only that is what a `sendmail` of ours reads.

use std::path::Path;

use super::findings::Findings;
use super::host::Host;
use crate::cli::DEFAULT_CONFIG;
use crate::sys::programs;

/// Looks at all that answer to the name.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    if host.config != Path::new(DEFAULT_CONFIG) {
        return;
    }
    let found = programs::named("sendmail");
    if found.is_empty() {
        let text = "there is none, so cron and the like cannot hand mail over; run: ln -s mailwren \
                    /usr/sbin/sendmail, where mailwren is in that folder";
        findings.warning(Path::new("/usr/sbin/sendmail"), None, text);
    }
    for path in found {
        let target = programs::target(&path);
        if programs::is_this(&target) || target.file_name().is_some_and(|name| name == "mailwren") {
            continue;
        }
        let package = programs::package_of(&path).or_else(|| programs::package_of(&target));
        let whose = match &package {
            Some(package) => format!("it is that of the package {package}"),
            None if target != path => format!("it is {}", target.display()),
            None => "it is another program's".to_owned(),
        };
        let remove = match package {
            Some(package) => format!("remove that package: apt-get remove {package}"),
            None => "put a link to mailwren in its place".to_owned(),
        };
        let text = format!("{whose}, so programs that call it hand their mail to that; {remove}");
        findings.warning(&path, None, text);
    }
}
