//! Connections to Redis: one to a standalone server, one to each node of a cluster.
//!
//! A pipeline is sent as a whole and then read. Nothing is repeated unless the server has said that it did
//! not run it: it does not know the script (`NOSCRIPT`), or the key lives elsewhere (`MOVED`, `ASK`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{
    Client, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, ServerErrorKind, Value,
};

use crate::error::Error;
use crate::shared::Parcel;
use crate::shared::slots::{Address, slot, slot_table};
use crate::shared::wire::SCRIPT;

const NODES_SCRIPT: &str = include_str!("nodes.lua");
/// A silent node is counted for so long.
const NODE_LIVES_MS: u64 = 3000;
/// A node of a cluster that could not be reached is not tried again for so long.
const AVOIDED_FOR: Duration = Duration::from_millis(400);

/// Where Redis is and how to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    client: Client,
    is_cluster: bool,
    timeout: Duration,
}

/// Open connections. Belongs to one thread.
pub(crate) struct Lines {
    link: Link,
    /// Without a cluster there is one, under an empty name.
    open: HashMap<Address, Line>,
    /// Nodes of a cluster that did not answer, and until when they are left alone: those that do are not
    /// to wait for them.
    avoided: HashMap<Address, Instant>,
    /// Which node serves which slot; empty until asked.
    slots: Vec<Option<Address>>,
}

struct Line {
    connection: Connection,
    script: Vec<u8>,
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing was heard: nobody knows whether it was run.
    Silent,
    /// Redis said that it could not: out of memory, not allowed, not a state it can read.
    Refused,
}

/// What became of one command.
enum Outcome {
    Done(Vec<i64>),
    /// Not run, because the script is not there.
    NoScript,
    /// Not run, because the key lives elsewhere, for now or for good.
    Elsewhere {
        address: Address,
        is_asked: bool,
    },
    Lost(Lost),
}

impl Link {
    /// # Errors
    /// [`Error::Invalid`] if the URL cannot be read. The message does not repeat it: it may hold a password.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, Error> {
        let (plain, is_cluster) = match url.split_once("+cluster://") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (url.to_owned(), false),
        };
        let client = Client::open(plain).map_err(|error| {
            let kind = error.kind();
            Error::invalid(format!("cannot read the Redis URL: {kind:?}"))
        })?;
        Ok(Self {
            client,
            is_cluster,
            timeout,
        })
    }

    pub(crate) fn open(&self) -> Lines {
        Lines {
            link: self.clone(),
            open: HashMap::new(),
            avoided: HashMap::new(),
            slots: Vec::new(),
        }
    }

    /// The address users gave, in the form the cluster uses.
    fn home(&self) -> Address {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), *port)
            }
            _ => (String::new(), 0),
        }
    }

    fn connect(&self, address: &Address) -> Result<Line, Lost> {
        let info = self.client.get_connection_info().clone();
        let info = if self.is_cluster {
            let addr = match info.addr().clone() {
                ConnectionAddr::TcpTls {
                    insecure,
                    tls_params,
                    ..
                } => ConnectionAddr::TcpTls {
                    host: address.0.clone(),
                    port: address.1,
                    insecure,
                    tls_params,
                },
                _ => ConnectionAddr::Tcp(address.0.clone(), address.1),
            };
            info.set_addr(addr)
        } else {
            info
        };
        let connect = || -> redis::RedisResult<Line> {
            let client = Client::open(info.into_connection_info()?)?;
            let mut connection = client.get_connection_with_timeout(self.timeout)?;
            connection.set_read_timeout(Some(self.timeout))?;
            connection.set_write_timeout(Some(self.timeout))?;
            let script = load(&mut connection)?;
            Ok(Line { connection, script })
        };
        connect().map_err(|_| Lost::Silent)
    }
}

fn load(connection: &mut Connection) -> redis::RedisResult<Vec<u8>> {
    redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(SCRIPT)
        .query(connection)
}

