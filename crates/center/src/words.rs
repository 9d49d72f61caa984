//! A choice of parents in plain sentences: what `headwater explain` prints.

use headwater_center_core::explain::{Decision, Ranked, Removed};
use headwater_model::node::SourceClass;
use headwater_model::place::Tier;
use headwater_model::{NodeId, Rate};

/// Names given for each reason; more are counted only.
const NAMED_PER_REASON: usize = 3;

/// A decision and what people want to know around it.
pub(crate) struct Explained<'a> {
    pub(crate) client: NodeId,
    /// Name of the content.
    pub(crate) name: &'a str,
    pub(crate) at_s_ago: f64,
    pub(crate) decision: &'a Decision,
    /// Parents now.
    pub(crate) parents: &'a [NodeId],
    /// The client has everything now.
    pub(crate) complete: bool,
    /// Why it fetches from the origin and operator nodes only, if it does.
    pub(crate) limited: Option<&'static str>,
    /// Runs under way from these.
    pub(crate) standing_leases: u32,
}

/// In sentences, one paragraph.
pub(crate) fn words(e: &Explained<'_>) -> String {
    let d = e.decision;
    let mut said = vec![asked(e), considered(d)];
    said.extend(removed(d));
    said.extend(ranked(d));
    said.extend(nobody(d));
    said.push(now(e));
    said.extend(limited(e));
    said.join(" ")
}

fn limited(e: &Explained<'_>) -> Option<String> {
    let why = e.limited?;
    let runs = counted(e.standing_leases, "run is", "runs are");
    Some(format!(
        "Its sources are limited: {why}. It fetches from the origin and operator nodes only; {runs} under way from these."
    ))
}

fn asked(e: &Explained<'_>) -> String {
    let (client, d) = (short(&e.client), e.decision);
    let wanted = counted(d.wanted, "parent", "parents");
    let ago = match e.at_s_ago {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    };
    format!("{client} asked for parents in {:?} {ago} ago because {}, and wanted {wanted}.", e.name, d.occasion)
}

fn considered(d: &Decision) -> String {
    let nodes = |n| counted(n, "node was", "nodes were");
    match (d.considered, d.not_reached) {
        (0, 0) => "There was no other node in the swarm.".into(),
        (0, n) => format!("None was considered: {} in the swarm but had no uplink to spare.", nodes(n)),
        (n, 0) => format!("{} considered.", nodes(n)),
        (n, rest) => {
            format!("{} considered; {rest} more had no uplink to spare or were not needed any more.", nodes(n))
        }
    }
}

/// By reason, with some names.
fn removed(d: &Decision) -> Option<String> {
    let total: u32 = d.removed.values().sum();
    let reason = |(why, count): (&Removed, &u32)| {
        let of_it = d.removed_named.iter().filter(|(_, r)| r == why).take(NAMED_PER_REASON);
        let names: Vec<String> = of_it.map(|(n, _)| short(n)).collect();
        let names = match (names.len() as u32, *count) {
            (0, n) => n.to_string(),
            (named, n) if named == n => names.join(", "),
            (_, n) => format!("{n}, among them {}", names.join(", ")),
        };
        format!("{} ({names})", why.words().0)
    };
    let reasons: Vec<String> = d.removed.iter().map(reason).collect();
    (total > 0).then(|| format!("{} removed: {}.", counted(total, "was", "were"), reasons.join("; ")))
}

fn ranked(d: &Decision) -> Option<String> {
    let line = |(i, r): (usize, &Ranked)| {
        let class = match r.class {
            SourceClass::Peer => "peer",
            SourceClass::Waypoint => "waypoint",
            SourceClass::Origin => "origin",
        };
        let chosen = if r.chosen { " (chosen)" } else { "" };
        let (node, tier, spare) = (short(&r.node), near(r.tier), spare(r.spare_bucket));
        format!("{}. {node}: {class}, {tier}, {spare}, history {} of 3{chosen}", i + 1, r.history)
    };
    let lines: Vec<String> = d.ranked.iter().enumerate().map(line).collect();
    let first = match (d.removed.is_empty(), lines.len()) {
        (false, _) => "The rest",
        (true, 1) => "It",
        (true, _) => "They",
    };
    (!lines.is_empty()).then(|| format!("{first} ranked: {}.", lines.join("; ")))
}

fn nobody(d: &Decision) -> Option<String> {
    if d.ranked.iter().any(|r| r.chosen) {
        return None;
    }
    Some(match d.nearest_miss() {
        Some((node, why)) => {
            let (why, would_help) = why.words();
            format!("Nobody was chosen. {} came nearest: {why}. It could serve {would_help}.", short(&node))
        }
        None => "Nobody was chosen: the origin serves until another node joins or has uplink to spare.".into(),
    })
}

