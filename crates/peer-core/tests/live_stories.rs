//! Stories of a viewer of a live stream that serves nobody: what happens to it, and what it wants done. They stand in
//! `web/sdk/test/stories`, where the page's channel, which is to decide the same, is told them too. A story that a change
//! made another one is written anew with `HEADWATER_WRITE_STORIES=1`.
//!
//! Lines: `> TIME WHAT…` happens, `< WHAT…` is what the channel wants then, `= …` how it fares after a tick.

use headwater_model::assignment::{Assignment, Generation, Parent, Reach};
use headwater_model::id::{ContentId, Hash, NodeId, Version};
use headwater_model::live::{
    Listed, LiveEntry, LiveTerms, LiveTrack, ObjectKind, OriginPlace, PublisherKey, SignedLiveEntry, Substreams,
};
use headwater_model::node::SourceClass;
use headwater_model::report::Alarm;
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{Rng, merkle};
use headwater_peer_core::live::{Channel, LiveConfig, LiveInput, LiveOutput, Verdict};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::num::NonZeroU8;
use std::path::Path;
use std::sync::Arc;

const K: u8 = 4;
const PIECE_BYTES: u32 = 8 << 10;
/// Pieces of a segment, which plays for a second.
const PIECES: u64 = 16;
const PARENTS: u8 = 3;

/// What goes wrong in a story, in thousandths of what could.
#[derive(Clone, Copy, Default)]
struct Trouble {
    piece_lost: u64,
    piece_bad: u64,
    entry_lost: u64,
    /// Of seconds: a parent is lost, falls silent or is slow from then on, until it is assigned anew.
    parent_lost: u64,
    parent_silent: u64,
    parent_slow: u64,
    assigned_anew: u64,
    has_origin: bool,
    plays: bool,
}

#[derive(Clone, Default)]
struct Stub {
    open: bool,
    subscribed: Substreams,
    from: u64,
    silent: bool,
    slow: bool,
}

enum Later {
    Say(LiveInput),
    Entry(u8, u64),
    Piece(Option<u8>, u64, bool),
    OriginEnded(u64),
}

struct Story {
    rng: Rng,
    trouble: Trouble,
    now: Time,
    channel: Channel,
    stubs: BTreeMap<u8, Stub>,
    later: BTreeMap<(Time, u64), Later>,
    serial: u64,
    generation: u64,
    entries: Vec<Arc<SignedLiveEntry>>,
    log: String,
}

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn number(node: &NodeId) -> u8 {
    node.0[0]
}

fn track() -> LiveTrack {
    let key = PublisherKey::from_bytes(&[
        0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d, 0x72, 0xca, 0x67,
        0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f, 0x6f, 0x5c,
    ]);
    LiveTrack {
        version: Version { content: ContentId([9; 32]), epoch: 1 },
        name: "n".into(),
        terms: LiveTerms {
            substreams: NonZeroU8::new(K).expect("not zero"),
            rate: Rate(PIECES * u64::from(PIECE_BYTES)),
            window: Micros::from_secs(10),
        },
        piece_bytes: PIECE_BYTES,
        origins: vec![],
        key: key.expect("a key"),
    }
}

fn data(piece: u64) -> Vec<u8> {
    let mut data = vec![0; PIECE_BYTES as usize];
    data[..8].copy_from_slice(&piece.to_be_bytes());
    data
}

fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|x| x.to_string()).collect::<Vec<_>>().join(",")
}

fn maybe(n: Option<u64>) -> String {
    n.map_or("-".into(), |n| n.to_string())
}

impl Story {
    fn new(seed: u64, trouble: Trouble) -> Story {
        let now = Time(1_000_000);
        Story {
            rng: Rng::new(seed, "live stories"),
            trouble,
            now,
            channel: Channel::new(now, track(), LiveConfig::default()),
            stubs: (1..=PARENTS).map(|n| (n, Stub::default())).collect(),
            later: BTreeMap::new(),
            serial: 0,
            generation: 0,
            entries: vec![],
            log: String::new(),
        }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.rng.below(1000) < thousandths
    }

    fn after(&mut self, ms: u64, what: Later) {
        self.serial += 1;
        self.later.insert((self.now + Micros::from_millis(ms), self.serial), what);
    }

    /// Something happens.
    fn say(&mut self, words: &str, input: LiveInput) {
        writeln!(self.log, "> {} {words}", self.now.0).expect("a string");
        let mut out = Vec::new();
        let is_tick = matches!(input, LiveInput::Tick);
        self.channel.handle(self.now, input, &mut out);
        assert_eq!(self.channel.check(), Vec::<String>::new());
        let mut todo: VecDeque<LiveOutput> = out.into();
        let mut dialled = Vec::new();
        while let Some(output) = todo.pop_front() {
            if let Some(words) = words_of(&output) {
                writeln!(self.log, "< {words}").expect("a string");
            }
            self.carry_out(output, &mut dialled);
        }
        if is_tick {
            let s = self.channel.state();
            let fares = [s.peer_bytes, s.origin_bytes, s.wasted_bytes, s.missing as u64, s.lost, u64::from(s.unfed)];
            writeln!(self.log, "= {}", listed(fares)).expect("a string");
        }
        for node in dialled {
            self.after(20, Later::Say(LiveInput::Connected(id(node))));
        }
    }

