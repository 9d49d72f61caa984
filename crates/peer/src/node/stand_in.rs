//! A content in whose place lightweight clients get another one of the same publisher (S9): a node that is lightweight goes
//! over to that one at once, and goes no further.

use super::state::{ContentState, Phase, State};
use super::{Inner, Outcome, kept, opening};
use headwater_model::id::ContentId;
use headwater_model::{Lacks, Name};
use std::sync::Arc;

/// The control center says that this node, which lacks something, may have only the publisher's content `name` in place of
/// `content`. False where it stays: `content` is here as a whole, stands in for another one itself, or came without a name,
/// so that nobody knows its publisher's key.
pub(super) fn go_over(inner: &Arc<Inner>, state: &mut State, content: ContentId, name: &str, lacks: Lacks) -> bool {
    let Some(asked) = state.contents.get_mut(&content) else { return true };
    match &asked.phase {
        // The answer to an earlier join; and one that is being opened joins again after that.
        Phase::StandIn(_) | Phase::Opening => return true,
        Phase::Running(r) if r.swarm.is_complete() => return false,
        _ => {}
    }
    let Some(own) = asked.name.clone().filter(|_| asked.stands_in_for.is_none() && asked.former.is_none()) else {
        return false;
    };
    // Its key is the one that the user pinned: the control center chooses among that publisher's contents only.
    let name = Name { name: name.to_owned(), log: None, ..own.clone() };
    let id = name.content();
    if id == content {
        return false;
    }
    let said = format!(
        "this node is lightweight ({lacks}): it gets {:?} in place of {:?}, as their publisher says",
        name.name, own.name
    );
    let mut stand_in = ContentState::new(id, Some(name), asked.destination.clone(), asked.state_dir.clone());
    stand_in.have.clone_from(&asked.have);
    stand_in.follows = asked.follows;
    stand_in.keeping.pinned = asked.keeping.pinned;
    stand_in.stands_in_for = Some(own);
    stand_in.keep_note(said.clone());
    asked.note(said);
    asked.pending.clear();
    let former = std::mem::replace(&mut asked.phase, Phase::StandIn(id));
    drop(kept::part(state, former));
    let inner = inner.clone();
    tokio::task::spawn_blocking(move || {
        opening::begin(&inner, stand_in);
        // Whoever waits for the one waits for the other, which is there from now on.
        if let Some(asked) = inner.lock().contents.get(&content).filter(|c| is_replaced_by(c, &id)) {
            asked.outcome.send_replace(Outcome::StandIn(id));
        }
    });
    true
}

/// Whether `id` is here in place of a content.
pub(super) fn is_replaced_by(content: &ContentState, id: &ContentId) -> bool {
    matches!(&content.phase, Phase::StandIn(by) if by == id)
}

impl State {
    /// The content that is here for one that was asked for: its stand-in, where it has one.
    pub(crate) fn here_for(&self, asked: ContentId) -> ContentId {
        match self.contents.get(&asked).map(|c| &c.phase) {
            Some(Phase::StandIn(by)) if self.contents.contains_key(by) => *by,
            _ => asked,
        }
    }

    /// The content that goes when one is given up: a stand-in that nobody asked for, which takes the other with it.
    pub(super) fn goes_with(&self, given_up: ContentId) -> ContentId {
        let here = self.here_for(given_up);
        let only_for_it = |c: &ContentState| c.stands_in_for.as_ref().is_some_and(|n| n.content() == given_up);
        if self.contents.get(&here).is_some_and(only_for_it) { here } else { given_up }
    }
}

#[cfg(test)]
#[path = "stand_in_tests.rs"]
mod tests;
