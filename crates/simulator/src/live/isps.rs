//! What of a stream passes from one ISP into another.

use super::outcome::IspCopies;
use crate::scenario::HostSpec;
use std::collections::BTreeMap;

/// Bytes from each ISP into each other one.
#[derive(Clone, Debug, Default)]
pub(super) struct Crossed(BTreeMap<(u16, u16), u64>);

impl Crossed {
    pub(super) fn add(&mut self, from: u16, to: u16, bytes: u64) {
        if from != to {
            *self.0.entry((from, to)).or_default() += bytes;
        }
    }
    /// Takes over what another one has.
    pub(super) fn take(&mut self, other: &mut Crossed) {
        for ((from, to), bytes) in std::mem::take(&mut other.0) {
            self.add(from, to, bytes);
        }
    }
    fn entered(&self, isp: u16) -> u64 {
        self.0.iter().filter(|((_, to), _)| *to == isp).map(|(_, bytes)| bytes).sum()
    }
    fn left(&self, isp: u16) -> u64 {
        self.0.iter().filter(|((from, _), _)| *from == isp).map(|(_, bytes)| bytes).sum()
    }
}

/// What was counted by certain moments.
#[derive(Debug, Default)]
pub(super) struct Borders {
    /// By now.
    pub(super) all: Crossed,
    /// When the first viewer may arrive, and after the first 60 s.
    pub(super) at_zero: Crossed,
    pub(super) settled: Crossed,
}

impl Borders {
    /// Of each ISP that has hosts, in order of their numbers. `published` are the stream's bytes, all and those after the
    /// first 60 s; `rate` is in bytes per second.
    pub(super) fn copies(&self, hosts: &[HostSpec], rate: f64, published: f64, later: f64) -> Vec<IspCopies> {
        let mut of_isp: BTreeMap<u16, (usize, f64)> = BTreeMap::new();
        for host in hosts {
            let (count, up) = of_isp.entry(host.isp).or_default();
            (*count, *up) = (*count + 1, *up + host.up());
        }
        let share = |bytes: u64, of: f64| (of > 0.0).then_some(bytes as f64 / of);
        let copies = |(isp, (hosts, up)): (u16, (usize, f64))| {
            let since =
                |before: &Crossed| (self.all.entered(isp) - before.entered(isp), self.all.left(isp) - before.left(isp));
            let ((into, out), (into_later, out_later)) = (since(&self.at_zero), since(&self.settled));
            IspCopies {
                isp,
                hosts,
                into: share(into, published).unwrap_or_default(),
                out: share(out, published).unwrap_or_default(),
                into_later: share(into_later, later),
                out_later: share(out_later, later),
                into_bound: (hosts as f64 - up / rate).max(1.0),
            }
        };
        of_isp.into_iter().map(copies).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_inside_crosses_nothing() {
        let mut crossed = Crossed::default();
        for (from, to, bytes) in [(1, 1, 5), (1, 2, 7), (3, 2, 11), (2, 3, 13)] {
            crossed.add(from, to, bytes);
        }
        assert_eq!([1, 2, 3].map(|isp| (crossed.entered(isp), crossed.left(isp))), [(0, 7), (18, 13), (13, 11)]);
        let mut all = Crossed::default();
        all.take(&mut crossed);
        all.add(1, 2, 1);
        assert_eq!((all.entered(2), crossed.entered(2)), (19, 0));
    }
}
