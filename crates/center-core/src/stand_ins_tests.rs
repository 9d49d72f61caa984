//! Stories of a film and its smaller stand-in: who asks for the film, and what each gets.

use crate::client_manager::Arrival;
use crate::content_directory::{Content, Kind};
use crate::stand_ins::{NoStandIn, StandIn};
use crate::{Center, Config, Input, Output};
use headwater_model::assignment::Refusal;
use headwater_model::id::{ContentId, Hash, NodeId, Version};
use headwater_model::live::{LiveTerms, SUBSTREAMS};
use headwater_model::node::{Forwards, From, Known, Lacks, SourceAccess};
use headwater_model::report::{Introduction, Join};
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{Accepts, Capabilities, Layout, Place, Probe, Role};
use std::num::NonZeroU8;

const FILM: Version = Version { content: ContentId([1; 32]), epoch: 1 };
const SMALL: Version = Version { content: ContentId([2; 32]), epoch: 1 };
const LIVE: Version = Version { content: ContentId([3; 32]), epoch: 1 };

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn content(version: Version, name: &str, stand_in: Option<(Version, &str)>) -> Content {
    let substreams = NonZeroU8::new(SUBSTREAMS).unwrap();
    let live = LiveTerms { substreams, rate: Rate::from_mbit(2), window: Micros::from_secs(30) };
    let file = || Kind::File(Layout::single(1 << 16, 64 << 20).unwrap());
    Content {
        version,
        name: name.into(),
        kind: if version == LIVE { Kind::Live(live) } else { file() },
        origin_needs_credentials: false,
        share_origin_credentials: false,
        stand_in: stand_in.map(|(v, name)| StandIn { content: v.content, name: name.into() }),
        dcm: None,
        trees: None,
    }
}

fn film() -> Content {
    content(FILM, "film", Some((SMALL, "small")))
}

struct World {
    center: Center,
    now: Time,
    sessions: u64,
    out: Vec<Output>,
}

/// What a node was told of the film.
#[derive(PartialEq, Eq, Debug)]
enum Told {
    Admitted,
    Refused(Lacks),
    /// Nothing yet.
    Nothing,
}
use Told::*;

impl World {
    fn new(tests: bool) -> Self {
        let center = Center::new(Time(1), Config::default(), 1, false);
        let center = if tests { center.test_reachability([3; 32]) } else { center };
        let mut w = World { center, now: Time(1), sessions: 0, out: Vec::new() };
        w.say(Input::Publish(Box::new(content(SMALL, "small", None))));
        assert_eq!(w.center.directory().check_stand_in(&film()), Ok(()));
        w.say(Input::Publish(Box::new(film())));
        w
    }

    fn say(&mut self, input: Input) {
        self.out.clear();
        self.center.handle(self.now, input, &mut self.out);
        assert_eq!(self.center.check(self.now), Vec::<String>::new());
    }

    fn arrives(&mut self, n: u8, role: Role, capabilities: Capabilities, enrolled: bool) {
        self.sessions += 1;
        self.say(Input::Arrived(Box::new(Arrival {
            session: self.sessions,
            node: node(n),
            introduction: Introduction {
                role,
                capabilities,
                up: Rate::from_mbit(20),
                down: Rate(0),
                client: String::new(),
                local_addresses: Vec::new(),
                https_port: None,
            },
            observed: format!("10.{n}.0.1:4433").parse().unwrap(),
            certificate: Hash([n; 32]),
            enrolled,
            place: Place::default(),
        })));
    }

    fn ends(&mut self, n: u8) {
        self.say(Input::Departed { node: node(n), session: self.sessions, bye: false });
    }

    fn joins(&mut self, n: u8, version: Version) -> Told {
        self.say(Input::Join(node(n), Join::to(version)));
        self.told(n, version)
    }

    fn told(&self, n: u8, version: Version) -> Told {
        let told = self.out.iter().find_map(|o| match o {
            Output::Admit { node: to, version: of, .. } if (*to, *of) == (node(n), version) => Some(Admitted),
            Output::Refuse(to, of, Refusal::Lightweight { stand_in, lacks }) if (*to, *of) == (node(n), version) => {
                assert_eq!(stand_in, "small");
                Some(Refused(*lacks))
            }
            Output::Refuse(_, _, other) => panic!("{other}"),
            _ => None,
        });
        told.unwrap_or(Nothing)
    }

