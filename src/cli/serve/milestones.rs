//! The moments in the life of the server that others may want to hear of: one function for each, and
//! nothing else says so.

/// Sessions are accepted, and the queue is at work.
pub(super) fn ready() {
    log::debug!("ready");
}

/// The configuration is about to be read again.
pub(super) fn reload_begins() {
    log::debug!("told to read the configuration again");
}

/// The configuration was read again, with these changes in words; or there is one mistake or more,
/// and everything stays as it was.
pub(super) fn reload_ended(outcome: &Result<String, Vec<String>>) {
    match outcome {
        Ok(changes) => log::info!("the configuration was read again: {changes}"),
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
            log::error!(
                "the configuration was not taken, and the one before stays in force; mend what the \
                 lines above name, and send SIGHUP again"
            );
        }
    }
}

/// The server has been told to stop while so many sessions are open.
pub(super) fn stopping(sessions: usize) {
    log::info!("stopping; {sessions} sessions open");
}
