//! The one error type of the crate.

use std::fmt;

/// The reason why an argument was refused. The text names the argument and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The value makes no sense (a limit of zero, an unknown unit).
    Invalid(String),
    /// The value makes sense but does not fit the engine's integers.
    TooLarge(String),
    /// Redis does not reply, or refuses to serve; the reason.
    Unreachable(String),
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::TooLarge(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(message) | Self::TooLarge(message) | Self::Unreachable(message) => {
                f.write_str(message)
            }
        }
    }
}

impl std::error::Error for Error {}

/// Most characters of a value that a message shows: numbers and texts may have any length.
pub(crate) const MOST_SHOWN: usize = 100;

/// A text as a message shows it, in quotes.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
