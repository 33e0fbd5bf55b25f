//! TLS on listeners: the certificate that they show, and what a handshake comes to.
//!
//! The certificate is read when the first client wants it, and again when its files have
//! changed, as after a renewal. One that cannot be used never replaces one that can: certbot
//! writes the two files one after the other. An idle server has nothing of OpenSSL's in memory.

pub mod certificate;
pub mod files;
pub mod handshake;
mod profile;
pub mod secured;
mod self_signed;

use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openssl::ssl::SslContext;

use crate::config::settings::{ListenerTls, Settings, TlsVersion};
use crate::mail::address::DomainName;
use crate::mail::date::CivilTime;
use crate::sys::clock;
use crate::sys::disk::Disk;
use crate::sys::files::with_path;

use certificate::{Certificate, Part};
use files::{Files, Octets, Unreadable};

/// The folder in `[server] state` where a certificate of our own is.
const OWN_FOLDER: &str = "tls";
const SECONDS_PER_DAY: i64 = 86_400;
/// How long before its end a certificate is complained of.
pub const EXPIRES_SOON_SECONDS: i64 = 14 * SECONDS_PER_DAY;

/// The certificate of all listeners.
pub struct Certificates {
    /// Those of `[tls]`.
    named: Files,
    is_configured: bool,
    /// Those that the server makes itself.
    own: Files,
    own_folder: PathBuf,
    host: DomainName,
    /// Whether one of our own has to suit devices of before TLS 1.2.
    is_for_old_devices: bool,
    /// Whether anybody will ask.
    is_needed: bool,
    state: Mutex<State>,
}

/// What a handshake needs: the certificate, the ciphers and the versions.
pub struct Acceptor {
    context: SslContext,
    minimum: TlsVersion,
}

#[derive(Default)]
struct State {
    /// What was read while the server still was root.
    from_start: Option<Octets>,
    /// What the files held when they were last parsed, usable or not.
    seen: Option<Octets>,
    /// The last that was usable.
    usable: Option<Arc<Certificate>>,
    /// The complaint that stands in the log.
    told: String,
    /// The fingerprint that stands in the log.
    announced: String,
    /// The day, counted from 1970, on which the dates of the certificate were last looked at.
    day: i64,
}

/// Why there is no new certificate.
struct Trouble {
    /// What was parsed in vain.
    octets: Option<Octets>,
    text: String,
}

impl fmt::Debug for Certificates {
    /// Tells nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("is_configured", &self.is_configured).finish()
    }
}

impl Certificates {
    /// The certificate that the settings name. To be made while the process still is root, who
    /// may read files that nobody else may.
    pub fn new(settings: &Settings) -> Self {
        let certificates = Self::named_by(settings);
        if certificates.is_needed && !certificates.uses_own() {
            certificates.state().from_start = certificates.named.load().ok();
        }
        certificates
    }

    fn named_by(settings: &Settings) -> Self {
        let listeners = || settings.listeners.iter().filter(|it| it.tls != ListenerTls::None);
        let own_folder = settings.server.state.join(OWN_FOLDER);
        let [own_certificate, own_key] = self_signed::paths(&own_folder);
        Self {
            named: Files::new(settings.tls.certificate.clone(), settings.tls.key.clone()),
            is_configured: settings.tls.is_configured,
            own: Files::of_server(own_certificate, own_key),
            own_folder,
            host: settings.server.hostname.clone(),
            is_for_old_devices: listeners().any(|it| it.tls_minimum < TlsVersion::V1_2),
            is_needed: listeners().next().is_some(),
            state: Mutex::default(),
        }
    }

    /// Whether these are what the settings name, so that they can go on being shown.
    pub fn suit(&self, settings: &Settings) -> bool {
        let others = Self::named_by(settings);
        let paths =
            |files: &Files| [Part::Certificate, Part::Key].map(|part| files.path(part).to_owned());
        paths(&self.named) == paths(&others.named)
            && paths(&self.own) == paths(&others.own)
            && self.is_configured == others.is_configured
            && self.host == others.host
            && self.is_for_old_devices == others.is_for_old_devices
            && self.is_needed == others.is_needed
    }