    fn carry_out(&mut self, output: LiveOutput, dialled: &mut Vec<u8>) {
        match output {
            LiveOutput::Dial(p) => {
                let stub = self.stubs.entry(number(&p.node)).or_default();
                *stub = Stub::default();
                dialled.push(number(&p.node));
            }
            LiveOutput::OpenEdge(n) => {
                if let Some(stub) = self.stubs.get_mut(&number(&n)) {
                    stub.open = true;
                }
                self.after(20, Later::Say(LiveInput::Answered { parent: n, refused: None }));
            }
            LiveOutput::CloseEdge(n) => {
                if let Some(stub) = self.stubs.get_mut(&number(&n)) {
                    (stub.open, stub.subscribed) = (false, Substreams::default());
                }
            }
            LiveOutput::Subscribe(n, substreams, from) => {
                let begins = self.entries.last().map_or(0, |e| e.entry.first_piece);
                let end = self.entries.last().map_or(0, |e| e.entry.end_piece());
                let from = from.unwrap_or(begins);
                let stub = self.stubs.entry(number(&n)).or_default();
                let added = substreams.without(stub.subscribed);
                (stub.subscribed, stub.from) = (substreams, from);
                let silent = stub.silent;
                if self.entries.len() == 1 || self.channel.newest_entry().is_none() {
                    for e in 0..self.entries.len() as u64 {
                        self.after(15, Later::Entry(number(&n), e));
                    }
                }
                // What is new of these substreams and there already.
                for piece in (from..end).filter(|p| added.contains((p % u64::from(K)) as u8)) {
                    if !silent {
                        self.after(25, Later::Piece(Some(number(&n)), piece, true));
                    }
                }
            }
            LiveOutput::Ask(n, pieces) => {
                for piece in pieces {
                    if self.stubs.get(&number(&n)).is_some_and(|s| s.open && !s.silent) && !self.chance(100) {
                        self.after(35, Later::Piece(Some(number(&n)), piece, true));
                    }
                }
            }
            LiveOutput::AskEntries(n, after) => {
                let known: Vec<u64> =
                    self.entries.iter().map(|e| e.entry.number).filter(|number| *number > after).collect();
                for e in known {
                    self.after(30, Later::Entry(number(&n), e - 1));
                }
            }
            LiveOutput::FetchOrigin { job, pieces, .. } => {
                for (piece, _) in pieces {
                    self.after(60, Later::Piece(None, piece, true));
                }
                self.after(61, Later::OriginEnded(job));
            }
            _ => {}
        }
    }

    fn assign(&mut self) {
        self.generation += 1;
        let mut who: Vec<u8> = (1..=PARENTS).collect();
        self.rng.shuffle(&mut who);
        let cut = self.rng.below(u64::from(K) + 1) as u8;
        let (low, high) = (Substreams::all(cut), Substreams::all(K).without(Substreams::all(cut)));
        let parents: Vec<(u8, Substreams)> = [(who[0], low), (who[1], high)].into();
        let parents: Vec<_> = parents.into_iter().filter(|(_, s)| !s.is_empty()).collect();
        let spares = vec![(who[2], Substreams::all(K))];
        let words = |all: &[(u8, Substreams)]| listed(all.iter().map(|(n, s)| format!("{n}:{}", s.0)));
        let said = format!("assigned {} {} {}", self.generation, words(&parents), words(&spares));
        let parent = |(n, substreams): &(u8, Substreams)| Parent {
            node: id(*n),
            class: SourceClass::Peer,
            dial: true,
            promised: Rate(0),
            reach: Reach { addresses: [].into(), certificate: Hash([1; 32]) },
            substreams: *substreams,
        };
        let assignment = Assignment {
            version: track().version,
            generation: Generation { epoch: 1, counter: self.generation },
            parents: parents.iter().map(parent).collect(),
            spares: spares.iter().map(parent).collect(),
            helpers: Vec::new(),
            children: vec![],
            source: false,
        };
        self.say(&said, LiveInput::Assigned(assignment));
    }

