//! Random numbers of the kernel: for what must not repeat or be guessed.

use std::sync::atomic::{AtomicU64, Ordering};

/// A random number. Should the kernel have none at hand, one that at least never repeats in
/// this process.
pub fn number() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut octets = [0; 8];
    match rustix::rand::getrandom(&mut octets[..], rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(octets),
        _ => COUNTER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}
