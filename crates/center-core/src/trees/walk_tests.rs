//! Random walks: whatever happens in whatever order, the trees stay sound, and become good when it is quiet.

use super::test_world::*;
use crate::dcm::MemberInfo;
use crate::trust::Standing;
use headwater_model::id::{NodeId, Version};
use headwater_model::live::Substreams;
use headwater_model::node::{Accepts, Role};
use headwater_model::report::{Alarm, Join};
use headwater_model::rng::Rng;
use headwater_model::time::Rate;

struct Walk {
    w: World,
    rng: Rng,
    most: u32,
    seed: u64,
}

impl Walk {
    fn pick(&mut self, n: u32) -> u32 {
        self.rng.below(u64::from(n)) as u32
    }

    fn info(&mut self, n: u32) -> MemberInfo {
        let accepts = match n % 10 {
            0 | 1 => Accepts::DialOnly,
            2 => Accepts::Punchable,
            _ => Accepts::Open,
        };
        let kbit = u64::from(self.pick(6001));
        let mut info = node(n, kbit, accepts);
        if n % 37 == 36 {
            info.role = Role::Waypoint;
            info.up = Rate::from_mbit(20);
        }
        let port = self.w.ports.get(&n).copied().unwrap_or(4433);
        info.reach.addresses = [(info.reach.addresses[0].ip(), port).into()].into();
        info
    }

    /// It comes, or comes back: in the same process, or in another.
    fn join(&mut self, n: u32) {
        if self.pick(4) == 0 {
            *self.w.ports.entry(n).or_insert(4433) += 1;
        }
        let info = self.info(n);
        let parents = if self.pick(2) == 0 { self.w.told_parents(n) } else { vec![] };
        let source = n % 100 == 99;
        let join = Join { parents, source, ..Join::to(Version::default()) };
        self.w.joins_with(info, join);
    }

    fn step(&mut self) {
        let n = self.pick(self.most);
        let (now, w) = (self.w.now, &mut self.w);
        let parent = w.told_parents(n).first().copied();
        match self.rng.below(24) {
            0..=6 => self.join(n),
            7 => w.trees.leave(now, &id(n)),
            8 => w.trees.away(now, &id(n)),
            9 => w.trees.set_rate(now, &id(n), Rate(self.rng.below(6001) * 125)),
            10..=15 => {
                let other = parent.unwrap_or((id(n / 2), Substreams::all(K)));
                let alarm = match self.rng.below(5) {
                    0 | 1 => Alarm::ParentLost { parent: other.0, why: String::new() },
                    2 => Alarm::Silent { parent: other.0 },
                    3 => Alarm::Slow { parent: other.0 },
                    _ => Alarm::Behind { parent: other.0, substreams: other.1 },
                };
                w.trees.alarm(now, &id(n), &alarm);
            }
            16 => w.trees.dial_failed(now, &id(n), &parent.map_or(id(n + 1), |p| p.0)),
            17 => {
                let standing = [Standing::Good, Standing::Good, Standing::Banned][self.rng.below(3) as usize];
                w.trees.set_standing(now, &id(n), standing);
            }
            18 => w.trees.set_standing(now, &id(n), Standing::OnTrial { doubted: false }),
            19 => {
                if let Some(m) = w.trees.member_of(&id(n)) {
                    let (mut capabilities, reach) = (m.info.capabilities, m.info.reach.clone());
                    capabilities.accepts.value =
                        [Accepts::Open, Accepts::Punchable, Accepts::DialOnly][self.rng.below(3) as usize];
                    w.trees.set_reach(now, &id(n), capabilities, reach);
                }
            }
            20 => {
                // Somewhere pieces are late, as some say.
                let (late, lag) = (self.rng.below(8) as u8, self.rng.below(4));
                w.all_tell(&move |i, p: NodeId, c: NodeId, t| {
                    let lag = if (p.0[0] ^ c.0[0]) % 8 == late { lag } else { 0 };
                    (Some(newest(i, t)), Some(newest(i.saturating_sub(lag), t)))
                });
            }
            _ => w.pass(1 + self.rng.below(400)),
        }
        self.w.hear();
    }

    /// Those who are away come back or are forgotten, pairs are tried again, and all is as good as it can be.
    fn quiet(&mut self) {
        for m in self.w.trees.nodes() {
            self.w.trees.set_standing(self.w.now, &m, Standing::Good);
        }
        if self.w.trees.source().is_none() {
            self.join(99);
        }
        self.w.wait(90);
        let seed = self.seed;
        self.w.all_know();
        assert_eq!(self.w.needlessly_hungry(), None, "seed {seed}");
        let (stats, (open, closed)) = (self.w.trees.stats(), self.w.slots());
        let places = (stats.members as u32 - 1) * u32::from(K);
        let closed_viewers = self.w.trees.members().filter(|m| m.accepts() != Accepts::Open).count() as u32;
        let source_is_open = self
            .w
            .trees
            .source()
            .and_then(|s| self.w.trees.member_of(&s))
            .is_some_and(|m| m.accepts() == Accepts::Open);
        let enough = open + closed >= places * 5 / 4 && open >= closed_viewers * u32::from(K) * 3 / 2;
        if enough && source_is_open && self.w.trees.source().is_some() {
            let source = self.w.trees.member_of(&self.w.trees.source().unwrap()).unwrap();
            let best = u32::from(K).min(source.slots);
            assert!(stats.source_slots_used <= best, "seed {seed}: {stats:?}, {open} + {closed} slots");
            assert!(stats.max_depth <= 12, "seed {seed}: {stats:?}");
        }
        let before = self.w.trees.generation().counter;
        self.w.wait(30);
        let said = self.w.trees.generation().counter - before;
        assert_eq!(said, 0, "seed {seed}: it comes to rest");
    }
}

fn walk(seed: u64, most: u32, steps: u32) {
    let mut walk = Walk { w: World::with_source(30_000), rng: Rng::new(seed, "walk"), most, seed };
    for round in 0..3 {
        for step in 0..steps {
            let sound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk.step()));
            assert!(sound.is_ok(), "seed {seed}, round {round}, step {step}");
        }
        walk.quiet();
    }
}

#[test]
fn small_streams_stay_sound_whatever_happens() {
    (0..40).for_each(|seed| walk(seed, 8, 120));
}

#[test]
fn streams_stay_sound_whatever_happens() {
    (100..110).for_each(|seed| walk(seed, 40, 300));
}

#[test]
fn large_streams_stay_sound_whatever_happens() {
    walk(200, 250, 500);
}
