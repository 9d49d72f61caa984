//! Threads that are there while there is work: a node may have hundreds of contents, of which few are busy.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::locked;

/// How long a thread waits for more before it ends.
const IDLE: Duration = Duration::from_secs(2);

/// Does one thing after the other, on a thread that comes when there is something to do and goes when there is nothing more.
pub(super) struct Worker<C>(Arc<Shared<C>>);

struct Shared<C> {
    name: &'static str,
    work: Box<dyn Fn(C) + Send + Sync>,
    todo: Mutex<Todo<C>>,
    more: Condvar,
}

struct Todo<C> {
    queue: VecDeque<C>,
    has_thread: bool,
}

impl<C: Send + 'static> Worker<C> {
    /// `name` is that of the thread.
    pub(super) fn new(name: &'static str, work: impl Fn(C) + Send + Sync + 'static) -> Self {
        let todo = Mutex::new(Todo { queue: VecDeque::new(), has_thread: false });
        Self(Arc::new(Shared { name, work: Box::new(work), todo, more: Condvar::new() }))
    }

    /// Hands over something to do.
    ///
    /// # Errors
    /// The system's, when it has no thread to give; then nothing was handed over.
    pub(super) fn give(&self, command: C) -> io::Result<()> {
        let mut todo = locked(&self.0.todo);
        if todo.has_thread {
            todo.queue.push_back(command);
            self.0.more.notify_one();
            return Ok(());
        }
        let shared = self.0.clone();
        thread::Builder::new().name(shared.name.into()).spawn(move || shared.run())?;
        todo.queue.push_back(command);
        todo.has_thread = true;
        Ok(())
    }
}

impl<C> Shared<C> {
    fn run(&self) {
        while let Some(command) = self.next() {
            (self.work)(command);
        }
    }

    /// What is to be done next; `None` when nothing came for a while, and the thread is to end.
    fn next(&self) -> Option<C> {
        let todo = locked(&self.todo);
        let wait = self.more.wait_timeout_while(todo, IDLE, |todo| todo.queue.is_empty());
        let (mut todo, _) = wait.unwrap_or_else(PoisonError::into_inner);
        let command = todo.queue.pop_front();
        todo.has_thread = command.is_some();
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_is_done_in_order_also_after_the_thread_has_gone() {
        let (send, done) = mpsc::channel();
        let worker = Worker::new("test", move |n: u32| send.send((n, thread::current().id())).unwrap());
        let mut threads = std::collections::HashSet::new();
        for n in 0..100 {
            worker.give(n).unwrap();
        }
        for n in 0..100 {
            let (got, thread) = done.recv().unwrap();
            assert_eq!(got, n);
            threads.insert(thread);
        }
        assert_eq!(threads.len(), 1);
        while locked(&worker.0.todo).has_thread {
            thread::yield_now();
        }
        worker.give(7).unwrap();
        assert_eq!(done.recv().unwrap().0, 7);
    }
}
