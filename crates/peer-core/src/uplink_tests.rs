use super::*;

/// A line and who uses it, stepped by the millisecond: what is sent stands in one queue and leaves at the line's rate.
#[derive(Clone)]
struct Story {
    line: f64,
    told: Option<Rate>,
    children: u8,
    /// Bytes per second of the user's own, at a second.
    own: fn(u64) -> f64,
    /// Added to the way to one child: (child, second) to ms.
    detour: fn(u8, u64) -> f64,
    /// What a child's clock shows: (child, real µs) to µs.
    clock: fn(u8, u64) -> u64,
    /// Share of probes lost, in percent.
    lost: u64,
    /// Added to the way, at random up to so much.
    jitter_us: u64,
    /// What the line buffers.
    buffer_s: f64,
    seconds: u64,
    /// Every two seconds there is so much to send, in bytes; always something where it is none.
    segment: Option<f64>,
}

const STORY: Story = Story {
    line: 250_000.0,
    told: None,
    children: 4,
    own: |_| 0.0,
    detour: |_, _| 0.0,
    clock: |child, us| us + u64::from(child) * 977_000_000,
    lost: 0,
    jitter_us: 2_000,
    buffer_s: 0.3,
    seconds: 40,
    segment: None,
};

/// A node on the line.
struct Home {
    uplink: Uplink,
    sent: f64,
    waiting: f64,
    /// Milliseconds in which something waited to be sent.
    busy_ms: u64,
    /// Echoes under way: when they come and of which probe; by whom, and the time that they tell.
    echoes: BTreeMap<(u64, u64), (NodeId, u64)>,
}

impl Home {
    fn new(story: &Story, seed: u64) -> Home {
        let uplink = Uplink::new(Time(0), story.told, seed);
        Home { uplink, sent: 0.0, waiting: 0.0, busy_ms: 0, echoes: BTreeMap::new() }
    }

    /// A millisecond passes in which bytes stand in the queue for `waits` seconds: bytes sent.
    fn step(&mut self, story: &Story, ms: u64, waits: f64, dice: &mut Rng) -> f64 {
        let now = Time(ms * 1000);
        match story.segment {
            None => self.waiting = f64::MAX,
            Some(bytes) if ms % 2000 == 1 => self.waiting += bytes,
            Some(_) => {}
        }
        if self.waiting > 0.0 {
            self.busy_ms += 1;
            for child in 0..story.children {
                self.uplink.sends_to(now, NodeId([child; 32]));
            }
        }
        while let Some(entry) = self.echoes.first_entry().filter(|e| e.key().0 <= now.0) {
            let ((_, number), (child, shows)) = entry.remove_entry();
            self.uplink.echoed(now, child, number, shows);
        }
        let probes = if ms.is_multiple_of(20) { self.uplink.pulse(now, self.sent as u64) } else { Vec::new() };
        for probe in probes.into_iter().filter(|p| p.number % 100 >= story.lost) {
            let child = probe.to.0[0];
            // A packet of one's own may be just before it.
            let jitter_us = dice.below(story.jitter_us + (1_400.0 / story.line * 1e6) as u64);
            let waits_us = waits * 1e6 + (story.detour)(child, ms / 1000) * 1e3;
            let arrives = now.0 + 20_000 + waits_us as u64 + jitter_us;
            self.echoes.insert((arrives + 20_000, probe.number), (probe.to, (story.clock)(child, arrives)));
        }
        let sends = (self.uplink.rate().0 as f64 / 1000.0).min(self.waiting);
        self.waiting -= sends;
        self.sent += sends;
        sends
    }
}

/// After the first five seconds: share of what the user's own traffic left, and the queue in ms that is not passed 95 % of
/// the time.
fn run(story: &Story) -> (f64, f64) {
    let (share, queue) = run_homes(story, &mut [Home::new(story, 7)]);
    (share[0], queue)
}