impl Lines {
    /// Sends all parcels and hands each one's reply to `deliver`, in no particular order.
    pub(crate) fn exchange(
        &mut self,
        parcels: &[Parcel],
        deliver: &mut impl FnMut(&Parcel, Result<&[i64], Lost>),
    ) {
        let mut by_node: HashMap<Address, Vec<&Parcel>> = HashMap::new();
        for parcel in parcels {
            match self.node_of(&parcel.key) {
                Ok(address) => by_node.entry(address).or_default().push(parcel),
                Err(lost) => deliver(parcel, Err(lost)),
            }
        }
        // All nodes work at the same time: everything is sent before anything is read.
        let mut sent = Vec::new();
        for (address, parcels) in by_node {
            match self.send(&address, &parcels, false) {
                Ok(()) => sent.push((address, parcels)),
                Err(why) => parcels.iter().for_each(|parcel| deliver(parcel, Err(why))),
            }
        }
        let mut again = Vec::new();
        for (address, parcels) in sent {
            let outcomes = self.receive(&address, parcels.len(), false);
            for (parcel, outcome) in parcels.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Done(numbers) => deliver(parcel, Ok(&numbers)),
                    Outcome::Lost(why) => deliver(parcel, Err(why)),
                    Outcome::NoScript => again.push((parcel, address.clone(), false)),
                    Outcome::Elsewhere { address, is_asked } => {
                        again.push((parcel, address, is_asked));
                    }
                }
            }
        }
        for (parcel, address, is_asked) in again {
            if !is_asked {
                self.slots.clear();
            }
            match self.repeat(parcel, &address, is_asked) {
                Outcome::Done(numbers) => deliver(parcel, Ok(&numbers)),
                Outcome::Lost(why) => deliver(parcel, Err(why)),
                _ => deliver(parcel, Err(Lost::Refused)),
            }
        }
    }

    /// Once more, to a node that has not run it.
    fn repeat(&mut self, parcel: &Parcel, address: &Address, is_asked: bool) -> Outcome {
        let reloaded = self.line(address).and_then(|line| {
            line.script = load(&mut line.connection).map_err(|_| Lost::Silent)?;
            Ok(())
        });
        if reloaded.is_err() || self.send(address, &[parcel], is_asked).is_err() {
            self.open.remove(address);
            return Outcome::Lost(Lost::Silent);
        }
        self.receive(address, 1, is_asked)
            .pop()
            .unwrap_or(Outcome::Lost(Lost::Silent))
    }

    /// Says that this node lives; returns how many do.
    pub(crate) fn count_nodes(&mut self, key: &[u8], node: u64) -> Result<u64, Lost> {
        let address = self.node_of(key)?;
        let line = self.line(&address)?;
        let count = redis::cmd("EVAL")
            .arg(NODES_SCRIPT)
            .arg(1)
            .arg(key)
            .arg(node)
            .arg(NODE_LIVES_MS)
            .query::<u64>(&mut line.connection);
        count.map_err(|error| {
            if matches!(error.kind(), ErrorKind::Server(_)) {
                self.slots.clear();
            } else {
                self.open.remove(&address);
            }
            Lost::Silent
        })
    }

    /// Whether any node of a cluster answers. A single server would have answered already.
    pub(crate) fn is_anybody_there(&mut self) -> bool {
        if !self.link.is_cluster {
            return false;
        }
        self.slots.clear();
        self.learn_slots().is_ok()
    }

    fn line(&mut self, address: &Address) -> Result<&mut Line, Lost> {
        if !self.open.contains_key(address) {
            if let Some(until) = self.avoided.get(address)
                && Instant::now() < *until
            {
                return Err(Lost::Silent);
            }
            match self.link.connect(address) {
                Ok(line) => {
                    self.avoided.remove(address);
                    self.open.insert(address.clone(), line);
                }
                Err(why) => {
                    if self.link.is_cluster {
                        let until = Instant::now() + AVOIDED_FOR;
                        self.avoided.insert(address.clone(), until);
                    }
                    return Err(why);
                }
            }
        }
        self.open.get_mut(address).ok_or(Lost::Silent)
    }

    fn send(&mut self, address: &Address, parcels: &[&Parcel], is_asked: bool) -> Result<(), Lost> {
        let line = self.line(address)?;
        let mut pipeline = Vec::new();
        for parcel in parcels {
            if is_asked {
                pipeline.extend(redis::cmd("ASKING").get_packed_command());
            }
            let mut command = redis::cmd("EVALSHA");
            command
                .arg(&line.script)
                .arg(1)
                .arg(&parcel.key)
                .arg(&parcel.body);
            pipeline.extend(command.get_packed_command());
        }
        let sent = line.connection.send_packed_command(&pipeline);
        sent.map_err(|_| {
            self.open.remove(address);
            Lost::Silent
        })
    }

    /// Reads as many replies as there should be. A connection that fails is closed, so that a late
    /// reply is never taken for another one's.
    fn receive(&mut self, address: &Address, count: usize, is_asked: bool) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(count);
        let until = Instant::now() + 2 * self.link.timeout;
        let mut is_broken = false;
        if let Some(line) = self.open.get_mut(address) {
            if is_asked {
                is_broken = line.connection.recv_response().is_err();
            }
            while outcomes.len() < count && !is_broken && Instant::now() < until {
                match line.connection.recv_response() {
                    Ok(value) => outcomes.push(read(value)),
                    Err(_) => is_broken = true,
                }
            }
        }
        if outcomes.len() < count {
            self.open.remove(address);
            outcomes.resize_with(count, || Outcome::Lost(Lost::Silent));
        }
        outcomes
    }

    fn node_of(&mut self, key: &[u8]) -> Result<Address, Lost> {
        if !self.link.is_cluster {
            return Ok(Address::default());
        }
        if self.slots.is_empty() {
            self.learn_slots()?;
        }
        self.slots[usize::from(slot(key))]
            .clone()
            .ok_or(Lost::Silent)
    }

    /// Asks any node that answers who serves what.
    fn learn_slots(&mut self) -> Result<(), Lost> {
        let mut known: Vec<Address> = self.open.keys().cloned().collect();
        known.push(self.link.home());
        for address in known {
            let Ok(line) = self.line(&address) else {
                continue;
            };
            match redis::cmd("CLUSTER")
                .arg("SLOTS")
                .query::<Value>(&mut line.connection)
            {
                Ok(table) => {
                    self.slots = slot_table(&table, &address);
                    return Ok(());
                }
                Err(_) => drop(self.open.remove(&address)),
            }
        }
        Err(Lost::Silent)
    }
}

fn read(value: Value) -> Outcome {
    match value {
        Value::Array(items) => {
            let number = |item: &Value| match item {
                Value::Int(number) => Some(*number),
                _ => None,
            };
            let numbers = items.iter().map(number).collect::<Option<_>>();
            numbers.map_or(Outcome::Lost(Lost::Refused), Outcome::Done)
        }
        Value::ServerError(error) => match error.kind() {
            Some(ServerErrorKind::NoScript) => Outcome::NoScript,
            Some(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                // "slot host:port"
                let address = error.details().and_then(|details| {
                    let (host, port) = details.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
                    Some((host.to_owned(), port.parse().ok()?))
                });
                address.map_or(Outcome::Lost(Lost::Refused), |address| Outcome::Elsewhere {
                    address,
                    is_asked: kind == ServerErrorKind::Ask,
                })
            }
            _ => Outcome::Lost(Lost::Refused),
        },
        _ => Outcome::Lost(Lost::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_without_being_repeated() {
        let Err(Error::Invalid(message)) =
            Link::new("http://user:hunter2@host", Duration::from_secs(1))
        else {
            panic!("accepted");
        };
        assert!(!message.contains("hunter2"));
    }
}
