//! The thread that carries packets between the TUN devices, when the [`Wires`] say.

use super::NetError;
use super::packet::FRAME_BYTES_MAX;
use super::tun;
use super::wires::Wires;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets taken from one device before the next has its turn.
const READS_IN_TURN: usize = 64;
/// Slower uplinks send single packets: several as one would be 13 ms and more.
const SEGMENTS_FROM_MBIT: f64 = 10.0;
/// Rest after each round with packets, so that one round takes several: halves the work under load, and is the most that it
/// adds to a delay on the way in and once more on the way out.
const REST: Duration = Duration::from_micros(100);
const CPU_READ_EVERY_NS: u64 = 100_000_000;
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// The forwarder; it runs until it is stopped or dropped.
pub struct Forwarder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    wires: Mutex<Wires>,
    /// By line.
    tuns: Vec<File>,
    stop: AtomicBool,
    wake: EventFd,
}

impl Forwarder {
    /// Starts it; `tuns` are by line.
    pub fn start(wires: Wires, tuns: Vec<File>) -> Result<Self, NetError> {
        let failed = |e: Errno| NetError::system("starting the forwarder", e);
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(failed)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .map_err(failed)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let event = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        epoll.add(&wake, event(WAKE)).map_err(failed)?;
        epoll.add(&timer, event(TIMER)).map_err(failed)?;
        for (line, tun) in tuns.iter().enumerate() {
            epoll.add(tun, event(line as u64)).map_err(failed)?;
        }
        let shared = Arc::new(Shared { wires: Mutex::new(wires), tuns, stop: AtomicBool::new(false), wake });
        let mut forwarder = Self { shared: Arc::clone(&shared), thread: None };
        forwarder.offer_offloads()?;
        let thread = std::thread::Builder::new()
            .name("lab-forwarder".into())
            .spawn(move || carry(&shared, &epoll, &timer))
            .map_err(|e| NetError::system("starting the forwarder", e))?;
        forwarder.thread = Some(thread);
        Ok(forwarder)
    }

    /// The links.
    pub fn wires(&self) -> MutexGuard<'_, Wires> {
        self.shared.wires()
    }

    /// Lets devices hand over several segments as one packet, where that distorts nothing.
    fn offer_offloads(&self) -> Result<(), NetError> {
        let wires = self.wires();
        let singles_only = wires.singles_only();
        for (line, tun) in self.shared.tuns.iter().enumerate() {
            let segments = !singles_only && wires.line(line).up_mbit >= SEGMENTS_FROM_MBIT;
            tun::set_offload(tun, segments).map_err(|e| NetError::system("setting a device's offloads", e))?;
        }
        Ok(())
    }

    /// The same again, after rates or losses changed.
    pub fn set_offloads(&self) {
        // The same call on the same devices worked when the network was built.
        let _ = self.offer_offloads();
    }

    /// Ends the thread; packets on their way are lost.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn carry(shared: &Shared, epoll: &Epoll, timer: &TimerFd) {
    prefer_this_thread();
    let started = Instant::now();
    let now = || started.elapsed().as_nanos() as u64;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut events = [EpollEvent::empty(); 64];
    let mut armed = None;
    let mut cpu_read_at = 0;
    let mut late = false;
    loop {
        let timeout = if late { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let ready = match epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let mut moved = false;
        let mut wires = shared.wires();
        for event in events.iter().take(ready) {
            let line = event.data() as usize;
            let Some(mut tun) = shared.tuns.get(line) else { continue };
            let read_at = now();
            for _ in 0..READS_IN_TURN {
                let Ok(bytes) = tun.read(&mut buffer) else { break };
                wires.enter(read_at, line, &buffer[..bytes]);
                moved = true;
            }
        }
        let until = now();
        while let Some((line, frame)) = wires.arrival(until) {
            let written = shared.tuns.get(line).map(|mut tun| tun.write(&frame));
            if !matches!(written, Some(Ok(_))) {
                wires.refused += 1;
            }
            wires.give_back(frame);
            moved = true;
        }
        if until >= cpu_read_at {
            cpu_read_at = until + CPU_READ_EVERY_NS;
            wires.cpu_s = cpu_seconds();
        }
        let next = wires.next_at();
        drop(wires);
        if moved {
            std::thread::sleep(REST);
        }
        let wait_ns = next.map(|next| next.saturating_sub(now()));
        late = wait_ns == Some(0);
        if !late && next != armed {
            let set = match wait_ns {
                Some(ns) => {
                    timer.set(Expiration::OneShot(TimeSpec::nanoseconds(ns as i64)), TimerSetTimeFlags::empty())
                }
                None => timer.unset(),
            };
            if set.is_err() {
                return;
            }
            armed = next;
        }
    }
}

/// The hosts' own work must not become delay on their links; nor may the kernel's rounding of timers.
fn prefer_this_thread() {
    let _ = nix::sys::prctl::set_timerslack(1);
    #[expect(unsafe_code, reason = "a system call with three numbers; it concerns this thread only")]
    unsafe {
        nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, -15);
    }
}

fn cpu_seconds() -> f64 {
    let spent = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    spent.map_or(0.0, |spent| spent.num_nanoseconds() as f64 / 1e9)
}