/// The same for several nodes on one line, each of which begins ten seconds after the one before.
fn run_homes(story: &Story, homes: &mut [Home]) -> (Vec<f64>, f64) {
    let (mut queue, mut left_over, mut queues) = (0.0f64, 0.0f64, Vec::new());
    let (mut served, mut dice) = (vec![0.0; homes.len()], Rng::new(3, "jitter"));
    let settled = 5 + 10 * (homes.len() as u64 - 1);
    for ms in 1..story.seconds * 1000 {
        let (second, waits) = (ms / 1000, queue / story.line);
        let mut comes = (story.own)(second) / 1000.0;
        for (n, home) in homes.iter_mut().enumerate().filter(|(n, _)| second >= 10 * *n as u64) {
            let sends = home.step(story, ms, waits, &mut dice);
            comes += sends;
            served[n] += if second >= settled { sends } else { 0.0 };
        }
        queue = (queue + comes - story.line / 1000.0).clamp(0.0, story.line * story.buffer_s);
        if second >= settled {
            queues.push(queue / story.line * 1e3);
            left_over += (story.line - (story.own)(second)).max(0.0) / 1000.0;
        }
    }
    queues.sort_by(f64::total_cmp);
    (served.iter().map(|s| s / left_over).collect(), queues[queues.len() * 95 / 100])
}

#[track_caller]
fn check(story: &Story, least_share: f64, most_queue_ms: f64) {
    let (share, queue) = run(story);
    assert!(share >= least_share && queue <= most_queue_ms, "share {share:.3}, queue {queue:.1} ms");
}

#[test]
fn a_line_is_used_and_no_queue_stands() {
    check(&STORY, 0.9, 18.0);
    for (line, queue_ms) in [(60_000.0, 50.0), (1_250_000.0, 18.0), (12_500_000.0, 18.0)] {
        check(&Story { line, ..STORY }, 0.9, queue_ms);
    }
    for children in [1, 50] {
        check(&Story { children, ..STORY }, 0.9, 18.0);
    }
    // Told the line's rate, or less, or far more.
    check(&Story { told: Some(Rate(250_000)), ..STORY }, 0.9, 18.0);
    check(&Story { told: Some(Rate(2_500_000)), ..STORY }, 0.9, 18.0);
    let (share, queue) = run(&Story { told: Some(Rate(100_000)), ..STORY });
    assert!((0.39..=0.401).contains(&share) && queue < 1.0, "{share} {queue}");
}

#[test]
fn it_makes_room_for_the_user_and_takes_it_back() {
    let call = |second| if second / 8 % 2 == 1 { 62_500.0 } else { 0.0 };
    check(&Story { own: call, ..STORY }, 0.85, 25.0);
    // The user's own upload fills the line for a while: what is left is next to nothing.
    let all = |second| if (15..25).contains(&second) { 180_000.0 } else { 0.0 };
    check(&Story { own: all, ..STORY }, 0.75, 60.0);
}

#[test]
fn two_nodes_on_one_line_leave_each_other_a_share() {
    let story = Story { seconds: 120, ..STORY };
    let (shares, queue) = run_homes(&story, &mut [Home::new(&story, 7), Home::new(&story, 8)]);
    assert!(shares[0] + shares[1] > 0.85 && queue < 25.0, "{shares:?} {queue}");
    assert!(shares.iter().all(|s| *s > 0.15), "{shares:?}");
}

/// Segments of a stream, of so much of the line: they take little longer than the line needs for them.
#[test]
fn what_comes_in_bursts_goes_out_at_the_line_s_rate() {
    for line in [125_000.0, 250_000.0, 750_000.0, 12_500_000.0] {
        for (used, children, jitter_us, most) in
            [(0.3, 1, 2_000, 1.15), (0.3, 1, 12_000, 1.15), (0.6, 2, 12_000, 1.15), (0.3, 2, 25_000, 2.2)]
        {
            let segment = Some(line * 2.0 * used);
            let story = Story { line, segment, seconds: 120, children, jitter_us, ..STORY };
            let mut homes = [Home::new(&story, 7)];
            let (_, queue) = run_homes(&story, &mut homes);
            let busy = homes[0].busy_ms as f64 / 120_000.0;
            let what = format!("line {line}, {used} of it used, jitter {jitter_us} us: {busy:.3}, queue {queue:.1} ms");
            assert!(busy <= used * most && queue <= 20.0, "{what}");
        }
    }
}

