//! Random numbers of the kernel: for what must not repeat or be guessed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many numbers are asked for at once.
const SUPPLY: usize = 32;

/// A random number. Should the kernel have none at hand, one that at least never repeats in
/// this process.
pub fn number() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static SUPPLIED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let mut supplied = SUPPLIED.lock().unwrap_or_else(PoisonError::into_inner);
    if supplied.is_empty() {
        let mut octets = [0; 8 * SUPPLY];
        let flags = rustix::rand::GetRandomFlags::NONBLOCK;
        let count = rustix::rand::getrandom(&mut octets[..], flags).unwrap_or(0);
        let (numbers, _) = octets[..count].as_chunks();
        supplied.extend(numbers.iter().map(|number| u64::from_ne_bytes(*number)));
    }
    // Each is given once.
    supplied.pop().unwrap_or_else(|| {
        COUNTER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Octets that nobody can guess, for a challenge or a key.
///
/// # Errors
/// When the kernel has none to give.
pub fn octets<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    match rustix::rand::getrandom(&mut octets[..], rustix::rand::GetRandomFlags::empty())? {
        count if count == N => Ok(octets),
        _ => Err(io::Error::other("the kernel gave too few random numbers")),
    }
}
