//! Stories as data: who says what about whom, and what the control center makes of it.

use super::*;
use headwater_model::rng::Rng;

const S: u64 = 1_000_000;
const TERMS: Terms = Terms { ban: Micros::from_secs(600), max_ban: Micros::from_secs(86_400) };

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// Each node in a network of its own.
fn witness(n: u8) -> Witness {
    Witness { node: node(n), network: Network::V4([10, 0, n]) }
}

/// A step of a story.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// Child, parent, of what.
    Accuse(u8, u8, Offence),
    /// Child, parent, good pieces in an interval.
    Praise(u8, u8, u64),
    /// Child and parent: a piece came, late.
    Fed(u8, u8),
    /// A heartbeat of a node.
    Heard(u8),
    /// A node was restarted, or paused.
    Back(u8),
    /// Seconds pass.
    Pass(u64),
    /// The half second in which accusers show whom else they accuse.
    Hearing,
}
use Offence::{BadPieces, Holdings, Silent, Slow};
use Say::{Accuse, Back, Fed, Heard, Hearing, Pass, Praise};

struct Court {
    trust: Trust,
    now: Time,
    /// Parties of the children that every accused has.
    children: Vec<u8>,
}

impl Court {
    fn new(children: &[u8]) -> Self {
        Self { trust: Trust::new(TERMS), now: Time(S), children: children.to_vec() }
    }
    fn hear(&mut self, story: impl IntoIterator<Item = Say>) {
        let mut out = Vec::new();
        for say in story {
            match say {
                Accuse(by, whom, of) => {
                    let children: Vec<Network> = self.children.iter().map(|c| witness(*c).network).collect();
                    self.trust.accuse(self.now, witness(by), witness(whom), of, children, &mut out);
                }
                Praise(by, whom, pieces) => self.trust.praise(self.now, witness(by), &node(whom), pieces, &mut out),
                Fed(by, whom) => self.trust.fed(self.now, witness(by), &node(whom)),
                Heard(n) => self.trust.heard(self.now, &node(n), true, &mut out),
                Back(n) => self.trust.heard(self.now, &node(n), false, &mut out),
                Hearing => {
                    self.now = self.now + HEARING;
                    self.trust.tick(self.now, &mut out);
                }
                Pass(s) => {
                    for _ in 0..s {
                        self.now = self.now + Micros(S);
                        self.trust.tick(self.now, &mut out);
                    }
                }
            }
        }
    }
    fn standing(&self, n: u8) -> Standing {
        self.trust.standing(&node(n))
    }
}

/// A story about node 1, whose children are `children`, and how node 1 stands at its end.
fn check(children: &[u8], story: &[Say], expected: Standing) {
    let mut court = Court::new(children);
    court.hear(story.iter().copied());
    assert_eq!(court.standing(1), expected, "{story:?}");
}

const TRIAL: Standing = Standing::OnTrial { doubted: false };

#[test]
fn a_small_uplink_is_no_silence() {
    let accused = [Accuse(10, 1, Slow), Accuse(11, 1, Silent), Accuse(12, 1, Slow), Heard(1), Hearing];
    check(&[], &accused, Standing::Banned);
    // Its accusers, or others, get pieces of it all the same.
    for fed in [10, 13] {
        let story: Vec<Say> = accused[..1].iter().copied().chain([Fed(fed, 1)]).chain(accused).collect();
        check(&[], &story, TRIAL);
        // That counts for a while only, and does not excuse lies.
        let lies: Vec<Say> =
            story.iter().copied().chain([Accuse(14, 1, Holdings), Accuse(15, 1, Holdings), Hearing]).collect();
        check(&[], &lies, Standing::Banned);
    }
    let late: Vec<Say> = [Accuse(10, 1, Slow), Fed(13, 1), Heard(1), Pass(61)].into_iter().chain(accused).collect();
    check(&[], &late, Standing::Banned);
}

#[test]
fn wrong_bytes() {
    check(&[], &[Accuse(10, 1, BadPieces)], TRIAL);
    check(&[], &[Accuse(10, 1, BadPieces), Accuse(10, 1, BadPieces)], TRIAL);
    check(&[], &[Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces)], TRIAL);
    check(&[], &[Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces), Hearing], Standing::Banned);
    // Two may be slanderers, where a third is served well.
    let served = Praise(12, 1, 8);
    check(&[], &[Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces), served, Hearing], TRIAL);
    let three = [Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces), Accuse(13, 1, BadPieces)];
    check(&[], &[three[0], three[1], three[2], served, Hearing], Standing::Banned);
    // Who was right about others speaks as loudly as before.
    let right = [2, 3, 4]
        .into_iter()
        .flat_map(|liar| [10, 11].map(|c| Accuse(c, liar, BadPieces)).into_iter().chain([Hearing]));
    let story: Vec<Say> = right.chain([Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces), Hearing]).collect();
    check(&[], &story, Standing::Banned);
    // A single accuser's word fades.
    check(&[], &[Accuse(10, 1, BadPieces), Pass(601)], Standing::Good);
    // Children that have not spoken yet are waited for, but not for long.
    let two = [Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces)];
    check(&[10, 11, 12, 13], &two, TRIAL);
    check(&[10, 11, 12, 13], &[two[0], two[1], Pass(4)], Standing::Banned);
}