#[test]
fn far_congestion_clocks_and_lies_change_little() {
    let one_is_congested = |child, second| if child == 1 { 80.0 + (second % 3) as f64 * 40.0 } else { 0.0 };
    check(&Story { detour: one_is_congested, ..STORY }, 0.9, 18.0);
    let three_are = |child, second| if child < 3 { 80.0 + (second % 3) as f64 * 40.0 } else { 0.0 };
    check(&Story { detour: three_are, children: 6, ..STORY }, 0.9, 18.0);
    // Clocks are set, forwards and back, and run fast and slow by 100 in a million.
    let set = |_, us: u64| if us > 15_000_000 { us + 3_600_000_000 } else { us + 7_200_000_000 };
    check(&Story { clock: set, ..STORY }, 0.9, 18.0);
    let set = |_, us: u64| if us > 15_000_000 { us + 7_200_000_000 } else { us + 3_600_000_000 };
    check(&Story { clock: set, ..STORY }, 0.9, 18.0);
    let drifts = |child, us: u64| if child % 2 == 0 { us + us / 10_000 } else { us - us / 10_000 };
    check(&Story { clock: drifts, seconds: 240, ..STORY }, 0.9, 18.0);
    check(&Story { clock: |_, us| us + us / 10_000, children: 1, seconds: 240, ..STORY }, 0.85, 18.0);
    // One child says that nothing waits, or that all does, or anything.
    let none = |child, us: u64| if child == 0 { us - us % 10_000_000 } else { us };
    check(&Story { clock: none, ..STORY }, 0.9, 18.0);
    let grows = |child, us: u64| if child == 0 { us * 2 } else { us };
    check(&Story { clock: grows, ..STORY }, 0.9, 18.0);
    let noise = |child, us: u64| if child == 0 { us.wrapping_mul(0x9E37_79B9_7F4A_7C15) } else { us };
    check(&Story { clock: noise, ..STORY }, 0.9, 18.0);
    check(&Story { lost: 30, ..STORY }, 0.85, 25.0);
    check(&Story { jitter_us: 12_000, ..STORY }, 0.8, 18.0);
    check(&Story { jitter_us: 12_000, children: 1, ..STORY }, 0.8, 25.0);
}

#[test]
fn a_longer_route_is_learnt() {
    let longer = |_, second| if second >= 20 { 40.0 } else { 0.0 };
    check(&Story { detour: longer, seconds: 100, ..STORY }, 0.75, 25.0);
    let shorter = |_, second| if second < 20 { 40.0 } else { 0.0 };
    check(&Story { detour: shorter, ..STORY }, 0.9, 25.0);
}

#[test]
fn echoes_of_nothing_are_not_heard() {
    let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
    let mut uplink = Uplink::new(Time(0), None, 7);
    uplink.sends_to(Time(1), a);
    uplink.sends_to(Time(1), b);
    let probes = uplink.pulse(Time(1), 1);
    assert_eq!(probes.len(), 2, "nothing is known of either");
    let probe = probes[0];
    let other = if probe.to == a { b } else { a };
    for (from, number) in [(other, probe.number), (probe.to, probe.number ^ 1)] {
        uplink.echoed(Time(2), from, number, 5);
        assert_eq!(uplink.under_way.len(), 2);
    }
    uplink.echoed(Time(2), probe.to, probe.number, 5);
    uplink.echoed(Time(2), probe.to, probe.number, 5);
    assert_eq!(uplink.under_way.len(), 1, "each is heard once");
}

#[test]
fn silence_slows_and_idleness_begins_anew() {
    let child = NodeId([1; 32]);
    let mut uplink = Uplink::new(Time(0), Some(Rate(1_000_000)), 7);
    let mut sent = 0;
    for ms in 0..20_000u64 {
        sent += 1000;
        uplink.sends_to(Time(ms * 1000), child);
        uplink.pulse(Time(ms * 1000), sent);
    }
    assert_eq!(uplink.rate(), LEAST);
    uplink.sends_to(Time(40_000_000), child);
    uplink.pulse(Time(40_000_000), sent + 1);
    assert_eq!(uplink.rate(), FIRST);
}
