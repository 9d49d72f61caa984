//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused or not found, 130 interrupted.

use crate::api_client::ApiError;

/// An ending with an exit code of its own, as (a cause of) a command's error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ending {
    /// Exit code 2: the arguments do not fit one another.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3: it is not there, or not allowed.
    #[error("{0}")]
    Refused(String),
    /// Exit code 1: the doctor found so many things broken, and has said which.
    #[error("{0} broken: see above")]
    Unwell(usize),
    /// Exit code 130: by Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// The exit code for a command that ended with `error`.
pub fn code(error: &anyhow::Error) -> u8 {
    if let Some(ending) = error.downcast_ref::<Ending>() {
        return match ending {
            Ending::Usage(_) => 2,
            Ending::Refused(_) => 3,
            Ending::Unwell(_) => 1,
            Ending::Interrupted => 130,
        };
    }
    match error.downcast_ref::<ApiError>() {
        Some(ApiError::Refused { .. }) => 3,
        Some(ApiError::Address { .. }) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn codes() {
        let of = |e: Ending| code(&Err::<(), _>(e).context("while trying").expect_err("an error"));
        assert_eq!(of(Ending::Usage("x".into())), 2);
        assert_eq!(of(Ending::Refused("x".into())), 3);
        assert_eq!(of(Ending::Interrupted), 130);
        assert_eq!(code(&ApiError::Refused { status: 404, message: "x".into() }.into()), 3);
        assert_eq!(code(&anyhow::anyhow!("x")), 1);
    }
}