    /// The publisher has another segment; whoever serves this viewer pushes it over the next second.
    fn publish(&mut self) {
        let n = self.entries.len() as u64;
        let first = n * PIECES;
        let entry = LiveEntry {
            epoch: 1,
            number: n + 1,
            previous: (n > 0).then_some(n),
            time_unix_ms: self.now.0 / 1000,
            object: n,
            kind: ObjectKind::Ts,
            offset: 0,
            first_piece: first,
            bytes: PIECES as u32 * PIECE_BYTES,
            leaves: (first..first + PIECES).map(|p| merkle::leaf(&data(p))).collect(),
            complete: true,
            listed: Some(Listed {
                sequence: 100 + n,
                duration: Micros::from_secs(1),
                target_duration: Micros::from_secs(1),
                discontinuity: false,
                map: None,
                recorded_unix_us: None,
                origin: self.trouble.has_origin.then(|| OriginPlace { url: format!("http://o/{n}"), from: 7 }),
            }),
            last: false,
        };
        self.entries.push(Arc::new(SignedLiveEntry { entry, signature: [0; 64] }));
        for node in 1..=PARENTS {
            let stub = self.stubs[&node].clone();
            if !stub.open || stub.silent {
                continue;
            }
            let lost = self.trouble.entry_lost;
            if !self.chance(lost) {
                let delay = 20 + self.rng.below(60);
                self.after(delay, Later::Entry(node, n));
            }
            for piece in first..first + PIECES {
                let mine = stub.subscribed.contains((piece % u64::from(K)) as u8) && piece >= stub.from;
                let (lost, bad) = (self.trouble.piece_lost, self.trouble.piece_bad);
                if !mine || self.chance(lost) {
                    continue;
                }
                let spread = (piece - first) * 40 + self.rng.below(30);
                let delay = if stub.slow { 400 + spread * 6 } else { 30 + spread };
                let right = !self.chance(bad);
                self.after(delay, Later::Piece(Some(node), piece, right));
            }
        }
    }

    fn position(&mut self, node: u8) {
        let stub = self.stubs[&node].clone();
        let Some(newest) = self.entries.last().filter(|_| stub.open && !stub.silent && !stub.subscribed.is_empty())
        else {
            return;
        };
        let (newest, end) = (newest.entry.number, newest.entry.end_piece());
        let next: Vec<(u8, u64)> = stub.subscribed.iter().map(|s| (s, track().terms.next_of(s, end))).collect();
        let words = listed(next.iter().map(|(s, p)| format!("{s}:{p}")));
        self.say(&format!("position {node} {newest} {words}"), LiveInput::Position(id(node), newest, next));
    }

    fn trouble_of_second(&mut self) {
        let t = self.trouble;
        let node = 1 + self.rng.below(u64::from(PARENTS)) as u8;
        if self.chance(t.parent_lost) {
            self.stubs.insert(node, Stub::default());
            self.say(&format!("lost {node} it broke"), LiveInput::Lost { node: id(node), why: "it broke".into() });
        }
        let silent = self.chance(t.parent_silent);
        let slow = self.chance(t.parent_slow);
        if let Some(stub) = self.stubs.get_mut(&node) {
            (stub.silent, stub.slow) = (stub.silent || silent, stub.slow || slow);
        }
        if self.chance(t.assigned_anew) {
            self.stubs.values_mut().for_each(|s| (s.silent, s.slow) = (false, false));
            self.assign();
        }
    }

    fn happen(&mut self, what: Later) {
        match what {
            Later::Say(LiveInput::Connected(n)) => {
                self.say(&format!("connected {}", number(&n)), LiveInput::Connected(n))
            }
            Later::Say(input @ LiveInput::Answered { parent, .. }) => {
                self.say(&format!("answered {}", number(&parent)), input);
            }
            Later::Say(_) => {}
            Later::Entry(node, index) => {
                let Some(signed) = self.entries.get(index as usize).cloned() else { return };
                let e = &signed.entry;
                let origin = if self.trouble.has_origin { format!("http://o/{index} 7") } else { "-".into() };
                let words = format!(
                    "entry {node} {} {} {} {} {} {} {} {origin}",
                    e.number,
                    maybe(e.previous),
                    e.time_unix_ms,
                    e.object,
                    e.first_piece,
                    e.leaves.len(),
                    e.listed.as_ref().map_or(0, |l| l.sequence),
                );
                self.say(&words, LiveInput::Entries(id(node), vec![signed.clone()]));
            }
            Later::Piece(from, piece, right) => {
                let data = if right { data(piece) } else { vec![1; PIECE_BYTES as usize] };
                let verdict = self.channel.judge(piece, &data);
                if verdict == Verdict::Early {
                    // The shell keeps it until its entry is there.
                    return self.after(40, Later::Piece(from, piece, right));
                }
                let said = match verdict {
                    Verdict::Good => "good",
                    Verdict::Bad => "bad",
                    Verdict::Useless => "useless",
                    Verdict::Early => "early",
                };
                let who = from.map_or("origin".into(), |n| n.to_string());
                let how = if right { "right" } else { "wrong" };
                let input = LiveInput::Piece { from: from.map(id), piece, verdict, bytes: PIECE_BYTES };
                self.say(&format!("piece {who} {piece} {how} {said}"), input);
            }
            Later::OriginEnded(job) => self.say(&format!("origin-ended {job}"), LiveInput::OriginEnded(job)),
        }
    }