#[test]
fn a_flipper_is_banned_when_most_of_its_children_have_noticed() {
    let children: Vec<u8> = (10..18).collect();
    let mut court = Court::new(&children);
    // It sends 98 good pieces of a hundred: its children notice one after the other.
    for noticed in 0..8u8 {
        let praise = children.iter().skip(usize::from(noticed) + 1).map(|c| Praise(*c, 1, 10));
        court.hear([Accuse(10 + noticed, 1, BadPieces)].into_iter().chain(praise).chain([Pass(2)]));
        assert_eq!(court.standing(1), if noticed >= 4 { Standing::Banned } else { TRIAL }, "{noticed} noticed");
        assert!((10..18).all(|c| !court.trust.is_slanderer(&node(c))), "who notices first is no slanderer");
    }
}

#[test]
fn silence() {
    let silent = [Accuse(10, 1, Silent), Accuse(11, 1, Silent)];
    check(&[], &[silent[0], silent[1], Heard(1), Hearing], Standing::Banned);
    // An honest parent whose line dies is not heard of either.
    check(&[], &silent, Standing::Good);
    check(&[], &[silent[0], silent[1], Pass(5), Heard(1)], Standing::Good);
    // One child that is served well: it is the link to the others that is dead.
    check(&[], &[silent[0], Praise(12, 1, 9), silent[1], Heard(1)], TRIAL);
    check(&[], &[silent[0], Praise(12, 1, 9), silent[1], Praise(13, 1, 9), Heard(1), Praise(14, 1, 9)], Standing::Good);
    // Who is served again takes the accusation back.
    check(&[], &[silent[0], Heard(1), Praise(10, 1, 9)], Standing::Good);
    check(&[], &[Accuse(10, 1, Slow), Accuse(11, 1, Slow), Heard(1), Hearing], Standing::Banned);
    // Who was not there was silent for that.
    check(&[], &[Accuse(10, 1, Silent), Accuse(11, 1, Silent), Back(1), Heard(1), Hearing], Standing::Good);
}

#[test]
fn lies_about_holdings_are_doubted_at_once() {
    check(&[], &[Accuse(10, 1, Holdings)], Standing::OnTrial { doubted: true });
    check(&[], &[Accuse(10, 1, Holdings), Accuse(11, 1, Holdings), Hearing], Standing::Banned);
    check(&[], &[Accuse(10, 1, Holdings), Praise(11, 1, 9), Praise(12, 1, 9)], Standing::Good);
}

#[test]
fn bans_end_on_probation_and_grow() {
    let two = [Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces), Hearing];
    let mut court = Court::new(&[]);
    court.hear(two);
    court.hear([Pass(599)]);
    assert_eq!(court.standing(1), Standing::Banned);
    court.hear([Pass(1)]);
    assert_eq!(court.standing(1), TRIAL, "back, but watched");
    court.hear(two);
    court.hear([Pass(1199)]);
    assert_eq!(court.standing(1), Standing::Banned);
    court.hear([Pass(1)]);
    assert_eq!(court.standing(1), TRIAL);
    court.hear([Praise(12, 1, 5)]);
    assert_eq!(court.standing(1), Standing::Good);
}

#[test]
fn a_slanderer_loses_its_word() {
    let mut court = Court::new(&[]);
    // 10 accuses three honest parents; each serves three others well.
    let honest = [1, 2, 3];
    for _ in 0..10 {
        court.hear(honest.iter().flat_map(|h| [Accuse(10, *h, BadPieces)]));
        court.hear(honest.iter().flat_map(|h| [11, 12, 13].map(|c| Praise(c, *h, 40))));
        court.hear([Pass(2)]);
    }
    assert!(court.trust.is_slanderer(&node(10)));
    assert!(honest.iter().all(|h| court.standing(*h) == Standing::Good));
    court.hear([Accuse(10, 4, BadPieces), Accuse(11, 4, BadPieces)]);
    assert_eq!(court.standing(4), TRIAL, "only one of the two counts");
}

#[test]
fn four_slanderers_do_not_ban_who_serves_as_many_others() {
    let mut court = Court::new(&[10, 11, 12, 13, 20, 21, 22, 23]);
    for _ in 0..10 {
        court.hear([1, 2].iter().flat_map(|h| (10..14).map(|s| Accuse(s, *h, BadPieces))));
        assert!([1, 2].iter().all(|h| court.standing(*h) != Standing::Banned));
        court.hear([1, 2].iter().flat_map(|h| (20..24).map(|c| Praise(c, *h, 40))));
        court.hear([Pass(2)]);
        assert!([1, 2].iter().all(|h| court.standing(*h) != Standing::Banned));
    }
}

