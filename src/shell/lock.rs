//! Locking of a `std::sync::Mutex`. All code of the shell locks this way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the mutex even if another task panicked while it held the lock: a panic is the error of one canary, and the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
