//! The address of Redis, and how to connect to it.

use std::time::Duration;

use redis::{Client, Connection, ConnectionInfo, Value};

use crate::error::Error;
use crate::shared::sentinel::Sentinels;
use crate::shared::slots::Address;
use crate::shared::url::{RedisUrl, TlsFiles, at, host_and_port};
use crate::shared::wire::SCRIPT;

/// A standalone server, the primary of sentinels, or a cluster, by its URL.
#[derive(Debug, Clone)]
pub(crate) struct RedisEndpoint {
    info: ConnectionInfo,
    tls: TlsFiles,
    sentinels: Option<Sentinels>,
    pub(super) is_cluster: bool,
    /// Of one read or write.
    pub(super) timeout: Duration,
}

/// One open connection.
pub(super) struct ServerConnection {
    pub(super) connection: Connection,
    /// Whether the server has the script, as far as it is known.
    pub(super) is_cached: bool,
    /// False once the server has refused `EVALSHA`.
    pub(super) takes_digest: bool,
    /// Whether it has all keys, so that one command may be about several.
    pub(super) takes_several: bool,
}

/// Why a command has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No reply: the command may have run or not.
    NoReply,
    /// Redis replied with an error: out of memory, no permission, a state it cannot read.
    Refused,
}

impl RedisEndpoint {
    /// # Errors
    /// [`Error::Invalid`] if the URL, or a file that it names, cannot be read. The message does not repeat it:
    /// it may hold a password.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, Error> {
        let RedisUrl {
            info,
            is_cluster,
            sentinels,
            tls,
        } = RedisUrl::parse(url)?;
        tls.check(&info)?;
        Ok(Self {
            info,
            tls,
            sentinels,
            is_cluster,
            timeout,
        })
    }

    /// The configured address, in the form in which the cluster names its servers.
    pub(super) fn home(&self) -> Address {
        host_and_port(&self.info).unwrap_or_default()
    }

    pub(super) fn connect(&self, address: &Address) -> redis::RedisResult<ServerConnection> {
        let open = |info| self.open(info);
        let open_at = |address: &Address| self.open(at(&self.info, address));
        let mut connection = match &self.sentinels {
            Some(sentinels) => sentinels.connect(open, open_at)?,
            None if self.is_cluster => open_at(address)?,
            None => open(self.info.clone())?,
        };
        let is_cached = load(&mut connection)?;
        let takes_several = !self.is_cluster && is_cached && is_primary(&mut connection)?;
        Ok(ServerConnection {
            connection,
            takes_several,
            is_cached,
            takes_digest: true,
        })
    }

    fn open(&self, info: ConnectionInfo) -> redis::RedisResult<Connection> {
        let client = if self.tls.is_empty() {
            Client::open(info)?
        } else {
            Client::build_with_tls(info, self.tls.read()?)?
        };
        let connection = client.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(connection)
    }
}

/// Loads the script. False if the server does not let it be loaded: by the permissions of the user, or
/// because a managed Redis has no such command. `EVAL` loads it, too.
fn load(connection: &mut Connection) -> redis::RedisResult<bool> {
    let loaded = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(SCRIPT)
        .query::<Value>(connection);
    match loaded {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the server says that it is one, and a primary. A proxy that spreads keys over servers does not have this
/// command: each knows a command by its first key alone.
fn is_primary(connection: &mut Connection) -> redis::RedisResult<bool> {
    match redis::cmd("ROLE").query::<Value>(connection) {
        Ok(Value::Array(items)) => Ok(match items.first() {
            Some(Value::BulkString(role)) => role == b"master",
            _ => false,
        }),
        Err(error) if error.is_io_error() => Err(error),
        Ok(_) | Err(_) => Ok(false), // not permitted, or not known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_url_is_refused_without_being_echoed() {
        let Err(Error::Invalid(message)) =
            RedisEndpoint::new("http://user:hunter2@host", Duration::from_secs(1))
        else {
            panic!("accepted");
        };
        assert!(!message.contains("hunter2"));
    }
}