#[test]
fn liars_that_praise_one_another_are_banned_all_the_same() {
    // 1 and 2 to 4 are in league; 10 to 15 are honest.
    let mut court = Court::new(&[2, 3, 4, 10, 11, 12, 13, 14, 15]);
    for honest in 10..16u8 {
        court.hear([2, 3, 4].map(|c| Praise(c, 1, 100)));
        court.hear([Accuse(honest, 1, BadPieces), Pass(1)]);
    }
    assert_eq!(court.standing(1), Standing::Banned);
    assert!((10..16).all(|h| !court.trust.is_slanderer(&node(h))));
}

#[test]
fn many_identities_of_one_network_are_one() {
    let mut trust = Trust::new(TERMS);
    let mut out = Vec::new();
    let accused = witness(1);
    for sybil in 0..200 {
        let by = Witness { node: node(sybil), network: Network::V4([10, 0, 99]) };
        trust.accuse(Time(S), by, accused, BadPieces, [], &mut out);
    }
    assert_eq!(trust.standing(&accused.node), TRIAL);
    // Nor do neighbours of the accused acquit it.
    trust.accuse(Time(S), witness(250), accused, BadPieces, [], &mut out);
    trust.tick(Time(S) + HEARING, &mut out);
    assert_eq!(trust.standing(&accused.node), Standing::Banned);
}

/// Before anybody was served: a word that accuses everybody is worth little against each.
#[test]
fn two_that_slander_all_newcomers_ban_none() {
    let mut court = Court::new(&[]);
    court.hear((1..9).flat_map(|parent| [Accuse(10, parent, BadPieces), Accuse(11, parent, BadPieces)]));
    court.hear([Hearing, Pass(9)]);
    assert!((1..9).all(|n| court.standing(n) == TRIAL));
    // Four honest children of three spoilers each are believed, three not yet.
    let mut court = Court::new(&[]);
    court.hear((1..4).flat_map(|spoiler| (10..13).map(move |child| Accuse(child, spoiler, BadPieces))));
    court.hear([Hearing]);
    assert!((1..4).all(|n| court.standing(n) == TRIAL), "three whole words over nine accusations are too few");
    court.hear((1..4).map(|spoiler| Accuse(13, spoiler, BadPieces)).chain([Hearing]));
    assert!((1..4).all(|n| court.standing(n) == Standing::Banned));
}

#[test]
fn a_banned_nodes_word_is_void() {
    let mut court = Court::new(&[]);
    court.hear([Accuse(10, 1, BadPieces), Accuse(11, 1, BadPieces), Hearing]);
    court.hear([Accuse(1, 2, BadPieces), Accuse(12, 2, BadPieces), Hearing]);
    assert_eq!((court.standing(1), court.standing(2)), (Standing::Banned, TRIAL));
}

#[test]
fn memory_is_bounded() {
    let mut trust = Trust::new(TERMS);
    let mut out = Vec::new();
    let id = |n: u32| {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    };
    for n in 0..10_000u32 {
        let by = Witness { node: id(n % 1000), network: Network::Node(id(n % 1000)) };
        let accused = Witness { node: id(1_000_000 + n), network: Network::Node(id(n)) };
        trust.accuse(Time(S), by, accused, BadPieces, [], &mut out);
    }
    assert!(trust.cases() <= MAX_CASES);
    trust.tick(Time(2000 * S), &mut out);
    assert_eq!(trust.cases(), 0);
}

/// Whatever at most two networks say, and whenever: a node that serves three unrelated children well is not banned.
#[test]
fn two_networks_cannot_ban_who_serves_three_others() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed, "slander");
        let mut court = Court::new(&[10, 11, 12, 20, 21]);
        for step in 0..60u64 {
            for _ in 0..rng.below(6) {
                let by = 20 + rng.below(2) as u8;
                let of = [BadPieces, Silent, Slow, Holdings, Offence::Sent][rng.below(5) as usize];
                court.hear([Accuse(by, 1, of), Heard(1)]);
            }
            assert_ne!(court.standing(1), Standing::Banned, "seed {seed}, step {step}");
            // Heartbeats come every other second.
            if step % 2 == 1 {
                court.hear([10, 11, 12].map(|c| Praise(c, 1, 1 + rng.below(20))));
            }
            court.hear([Pass(1)]);
            assert_ne!(court.standing(1), Standing::Banned, "seed {seed}, step {step}");
        }
    }
}

/// Whatever liars say about one another and the honest: every node that spoils what it sends is banned once three
/// honest children in a row were its only ones and noticed.
#[test]
fn spoilers_are_banned_by_their_honest_children() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed, "spoiler");
        let mut court = Court::new(&[10, 11, 12]);
        let mut order = [10, 11, 12];
        rng.shuffle(&mut order);
        for child in order {
            if rng.below(2) == 0 {
                court.hear([Praise(child, 1, rng.below(50)), Pass(rng.below(3))]);
            }
            court.hear([Accuse(child, 1, BadPieces), Pass(rng.below(3))]);
        }
        court.hear([Hearing]);
        assert_eq!(court.standing(1), Standing::Banned, "seed {seed}");
    }
}
