//! What must come out of a run.

use serde::{Deserialize, Serialize};

/// What a run must reach to pass. Copies are payload over the size of the content, times seconds. What is missing is not
/// judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bars {
    /// Makespan over its bound, at most.
    pub makespan_ratio: Option<f64>,
    /// Makespan of the first content over what it is without the further ones, at most; for the simulator.
    pub beside_ratio: Option<f64>,
    /// Copies that leave the origin, at most.
    pub origin_copies: Option<f64>,
    /// Copies that enter any ISP other than the origin's, at most.
    pub copies_into_isp: Option<f64>,
    /// Copies that leave any ISP other than the origin's, at most.
    pub copies_out_of_isp: Option<f64>,
    /// Copies that come from the other ISPs into the origin's, at most.
    pub copies_back: Option<f64>,
    /// Copies that enter any site, at most.
    pub copies_into_site: Option<f64>,
    /// Pairs among all assignments of which neither end can reach the other, at most.
    pub dial_only_pairs: Option<u64>,
    /// The types of reachability found by test are what the scenario built.
    pub types_match: Option<bool>,
    /// The longest time that a receiver that was not complete received nothing, after its first byte; at most.
    pub longest_wait_s: Option<f64>,
    /// All sessions are back this soon after the control center's return.
    pub sessions_back_s: Option<f64>,
    /// After the beginning of a fault of a peering link, the first pair across it is named as congested this soon.
    pub congested_named_s: Option<f64>,
    /// Arrivals one by one: the least goodput of a late receiver over its downlink, at least.
    pub late_share_of_down: Option<f64>,
    /// The longest time from a liar's first harm until its last edge was dropped; at most. Twice that for who trickles.
    pub left_within_s: Option<f64>,
    /// With a bystander: how much longer small packets take there and back while its host serves, milliseconds that 95 %
    /// do not pass; at most.
    pub ping_rise_ms: Option<f64>,
    /// … and the share of what the line has to spare that is served, at least.
    pub spare_share: Option<f64>,
    /// … and packets of the user's own stream lost meanwhile, percent, at most.
    pub call_loss_percent: Option<f64>,
    /// … and how much longer they take one way, milliseconds that 95 % do not pass; at most.
    pub call_rise_ms: Option<f64>,
    /// Honest hosts banned, at most.
    pub honest_banned: Option<u64>,
    /// Every receiver that was not killed for good has the right bytes.
    pub all_complete: bool,
}

impl Default for Bars {
    fn default() -> Self {
        Self {
            makespan_ratio: None,
            beside_ratio: None,
            origin_copies: None,
            copies_into_isp: None,
            copies_out_of_isp: None,
            copies_back: None,
            copies_into_site: None,
            dial_only_pairs: None,
            types_match: None,
            longest_wait_s: None,
            sessions_back_s: None,
            congested_named_s: None,
            late_share_of_down: None,
            left_within_s: None,
            ping_rise_ms: None,
            spare_share: None,
            call_loss_percent: None,
            call_rise_ms: None,
            honest_banned: None,
            all_complete: true,
        }
    }
}