    fn run(mut self, seconds: u64) -> String {
        self.assign();
        for step in 0..seconds * 100 {
            self.now = self.now + Micros::from_millis(10);
            while let Some(((at, serial), _)) = self.later.first_key_value() {
                let key = (*at, *serial);
                if key.0 > self.now {
                    break;
                }
                if let Some(what) = self.later.remove(&key) {
                    self.happen(what);
                }
            }
            if step % 100 == 0 {
                self.publish();
                self.trouble_of_second();
                let plays = (step / 100).checked_sub(3).filter(|_| self.trouble.plays);
                if let Some(object) = plays {
                    self.say(&format!("reads 1 {object}"), LiveInput::Reads { reader: 1, object });
                }
            }
            if step % 15 == 0 {
                (1..=PARENTS).for_each(|node| self.position(node));
            }
            if step % 5 == 0 {
                let ms = self.now.0 / 1000;
                self.say(&format!("time {ms}"), LiveInput::ControlTime(ms));
                self.say("tick", LiveInput::Tick);
            }
        }
        self.log
    }
}

fn words_of(output: &LiveOutput) -> Option<String> {
    let n = number;
    Some(match output {
        LiveOutput::Dial(p) => format!("dial {}", n(&p.node)),
        LiveOutput::OpenEdge(p) => format!("open-edge {}", n(p)),
        LiveOutput::CloseEdge(p) => format!("close-edge {}", n(p)),
        LiveOutput::Subscribe(p, s, from) => format!("subscribe {} {} {}", n(p), s.0, maybe(*from)),
        LiveOutput::Ask(p, pieces) => format!("ask {} {}", n(p), listed(pieces)),
        LiveOutput::AskHelper(p, pieces) => format!("ask-helper {} {}", n(p), listed(pieces)),
        LiveOutput::Cancel(p, pieces) => format!("cancel {} {}", n(p), listed(pieces)),
        LiveOutput::AskEntries(p, after) => format!("ask-entries {} {after}", n(p)),
        LiveOutput::FetchOrigin { job, url, from, pieces } => {
            let pieces = listed(pieces.iter().map(|(p, len)| format!("{p}:{len}")));
            format!("fetch-origin {job} {url} {from} {pieces}")
        }
        LiveOutput::Alarm(Alarm::ParentLost { parent, why }) => format!("alarm lost {} {why}", n(parent)),
        LiveOutput::Alarm(Alarm::Silent { parent }) => format!("alarm silent {}", n(parent)),
        LiveOutput::Alarm(Alarm::BadPieces { parent }) => format!("alarm bad {}", n(parent)),
        LiveOutput::Alarm(Alarm::Behind { parent, substreams }) => {
            format!("alarm behind {} {}", n(parent), substreams.0)
        }
        LiveOutput::Changed => "changed".into(),
        LiveOutput::Forget => "forget".into(),
        _ => return None,
    })
}

#[test]
fn stories_are_those_that_pages_are_told() {
    let quiet = Trouble { plays: true, has_origin: true, ..Trouble::default() };
    let stories: [(&str, u64, Trouble); 6] = [
        ("quiet", 1, quiet),
        ("lossy", 2, Trouble { piece_lost: 60, entry_lost: 200, ..quiet }),
        ("lossy-without-origin", 3, Trouble { piece_lost: 60, entry_lost: 300, has_origin: false, ..quiet }),
        ("parents-come-and-go", 4, Trouble { parent_lost: 300, assigned_anew: 300, piece_lost: 10, ..quiet }),
        ("silent-and-slow", 5, Trouble { parent_silent: 150, parent_slow: 250, assigned_anew: 200, ..quiet }),
        ("liars", 6, Trouble { piece_bad: 20, assigned_anew: 300, has_origin: false, plays: false, ..quiet }),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/sdk/test/stories");
    let writes = std::env::var_os("HEADWATER_WRITE_STORIES").is_some();
    for (name, seed, trouble) in stories {
        let story = Story::new(seed, trouble).run(24);
        let path = folder.join(format!("{name}.txt"));
        if writes {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(&path, &story).expect("written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = kept.lines().zip(story.lines()).position(|(a, b)| a != b);
        assert!(
            kept == story,
            "the story {name:?} is another one from line {:?} on: write it anew with HEADWATER_WRITE_STORIES=1, and see \
             that the page's channel (web/sdk) decides the same",
            differs.map(|at| at + 1)
        );
    }
}
