//! What the servers for tests share: a listener on a port of its own, a thread for each
//! connection, and a record of what each session was told.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A listener and what its sessions were told, each an `S`. Ends when dropped.
pub(crate) struct Sessions<S> {
    address: SocketAddr,
    record: Arc<Mutex<Vec<S>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Where one session notes what it is told.
pub(crate) struct Record<S> {
    all: Arc<Mutex<Vec<S>>>,
    /// The number of the session, from 0.
    pub(crate) number: usize,
}

impl<S> Record<S> {
    pub(crate) fn note(&self, change: impl FnOnce(&mut S)) {
        change(&mut self.all.lock().unwrap()[self.number]);
    }
}

impl<S: Clone + Default + Send + 'static> Sessions<S> {
    /// Listens at `address`, and has `serve` speak with each client. Its error is that of a client
    /// which leaves early; that is what many tests are about.
    pub(crate) fn new(
        address: &str,
        serve: impl Fn(TcpStream, &Record<S>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (all, over, serve) = (Arc::clone(&record), Arc::clone(&is_over), Arc::new(serve));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let number = {
                    let mut sessions = all.lock().unwrap();
                    sessions.push(S::default());
                    sessions.len() - 1
                };
                let record = Record { all: Arc::clone(&all), number };
                let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
                thread::spawn(move || serve(stream, &record).ok());
            }
        });
        Self { address, record, is_over, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the sessions were told so far.
    pub(crate) fn told(&self) -> Vec<S> {
        self.record.lock().unwrap().clone()
    }
}

impl<S> Drop for Sessions<S> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads up to the lone dot.
pub(crate) fn read_content(reader: &mut impl std::io::BufRead) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    while !(content == b".\r\n" || content.ends_with(b"\r\n.\r\n")) {
        if reader.read_until(b'\n', &mut content)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(content)
}
