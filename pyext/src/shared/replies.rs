//! What Redis replies to a command.

use redis::{ServerErrorKind, Value};

use super::endpoint::Failure;
use super::slots::Address;

/// The reply to one command.
pub(super) enum CommandReply {
    Numbers(Vec<i64>),
    /// To each request of a command for several. None: not decided, because it needs a command of its own.
    Several(Vec<Option<Vec<i64>>>),
    /// Not run, because the server has only some of the keys.
    NotTogether,
    /// Not run, because the script is not loaded.
    NoScript,
    /// Not run, because `EVALSHA` is not permitted.
    NoDigest,
    /// Not run, because another server has the key: for this command (`ASK`) or from now on (`MOVED`).
    Redirected {
        address: Address,
        is_ask: bool,
    },
    Failed(Failure),
}

/// Whether the server has become a replica: behind its address there may be another one by now.
pub(super) fn is_read_only(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly))
}

/// Whether an error is about `EVALSHA` itself: no permission to run it, or no such command. Errors of a script
/// that ran name it by its digest.
fn names_digest_command(details: Option<&str>) -> bool {
    let details = details.unwrap_or_default().to_ascii_lowercase();
    ["'evalsha'", "`evalsha`"]
        .iter()
        .any(|name| details.contains(name))
}

fn read_numbers(items: &[Value]) -> Option<Vec<i64>> {
    let number = |item: &Value| match item {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    items.iter().map(number).collect()
}

fn is_for_several(items: &[Value]) -> bool {
    matches!(items.first(), Some(Value::Array(_) | Value::Nil))
}

pub(super) fn read(value: Value) -> CommandReply {
    match value {
        Value::Array(items) if is_for_several(&items) => {
            let reply = |item: &Value| match item {
                Value::Nil => Some(None),
                Value::Array(numbers) => Some(Some(read_numbers(numbers)?)),
                _ => None,
            };
            let replies = items.iter().map(reply).collect::<Option<_>>();
            replies.map_or(
                CommandReply::Failed(Failure::Refused),
                CommandReply::Several,
            )
        }
        Value::Array(items) => read_numbers(&items).map_or(
            CommandReply::Failed(Failure::Refused),
            CommandReply::Numbers,
        ),
        Value::ServerError(error) => match error.kind() {
            Some(ServerErrorKind::NoScript) => CommandReply::NoScript,
            Some(ServerErrorKind::CrossSlot) => CommandReply::NotTogether,
            Some(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
                if names_digest_command(error.details()) =>
            {
                CommandReply::NoDigest
            }
            Some(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                // "slot host:port"
                let address = error.details().and_then(|details| {
                    let (host, port) = details.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
                    Some((host.to_owned(), port.parse().ok()?))
                });
                address.map_or(CommandReply::Failed(Failure::Refused), |address| {
                    CommandReply::Redirected {
                        address,
                        is_ask: kind == ServerErrorKind::Ask,
                    }
                })
            }
            _ => CommandReply::Failed(Failure::Refused),
        },
        _ => CommandReply::Failed(Failure::Refused),
    }
}
