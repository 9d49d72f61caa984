//! When a command that runs until it is told to stop stops.

use std::io::Read;

use tokio::sync::oneshot;

/// Resolves on SIGINT (Ctrl-C), on SIGTERM, and, `exit_with_stdin`, at the end of standard input: so that what a program
/// started through a pipe ends with that program, whatever becomes of it.
///
/// Signals that come after the first poll are not lost while nobody polls.
pub async fn shutdown(exit_with_stdin: bool) {
    let stdin_ended = async { if exit_with_stdin { end_of_stdin().await } else { std::future::pending().await } };
    tokio::select! {
        () = signalled() => {}
        () = stdin_ended => {}
    }
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals end the process themselves.
        _ => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn signalled() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// Reads standard input away. By a thread of its own: tokio's would keep the process from ending.
async fn end_of_stdin() {
    let (ended, at_end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut ignored = [0; 1024];
        while !matches!(input.read(&mut ignored), Ok(0) | Err(_)) {}
        drop(ended);
    });
    // The sender is only ever dropped.
    let _ = at_end.await;
}
