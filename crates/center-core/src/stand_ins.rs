//! Lightweight clients get another content of the same publisher in a content's place, where its publisher says so (S9).

use crate::content_directory::{Content, ContentDirectory};
use crate::{Center, Output};
use headwater_model::Role;
use headwater_model::assignment::Refusal;
use headwater_model::id::{ContentId, NodeId};
use headwater_model::node::{Accepts, Known};
use headwater_model::report::Join;
use headwater_model::time::Time;

/// The content that lightweight clients get in place of another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandIn {
    /// Which.
    pub content: ContentId,
    /// Its name.
    pub name: String,
}

/// Why a content cannot stand in for another one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoStandIn {
    /// The two are one.
    #[error("a content cannot stand in for itself")]
    Itself,
    /// It is not published here.
    #[error("this publisher has no content {0:?} here: publish that first")]
    Unknown(String),
    /// One is a live stream, the other is none.
    #[error("{0:?} cannot stand in: of the two one is a live stream, and the other is none")]
    OtherKind(String),
    /// It has a stand-in itself.
    #[error("{0:?} has a stand-in itself, and nobody is sent on twice: name that one")]
    HasOne(String),
    /// It is one already.
    #[error("it stands in for {0:?}, and nobody is sent on twice")]
    IsOne(String),
}

/// What becomes of a join.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    Admitted,
    /// Whether the node is lightweight is being tested.
    Held,
    Refused(Refusal),
}

impl ContentDirectory {
    /// Whether the stand-in that `content` names, if any, can be it.
    ///
    /// # Errors
    /// [`NoStandIn`].
    pub fn check_stand_in(&self, content: &Content) -> Result<(), NoStandIn> {
        let Some(StandIn { content: id, name }) = &content.stand_in else { return Ok(()) };
        let own = content.version.content;
        if *id == own {
            return Err(NoStandIn::Itself);
        }
        let stand_in = self.get(id).ok_or_else(|| NoStandIn::Unknown(name.clone()))?;
        if stand_in.kind.is_live() != content.kind.is_live() {
            return Err(NoStandIn::OtherKind(name.clone()));
        }
        if stand_in.stand_in.is_some() {
            return Err(NoStandIn::HasOne(name.clone()));
        }
        let for_which = self.iter().find(|(_, c)| c.stand_in.as_ref().is_some_and(|s| s.content == own));
        for_which.map_or(Ok(()), |(_, c)| Err(NoStandIn::IsOne(c.name.clone())))
    }
}

impl Center {
    /// Whether this join goes ahead. Else it is held until the node's first test is over, or was refused.
    pub(crate) fn is_admitted(&mut self, node: NodeId, join: &Join, content: ContentId, out: &mut Vec<Output>) -> bool {
        match self.answer(&node, join, content) {
            Answer::Admitted => true,
            Answer::Refused(refusal) => {
                out.push(Output::Refuse(node, join.version, refusal));
                false
            }
            Answer::Held => {
                let most = self.config.max_contents_per_node;
                let Some(client) = self.clients.get_mut(&node) else { return false };
                if client.held.len() < most || client.held.contains_key(&content) {
                    client.held.insert(content, join.clone());
                } else {
                    let limit = Refusal::Limit(format!("a node takes part in at most {most} contents"));
                    out.push(Output::Refuse(node, join.version, limit));
                }
                false
            }
        }
    }

    fn answer(&self, node: &NodeId, join: &Join, content: ContentId) -> Answer {
        let stand_in = self.directory.get(&content).and_then(|c| c.stand_in.as_ref());
        let (Some(stand_in), Some(client)) = (stand_in, self.clients.get(node)) else { return Answer::Admitted };
        let is_operators = client.arrival.introduction.role == Role::Waypoint && client.arrival.enrolled;
        // Who takes part keeps what it has: it may be lightweight only for now, as on battery power.
        if is_operators || join.source || client.contents.contains(&content) {
            return Answer::Admitted;
        }
        let mut capabilities = client.arrival.introduction.capabilities;
        let is_undecided = self.prober.as_ref().is_some_and(|p| p.is_undecided(node));
        if is_undecided {
            capabilities.accepts = Known::claim(Accepts::Open);
        }
        match capabilities.lacks() {
            Some(lacks) => Answer::Refused(Refusal::Lightweight { stand_in: stand_in.name.clone(), lacks }),
            None if is_undecided => Answer::Held,
            None => Answer::Admitted,
        }
    }

    /// Something was found out about a node: joins that waited for it go on.
    pub(crate) fn go_on_with_held(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        if self.prober.as_ref().is_some_and(|p| p.is_undecided(&node)) {
            return;
        }
        let held = self.clients.get_mut(&node).map(|c| std::mem::take(&mut c.held)).unwrap_or_default();
        for join in held.into_values() {
            self.join(now, node, &join, out);
        }
    }
}

#[cfg(test)]
#[path = "stand_ins_tests.rs"]
mod tests;