fn now(e: &Explained<'_>) -> String {
    let names: Vec<String> = e.parents.iter().map(short).collect();
    match (e.complete, names.is_empty()) {
        (true, _) => "It has everything now and needs no parents.".into(),
        (false, true) => "It has no parents now.".into(),
        (false, false) => format!("Its parents now: {}.", names.join(", ")),
    }
}

fn short(node: &NodeId) -> String {
    format!("{node:.8}")
}

fn counted(n: u32, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn near(tier: Tier) -> &'static str {
    match tier {
        Tier::Lan => "same LAN",
        Tier::Site => "same site",
        Tier::Enterprise => "same enterprise",
        Tier::As => "same AS",
        Tier::Country => "same country",
        Tier::World => "elsewhere",
    }
}

/// The bucket of a rate holds those from half of 2^bucket on.
fn spare(bucket: u32) -> String {
    match bucket {
        0 => "nothing to spare".into(),
        b => format!("{} or more to spare", Rate(1 << (b - 1).min(63))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::Time;
    use std::collections::BTreeMap;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn decision() -> Decision {
        Decision {
            at: Time(0),
            occasion: "it joined",
            wanted: 8,
            considered: 0,
            not_reached: 0,
            removed: BTreeMap::new(),
            removed_named: vec![],
            ranked: vec![],
        }
    }

    fn check(decision: &Decision, parents: &[NodeId], complete: bool, expected: &str) {
        let e = Explained {
            client: node(0x9f),
            name: "film",
            at_s_ago: 12.2,
            decision,
            parents,
            complete,
            limited: None,
            standing_leases: 0,
        };
        assert_eq!(words(&e), expected);
    }

    #[test]
    fn a_choice_reads_as_sentences() {
        let ranked = |n, tier, chosen| Ranked {
            node: node(n),
            class: SourceClass::Peer,
            tier,
            spare_bucket: 24,
            history: 3,
            chosen,
        };
        let d = Decision {
            considered: 3,
            removed: BTreeMap::from([(Removed::OutOfReach, 1)]),
            removed_named: vec![(node(0x11), Removed::OutOfReach)],
            ranked: vec![ranked(0x77, Tier::Lan, true), ranked(0x88, Tier::World, false)],
            ..decision()
        };
        check(
            &d,
            &[node(0x77)],
            false,
            "9f9f9f9f asked for parents in \"film\" 12 s ago because it joined, and wanted 8 parents. \
             3 nodes were considered. 1 was removed: neither end can be reached by the other (11111111). \
             The rest ranked: 1. 77777777: peer, same LAN, 8.4 MB/s or more to spare, history 3 of 3 (chosen); \
             2. 88888888: peer, elsewhere, 8.4 MB/s or more to spare, history 3 of 3. \
             Its parents now: 77777777.",
        );
    }

    #[test]
    fn an_empty_choice_says_what_would_help() {
        check(
            &decision(),
            &[],
            false,
            "9f9f9f9f asked for parents in \"film\" 12 s ago because it joined, and wanted 8 parents. \
             There was no other node in the swarm. \
             Nobody was chosen: the origin serves until another node joins or has uplink to spare. \
             It has no parents now.",
        );
        let d = Decision {
            not_reached: 1,
            removed_named: vec![(node(0x11), Removed::NoSpareUplink)],
            wanted: 1,
            ..decision()
        };
        check(
            &d,
            &[],
            true,
            "9f9f9f9f asked for parents in \"film\" 12 s ago because it joined, and wanted 1 parent. \
             None was considered: 1 node was in the swarm but had no uplink to spare. \
             Nobody was chosen. 11111111 came nearest: no uplink to spare. \
             It could serve when one of its children finishes. \
             It has everything now and needs no parents.",
        );
        let d = Decision {
            considered: 20,
            not_reached: 5,
            removed: BTreeMap::from([(Removed::Blacklisted, 4), (Removed::Away, 16)]),
            removed_named: (1..=4).map(|n| (node(n), Removed::Blacklisted)).collect(),
            ..decision()
        };
        let e = Explained {
            client: node(1),
            name: "x",
            at_s_ago: 600.0,
            decision: &d,
            parents: &[],
            complete: false,
            limited: Some("no UDP (found by test)"),
            standing_leases: 2,
        };
        let said = words(&e);
        for part in [
            "10 min ago",
            "20 nodes were considered; 5 more had no uplink to spare or were not needed any more.",
            "20 were removed: a connection failed a short while ago (4, among them 01010101, 02020202, 03030303); \
             its session is broken (16).",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
