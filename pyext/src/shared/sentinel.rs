//! Redis Sentinel: which server is the primary.
//!
//! As the guidelines for clients of Redis Sentinel say: the sentinels are asked in turn, before each
//! connection, and the server that they name has to call itself a master.

use redis::{Connection, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value};

use crate::shared::slots::Address;

/// The sentinels of one primary.
#[derive(Debug, Clone)]
pub(super) struct Sentinels {
    /// Where the sentinels are, and how to log in to them.
    pub(super) servers: Vec<ConnectionInfo>,
    /// The name under which they watch the primary.
    pub(super) name: String,
}

impl Sentinels {
    /// Connects to the primary, by what `open` opens a connection, to a sentinel or to a server at an address.
    ///
    /// # Errors
    /// The reason of the last failure, if no sentinel names a server that is a primary.
    pub(super) fn connect(
        &self,
        open: impl Fn(ConnectionInfo) -> RedisResult<Connection>,
        open_at: impl Fn(&Address) -> RedisResult<Connection>,
    ) -> RedisResult<Connection> {
        let mut failure = None;
        // Most sentinels name the same server: each one is tried once.
        let mut tried = Vec::new();
        for sentinel in &self.servers {
            let named = open(sentinel.clone()).and_then(|mut asked| self.ask(&mut asked));
            let address = match named {
                Ok(address) => address,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            if tried.contains(&address) {
                continue;
            }
            let connected = open_at(&address).and_then(|mut server| {
                check_role(&mut server)?;
                Ok(server)
            });
            match connected {
                Ok(server) => return Ok(server),
                Err(error) => failure = Some(error),
            }
            tried.push(address);
        }
        Err(failure.unwrap_or_else(|| refusal("no sentinel is named")))
    }

    fn ask(&self, sentinel: &mut Connection) -> RedisResult<Address> {
        redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(&self.name)
            .query::<Option<Address>>(sentinel)?
            .ok_or_else(|| refusal("the sentinels know no primary of that name"))
    }
}

/// # Errors
/// A server that is a replica: its sentinel has not learned of a failover yet.
fn check_role(server: &mut Connection) -> RedisResult<()> {
    match redis::cmd("ROLE").query::<Value>(server) {
        Ok(Value::Array(role)) => match role.first() {
            Some(Value::BulkString(word)) if word == b"master" => Ok(()),
            _ => Err(refusal("the server that the sentinels name is no primary")),
        },
        Ok(_) => Err(refusal("the server that the sentinels name has no role")),
        // A replica refuses the first write, too, and is left then.
        Err(error) if error.code() == Some("NOPERM") => Ok(()),
        Err(error) => Err(error),
    }
}

fn refusal(what: &'static str) -> RedisError {
    (ErrorKind::Client, what).into()
}