    fn members(&self, version: Version) -> usize {
        self.center.directory().dcm(&version.content).map_or(0, |d| d.members().count())
    }
}

/// What nodes were told to dial, and who.
fn probes(w: &World) -> impl Iterator<Item = (NodeId, Probe)> {
    w.out.iter().filter_map(|o| match o {
        Output::Probe(by, probe) => Some((*by, *probe)),
        _ => None,
    })
}

fn open() -> Capabilities {
    Capabilities::regular(Accepts::Open)
}

#[test]
fn whoever_lacks_something_gets_the_stand_in() {
    let dial_only = Capabilities::regular(Accepts::DialOnly);
    for (told, role, capabilities) in [
        (Admitted, Role::Peer, open()),
        (Admitted, Role::Peer, Capabilities::regular(Accepts::Punchable)),
        (Refused(Lacks::Connections), Role::Peer, dial_only),
        (Refused(Lacks::Sources), Role::Peer, Capabilities { sources: Known::claim(SourceAccess::Listed), ..open() }),
        (Refused(Lacks::Sources), Role::Peer, Capabilities { udp: Known { value: false, from: From::Test }, ..open() }),
        (Refused(Lacks::Forwarding), Role::Peer, Capabilities { forwards: Known::claim(Forwards::No), ..open() }),
        (Refused(Lacks::Forwarding), Role::Peer, Capabilities { forwards: Known::claim(Forwards::Memory), ..open() }),
        // The operator's nodes are no clients.
        (Admitted, Role::Waypoint, dial_only),
    ] {
        let mut w = World::new(false);
        w.arrives(1, role, capabilities, true);
        let is_admitted = told == Admitted;
        assert_eq!(w.joins(1, FILM), told, "{role:?} {capabilities:?}");
        assert_eq!(w.members(FILM), usize::from(is_admitted), "who was refused is no member");
        assert_eq!(w.joins(1, SMALL), Admitted, "the stand-in is for all");
    }
}

#[test]
fn who_takes_part_keeps_what_it_has_until_its_next_session() {
    let mut w = World::new(false);
    w.arrives(1, Role::Peer, open(), true);
    assert_eq!(w.joins(1, FILM), Admitted);
    // On battery power it passes nothing on, and joins again.
    w.say(Input::Offers(node(1), Rate(0)));
    assert_eq!(w.joins(1, FILM), Admitted);
    w.ends(1);
    w.arrives(1, Role::Peer, Capabilities { forwards: Known::claim(Forwards::No), ..open() }, true);
    assert_eq!(w.joins(1, FILM), Refused(Lacks::Forwarding));
    // Regular again: its next join brings the better one, in the same session.
    w.say(Input::Offers(node(1), Rate::from_mbit(20)));
    assert_eq!(w.joins(1, FILM), Admitted);
}

#[test]
fn the_publishers_word_can_be_changed() {
    let mut w = World::new(false);
    w.arrives(1, Role::Peer, Capabilities::regular(Accepts::DialOnly), true);
    assert_eq!(w.joins(1, FILM), Refused(Lacks::Connections));
    // The same version again, without a stand-in.
    w.say(Input::Publish(Box::new(content(FILM, "film", None))));
    assert_eq!(w.joins(1, FILM), Admitted);
    // A newer version with one: all members are told, and ask anew.
    let newer = Version { epoch: 2, ..FILM };
    w.say(Input::Publish(Box::new(Content { version: newer, ..film() })));
    assert!(w.out.iter().any(|o| matches!(o, Output::Withdrawn(to, ..) if *to == node(1))));
    assert_eq!(w.joins(1, newer), Refused(Lacks::Connections));
}

#[test]
fn a_source_of_a_stream_is_no_client() {
    let mut w = World::new(false);
    w.say(Input::Publish(Box::new(content(LIVE, "channel", Some((SMALL, "small"))))));
    w.arrives(1, Role::Peer, Capabilities::regular(Accepts::DialOnly), true);
    w.say(Input::Join(node(1), Join { source: true, ..Join::to(LIVE) }));
    assert_eq!(w.told(1, LIVE), Admitted);
    w.arrives(2, Role::Peer, Capabilities::regular(Accepts::DialOnly), true);
    assert_eq!(w.joins(2, LIVE), Refused(Lacks::Connections));
}

