//! What the system's allocator keeps.

/// Arenas of the allocator. Buffers of pieces come and go in bursts on all threads; with an arena for each thread, each
/// keeps room for the largest burst that ever fell to it, and memory grows for hours.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: i32 = 1;

/// Threads share what the allocator keeps. To be called before there are any.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no other way; it only sets a number before there are threads")]
pub fn is_shared_by_threads() {
    // SAFETY: no other thread runs yet, and any number is allowed.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    if set != 1 {
        tracing::debug!("the allocator keeps an arena for each thread");
    }
}

/// Other systems' allocators return what is free.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn is_shared_by_threads() {}

/// What the allocator keeps although nobody uses it goes back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no other way")]
pub fn is_given_back() {
    // SAFETY: any number is allowed, from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other systems' allocators return what is free.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn is_given_back() {}
