//! Connections that are kept for the next message to the same next hop.
//!
//! The lock is held to move connections in and out and never while talking to anybody.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::deliver::conversation::SmtpConnection;
use crate::route::next_hop::NextHop;

/// The most idle connections to one next hop.
pub const MAX_IDLE_PER_NEXT_HOP: usize = 4;
/// The most idle connections altogether.
pub const MAX_IDLE: usize = 64;
/// How long a connection is kept without work.
pub const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// The most messages over one connection, so that a destination which spreads its load over
/// several hosts gets to do so.
pub const MAX_MESSAGES: u32 = 100;

/// An open session with a host.
#[derive(Debug)]
pub struct Connection {
    /// The session.
    pub session: SmtpConnection<TcpStream>,
    /// The host, `name[address]:port`.
    pub remote: String,
    /// How many messages it was used for.
    pub messages: u32,
}

/// The idle connections of all relay workers.
#[derive(Debug, Default)]
pub struct Connections {
    idle: Mutex<HashMap<NextHop, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Connections {
    /// A live connection to `next_hop`, if there is one. Those that turn out to be closed by
    /// the peer are dropped.
    pub fn take(&self, next_hop: &NextHop) -> Option<Connection> {
        loop {
            let mut connection = self.pop(next_hop)?;
            if connection.session.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next message; where it has served its time, or there are
    /// enough already, says QUIT.
    pub fn put(&self, next_hop: &NextHop, connection: Connection) {
        let is_spent = connection.messages >= MAX_MESSAGES || !connection.session.is_sound();
        let left_over = if is_spent { Some(connection) } else { self.push(next_hop, connection) };
        if let Some(connection) = left_over {
            connection.session.quit();
        }
    }

    /// Says QUIT on connections that were idle for [`MAX_IDLE_TIME`]. Returns whether others are
    /// left.
    pub fn close_idle(&self) -> bool {
        self.close_older_than(MAX_IDLE_TIME);
        !self.lock().is_empty()
    }

    fn close_older_than(&self, age: Duration) {
        let mut old = Vec::new();
        self.lock().retain(|_, connections| {
            old.extend(connections.extract_if(.., |idle| idle.since.elapsed() >= age));
            !connections.is_empty()
        });
        for idle in old {
            idle.connection.session.quit();
        }
    }

    fn pop(&self, next_hop: &NextHop) -> Option<Connection> {
        let mut idle = self.lock();
        let connections = idle.get_mut(next_hop)?;
        // The last one in was used last and is the least likely to be closed.
        let connection = connections.pop().map(|idle| idle.connection);
        if connections.is_empty() {
            idle.remove(next_hop);
        }
        connection
    }

    /// Gives the connection back where there is no room for it.
    fn push(&self, next_hop: &NextHop, connection: Connection) -> Option<Connection> {
        let mut idle = self.lock();
        if idle.values().map(Vec::len).sum::<usize>() >= MAX_IDLE {
            return Some(connection);
        }
        let connections = idle.entry(next_hop.clone()).or_default();
        if connections.len() >= MAX_IDLE_PER_NEXT_HOP {
            return Some(connection);
        }
        connections.push(Idle { connection, since: Instant::now() });
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NextHop, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says QUIT on all of them.
impl Drop for Connections {
    fn drop(&mut self) {
        self.close_older_than(Duration::ZERO);
    }
}