    /// Looks whether the files that the settings name can be used.
    ///
    /// # Errors
    /// What is wrong with which file, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match self.is_needed && !self.uses_own() {
            true => self.read_named().map(drop).map_err(|trouble| trouble.text),
            false => Ok(()),
        }
    }

    /// Looks whether there is a certificate to show, and makes one where there is none. To be
    /// called as the account that the server runs as. What is wrong goes to the log; the
    /// server is of use without TLS, too.
    pub fn prepare(&self) {
        if !self.is_needed {
            return;
        }
        if !self.uses_own() {
            // Nothing is kept of it: the first handshake may be far away.
            return match self.read_named() {
                Ok((_, certificate)) => self.announce(&certificate),
                Err(trouble) => self.complain(trouble.text, false),
            };
        }
        // One that is broken in other ways is found by the first handshake.
        if self.own.load().is_ok_and(|octets| octets.look_whole()) {
            return;
        }
        if let Err(trouble) = self.make_own() {
            self.complain(trouble.text, false);
        }
    }

    /// What a handshake needs on a listener whose oldest version this is; `None` where there is
    /// no certificate to show, which is said in the log.
    pub fn acceptor(&self, minimum: TlsVersion) -> Option<Acceptor> {
        match self.current()?.context(minimum) {
            Ok(context) => Some(Acceptor { context, minimum }),
            Err(unusable) => {
                self.complain(unusable.text, false);
                None
            }
        }
    }

    /// Reads the files again, whether they seem to have changed or not, and says in the log what
    /// came of it.
    pub fn reload(&self) {
        if !self.is_needed {
            return;
        }
        {
            let mut state = self.state();
            (state.seen, state.told, state.announced) = (None, String::new(), String::new());
        }
        self.current();
    }

    /// Whether the server shows one that it made itself.
    pub fn uses_own(&self) -> bool {
        !self.is_configured && self.named.are_missing()
    }

    /// The certificate to show now.
    fn current(&self) -> Option<Arc<Certificate>> {
        let is_own = self.uses_own();
        let files = if is_own { &self.own } else { &self.named };
        if let Ok(octets) = files.load()
            && self.state().seen.as_ref() == Some(&octets)
        {
            let usable = self.state().usable.clone();
            if let Some(certificate) = &usable {
                self.remind(files.path(Part::Certificate), certificate);
            }
            return usable;
        }
        match if is_own { self.read_own() } else { self.read_named() } {
            Ok((octets, certificate)) => Some(self.take(octets, certificate)),
            Err(Trouble { octets, text }) => {
                let usable = {
                    let mut state = self.state();
                    state.seen = octets.or_else(|| state.seen.take());
                    state.usable.clone()
                };
                self.complain(text, usable.is_some());
                usable.or_else(|| self.of_start())
            }
        }
    }

    /// The one that could be read while the server was root, where nothing later can.
    fn of_start(&self) -> Option<Arc<Certificate>> {
        let octets = self.state().from_start.take()?;
        let certificate = octets.parse().ok()?;
        Some(self.take(octets, certificate))
    }

    fn take(&self, octets: Octets, certificate: Certificate) -> Arc<Certificate> {
        self.announce(&certificate);
        let certificate = Arc::new(certificate);
        let mut state = self.state();
        state.from_start = None;
        state.seen = Some(octets);
        state.usable = Some(Arc::clone(&certificate));
        certificate
    }

    fn read_named(&self) -> Result<(Octets, Certificate), Trouble> {
        read(&self.named)
    }

    fn read_own(&self) -> Result<(Octets, Certificate), Trouble> {
        match read(&self.own) {
            // Half written, or not there at all.
            Err(trouble) if trouble.octets.is_some() || self.own.are_missing() => self.make_own(),
            result => result,
        }
    }

    /// Makes a certificate and keeps it, unless another thread was quicker.
    fn make_own(&self) -> Result<(Octets, Certificate), Trouble> {
        let make = || -> io::Result<()> {
            let folder = Disk::host().make_private_folder(&self.own_folder)?;
            folder.lock()?;
            if read(&self.own).is_ok() {
                return Ok(());
            }
            let made = self_signed::make(&self.host, self.is_for_old_devices)?;
            self_signed::keep(&folder, &made)?;
            log::warn!(
                "no certificate is configured, so the server has made one, which clients cannot \
                 check: {}; name one of a known authority in [tls], or have clients compare the \
                 fingerprint",
                self.own_folder.join(self_signed::CERTIFICATE).display()
            );
            Ok(())
        };
        make().map_err(|error| {
            let error = with_path(error, &self.own_folder);
            let text = format!(
                "{error}; no certificate could be made there, let the account of [server] user \
                 write it or name one in [tls]"
            );
            Trouble { octets: None, text }
        })?;
        let (octets, certificate) = read(&self.own)?;
        self.announce(&certificate);
        Ok((octets, certificate))
    }

    /// Says which certificate is shown, once each.
    fn announce(&self, certificate: &Certificate) {
        let fingerprint = certificate.fingerprint();
        {
            let mut state = self.state();
            state.told.clear();
            if state.announced == fingerprint {
                return;
            }
            state.announced.clone_from(&fingerprint);
        }
        let files = if self.uses_own() { &self.own } else { &self.named };
        let path = files.path(Part::Certificate);
        let until = date(certificate.validity().map_or(i64::MAX, |(_, end)| end));
        log::info!(
            "{}: the certificate for TLS, valid until {until}, SHA-256 {fingerprint}",
            path.display()
        );
        let now = now();
        self.state().day = now / SECONDS_PER_DAY;
        tell_dates(path, certificate, now);
        if self.is_for_old_devices && !certificate.suits_old_devices() {
            log::warn!(
                "{}: its key is not RSA, so most devices of before TLS 1.2 cannot use it; have \
                 one with an RSA key",
                path.display()
            );
        }
    }

    /// Says once a day what is wrong with the dates of a certificate that nobody has renewed.
    fn remind(&self, path: &Path, certificate: &Certificate) {
        let now = now();
        let day = now / SECONDS_PER_DAY;
        let before = mem::replace(&mut self.state().day, day);
        if before != day {
            tell_dates(path, certificate, now);
        }
    }

    /// Says what is wrong, once as long as it is the same.
    fn complain(&self, text: String, has_old: bool) {
        let mut state = self.state();
        if state.told == text {
            return;
        }
        state.told.clone_from(&text);
        drop(state);
        match has_old {
            true => log::error!("{text}; until then the certificate of before is shown"),
            false => log::error!("{text}; until then there is no TLS, and STARTTLS gets 454"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole values are put in one after the other; any state in between is good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(files: &Files) -> Result<(Octets, Certificate), Trouble> {
    let octets = files
        .load()
        .map_err(|unreadable: Unreadable| Trouble { octets: None, text: unreadable.to_string() })?;
    match octets.parse() {
        Ok(certificate) => Ok((octets, certificate)),
        Err(unusable) => {
            let text = unusable.of_file(files.path(unusable.part));
            Err(Trouble { octets: Some(octets), text })
        }
    }
}

fn now() -> i64 {
    i64::try_from(clock::since_1970().as_secs()).unwrap_or(i64::MAX)
}

fn tell_dates(path: &Path, certificate: &Certificate, now: i64) {
    // What a clock that was not set says of them means nothing.
    if clock::is_plainly_wrong() {
        return;
    }
    if let Some((level, text)) = certificate.validity().and_then(|dates| of_dates(dates, now)) {
        log::log!(level, "{}: {text}", path.display());
    }
}

/// What is to be said of a certificate that is valid between these two moments.
fn of_dates((begin, end): (i64, i64), now: i64) -> Option<(log::Level, String)> {
    match now {
        _ if now < begin => {
            let text = format!("it is not valid before {}; look at the clock", date(begin));
            Some((log::Level::Warn, text))
        }
        _ if now >= end => {
            Some((log::Level::Error, "it has expired, clients refuse it; renew it".to_owned()))
        }
        _ if now >= end - EXPIRES_SOON_SECONDS => {
            Some((log::Level::Warn, format!("it expires on {}; renew it", date(end))))
        }
        _ => None,
    }
}

/// A moment, in seconds since 1970, as people read it.
pub fn date(seconds: i64) -> String {
    CivilTime::new(u64::try_from(seconds).unwrap_or(0), 0).rfc3339().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn the_dates_are_told_when_they_matter() {
        let level = |now| of_dates((100, 100 + 20 * SECONDS_PER_DAY), now).map(|(level, _)| level);
        assert_eq!(level(99), Some(Level::Warn));
        assert_eq!(level(100), None);
        assert_eq!(level(99 + 6 * SECONDS_PER_DAY), None);
        assert_eq!(level(100 + 6 * SECONDS_PER_DAY), Some(Level::Warn));
        assert_eq!(level(99 + 20 * SECONDS_PER_DAY), Some(Level::Warn));
        assert_eq!(level(100 + 20 * SECONDS_PER_DAY), Some(Level::Error));
    }
}