#[test]
fn a_node_that_is_being_tested_waits_for_the_outcome() {
    let strangers = |w: &mut World| {
        // These have been found open, and test the others.
        (11..14).for_each(|n| w.arrives(n, Role::Peer, open(), true));
    };
    // Reached by a stranger: it never hears of the stand-in.
    let mut w = World::new(true);
    strangers(&mut w);
    w.arrives(1, Role::Peer, open(), false);
    let (by, probe) = probes(&w).find(|(_, probe)| probe.node == node(1)).unwrap();
    assert_eq!(w.joins(1, FILM), Nothing);
    assert_eq!((w.members(FILM), w.joins(1, SMALL)), (0, Admitted), "what has no stand-in does not wait");
    w.say(Input::ProbeArrived(node(1), probe.number, "10.11.0.1:50000".parse().unwrap()));
    assert_eq!((w.told(1, FILM), w.members(FILM)), (Admitted, 1), "tested by {by:?}");

    // Reached by nobody.
    let mut w = World::new(true);
    strangers(&mut w);
    w.arrives(1, Role::Peer, open(), false);
    let mut ordered: Vec<(NodeId, Probe)> = probes(&w).collect();
    assert_eq!(w.joins(1, FILM), Nothing);
    let mut told = Nothing;
    for _ in 0..200 {
        w.now = w.now + Micros::from_millis(50);
        match ordered.pop() {
            Some((by, probe)) => w.say(Input::ProbeFailed(by, probe.number)),
            None => w.say(Input::Tick),
        }
        ordered.extend(probes(&w));
        if told == Nothing {
            told = w.told(1, FILM);
        }
    }
    assert_eq!((told, w.members(FILM)), (Refused(Lacks::Connections), 0));

    // Nobody is there to test it: after a while its claim counts.
    let mut w = World::new(true);
    w.arrives(1, Role::Peer, open(), false);
    assert_eq!(w.joins(1, FILM), Nothing);
    w.now = w.now + Micros::from_secs(3);
    w.say(Input::Tick);
    assert_eq!(w.told(1, FILM), Admitted);

    // One that claims nothing, or lacks something else, has nothing to wait for.
    let mut w = World::new(true);
    w.arrives(1, Role::Peer, Capabilities::regular(Accepts::DialOnly), false);
    assert_eq!(w.joins(1, FILM), Refused(Lacks::Connections));
    w.arrives(2, Role::Peer, Capabilities { forwards: Known::claim(Forwards::No), ..open() }, false);
    assert_eq!(w.joins(2, FILM), Refused(Lacks::Forwarding));

    // One that gave up meanwhile is not let in.
    let mut w = World::new(true);
    w.arrives(1, Role::Peer, open(), false);
    assert_eq!(w.joins(1, FILM), Nothing);
    w.say(Input::Leave(node(1), FILM));
    w.now = w.now + Micros::from_secs(3);
    w.say(Input::Tick);
    assert_eq!((w.told(1, FILM), w.members(FILM)), (Nothing, 0));
}

#[test]
fn nobody_is_sent_on_twice() {
    let w = World::new(false);
    let check = |c: Content| w.center.directory().check_stand_in(&c);
    let other = Version { content: ContentId([9; 32]), epoch: 1 };
    assert_eq!(check(content(other, "other", Some((SMALL, "small")))), Ok(()));
    assert_eq!(check(content(other, "other", None)), Ok(()));
    for (content, no) in [
        (content(other, "other", Some((other, "other"))), NoStandIn::Itself),
        (content(FILM, "film", Some((other, "other"))), NoStandIn::Unknown("other".into())),
        (content(other, "other", Some((FILM, "film"))), NoStandIn::HasOne("film".into())),
        (content(SMALL, "small", Some((FILM, "film"))), NoStandIn::HasOne("film".into())),
        (content(LIVE, "live", Some((SMALL, "small"))), NoStandIn::OtherKind("small".into())),
    ] {
        assert_eq!(check(content), Err(no));
    }
    let mut w = w;
    w.say(Input::Publish(Box::new(content(other, "other", None))));
    let third = w.center.directory().check_stand_in(&content(SMALL, "small", Some((other, "other"))));
    assert_eq!(third, Err(NoStandIn::IsOne("film".into())));
}
