//! Connections to Redis: one to a standalone server, one to each server of a cluster.
//! In this crate a *node* is a process that shares the limits, and a *server* is a Redis server.
//!
//! A pipeline is sent as a whole and then read. A command is repeated only if the server replies that it
//! did not run it: the script is unknown (`NOSCRIPT`), `EVALSHA` is not permitted, or another server has the
//! key (`MOVED`, `ASK`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{RedisError, ServerErrorKind, Value};

use crate::shared::endpoint::{Failure, RedisEndpoint, ServerConnection};
use crate::shared::slots::{Address, slot, slot_table};
use crate::shared::wire::{Request, SCRIPT, script_digest};

const NODES_SCRIPT: &str = include_str!("nodes.lua");
/// A node without heartbeats is counted for this long.
const HEARTBEAT_TTL_MS: u64 = 3000;
/// A server of a cluster that could not be reached is not tried again for this long.
const AVOIDED_FOR: Duration = Duration::from_millis(400);

/// Open connections. Belongs to one thread.
pub(crate) struct Connections {
    endpoint: RedisEndpoint,
    /// By server; without a cluster there is one, under an empty address.
    open: HashMap<Address, ServerConnection>,
    /// Servers of a cluster that did not answer, and until when no connection is tried, so that requests
    /// to healthy servers do not wait for them.
    avoided: HashMap<Address, Instant>,
    /// The server of each hash slot; empty until loaded.
    slots: Vec<Option<Address>>,
    /// The reason of the last failure.
    last_error: Option<String>,
}

/// The reply to one command.
enum CommandReply {
    Numbers(Vec<i64>),
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

impl Connections {
    pub(crate) fn new(endpoint: RedisEndpoint) -> Self {
        Self {
            endpoint,
            open: HashMap::new(),
            avoided: HashMap::new(),
            slots: Vec::new(),
            last_error: None,
        }
    }

    /// The reason of the last failure since the last call.
    pub(crate) fn take_error(&mut self) -> Option<String> {
        self.last_error.take()
    }

    /// Sends all requests and calls `complete` with the reply to each, in no particular order.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        complete: &mut impl FnMut(&Request, Result<&[i64], Failure>),
    ) {
        let mut by_server: HashMap<Address, Vec<&Request>> = HashMap::new();
        for request in requests {
            match self.server_of(&request.key) {
                Ok(address) => by_server.entry(address).or_default().push(request),
                Err(why) => complete(request, Err(why)),
            }
        }
        // Everything is sent before anything is read, so that all servers work at the same time.
        let mut sent = Vec::new();
        for (address, requests) in by_server {
            match self.send(&address, &requests, false) {
                Ok(()) => sent.push((address, requests)),
                Err(why) => requests
                    .iter()
                    .for_each(|request| complete(request, Err(why))),
            }
        }
        let mut again = Vec::new();
        for (address, requests) in sent {
            let replies = self.receive(&address, requests.len(), false);
            for (request, reply) in requests.into_iter().zip(replies) {
                match reply {
                    CommandReply::Numbers(numbers) => complete(request, Ok(&numbers)),
                    CommandReply::Failed(why) => complete(request, Err(why)),
                    CommandReply::NoScript | CommandReply::NoDigest => {
                        again.push((request, address.clone(), false));
                    }
                    CommandReply::Redirected { address, is_ask } => {
                        again.push((request, address, is_ask));
                    }
                }
            }
        }
        for (request, address, is_ask) in again {
            if !is_ask {
                self.slots.clear();
            }
            match self.repeat(request, &address, is_ask) {
                CommandReply::Numbers(numbers) => complete(request, Ok(&numbers)),
                CommandReply::Failed(why) => complete(request, Err(why)),
                CommandReply::NoScript
                | CommandReply::NoDigest
                | CommandReply::Redirected { .. } => {
                    complete(request, Err(Failure::Refused));
                }
            }
        }
    }

    /// Sends a request again that was not run, to the server that has its key.
    fn repeat(&mut self, request: &Request, address: &Address, is_ask: bool) -> CommandReply {
        if let Some(server) = self.open.get_mut(address) {
            // The source goes with the request: there is no other reply than that to the request.
            server.is_cached = false;
        }
        if self.send(address, &[request], is_ask).is_err() {
            return CommandReply::Failed(Failure::NoReply);
        }
        self.receive(address, 1, is_ask)
            .pop()
            .unwrap_or(CommandReply::Failed(Failure::NoReply))
    }

    /// Records a heartbeat of this node; returns the number of live nodes.
    pub(crate) fn count_nodes(&mut self, key: &[u8], node: u64) -> Result<u64, Failure> {
        let address = self.server_of(key)?;
        let server = self.connection_to(&address)?;
        let count = redis::cmd("EVAL")
            .arg(NODES_SCRIPT)
            .arg(1)
            .arg(key)
            .arg(node)
            .arg(HEARTBEAT_TTL_MS)
            .query::<u64>(&mut server.connection);
        count.map_err(|error| {
            // Also a reply that is an error: a former master keeps its connections and refuses all writes.
            self.open.remove(&address);
            self.slots.clear();
            self.note(&error)
        })
    }

    /// Whether any server of a cluster answers. For a single server the failed command was the answer: false.
    pub(crate) fn is_any_server_reachable(&mut self) -> bool {
        if !self.endpoint.is_cluster {
            return false;
        }
        self.slots.clear();
        self.load_slots().is_ok()
    }

    fn connection_to(&mut self, address: &Address) -> Result<&mut ServerConnection, Failure> {
        if !self.open.contains_key(address) {
            if let Some(until) = self.avoided.get(address)
                && Instant::now() < *until
            {
                return Err(Failure::NoReply);
            }
            match self.endpoint.connect(address) {
                Ok(server) => {
                    self.avoided.remove(address);
                    self.open.insert(address.clone(), server);
                }
                Err(error) => {
                    if self.endpoint.is_cluster {
                        let until = Instant::now() + AVOIDED_FOR;
                        self.avoided.insert(address.clone(), until);
                    }
                    return Err(self.note(&error));
                }
            }
        }
        self.open.get_mut(address).ok_or(Failure::NoReply)
    }

    fn send(
        &mut self,
        address: &Address,
        requests: &[&Request],
        is_ask: bool,
    ) -> Result<(), Failure> {
        let server = self.connection_to(address)?;
        let mut pipeline = Vec::new();
        for request in requests {
            if is_ask {
                pipeline.extend(redis::cmd("ASKING").get_packed_command());
            }
            let mut command = if server.is_cached && server.takes_digest {
                let mut command = redis::cmd("EVALSHA");
                command.arg(script_digest());
                command
            } else {
                let mut command = redis::cmd("EVAL");
                command.arg(SCRIPT);
                // The server runs the commands in this order, and keeps the script of the first.
                server.is_cached = true;
                command
            };
            command.arg(1).arg(&request.key).arg(&request.body);
            pipeline.extend(command.get_packed_command());
        }
        let sent = server.connection.send_packed_command(&pipeline);
        sent.map_err(|error| {
            self.open.remove(address);
            self.note(&error)
        })
    }

    /// Reads `count` replies. A connection that fails is closed, so that a late reply is never matched to
    /// another request.
    fn receive(&mut self, address: &Address, count: usize, is_ask: bool) -> Vec<CommandReply> {
        let mut replies = Vec::with_capacity(count);
        let until = Instant::now() + 2 * self.endpoint.timeout;
        let mut is_broken = false;
        let mut is_demoted = false;
        let mut error = None;
        if let Some(server) = self.open.get_mut(address) {
            if is_ask {
                error = server.connection.recv_response().err();
                is_broken = error.is_some();
            }
            while replies.len() < count && !is_broken && Instant::now() < until {
                match server.connection.recv_response() {
                    Ok(value) => {
                        is_demoted |= is_read_only(&value);
                        let reply = read(value.clone());
                        match (&reply, value) {
                            (CommandReply::NoDigest, _) => server.takes_digest = false,
                            (CommandReply::Failed(_), Value::ServerError(refusal)) => {
                                error = Some(refusal.into());
                            }
                            _ => {}
                        }
                        replies.push(reply);
                    }
                    Err(lost) => {
                        is_broken = true;
                        error = Some(lost);
                    }
                }
            }
        }
        if let Some(error) = error {
            self.note(&error);
        }
        if is_demoted {
            self.open.remove(address);
            self.slots.clear();
        }
        if replies.len() < count {
            self.open.remove(address);
            replies.resize_with(count, || CommandReply::Failed(Failure::NoReply));
        }
        replies
    }

    /// Keeps the reason of a failure. Errors of the client name neither user nor password.
    fn note(&mut self, error: &RedisError) -> Failure {
        // With the server's own word, which its documentation and its log use.
        self.last_error = Some(match error.code() {
            Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
            None => error.to_string(),
        });
        Failure::NoReply
    }

    fn server_of(&mut self, key: &[u8]) -> Result<Address, Failure> {
        if !self.endpoint.is_cluster {
            return Ok(Address::default());
        }
        if self.slots.is_empty() {
            self.load_slots()?;
        }
        self.slots[usize::from(slot(key))]
            .clone()
            .ok_or(Failure::NoReply)
    }

    /// Loads the map of hash slots from any server that answers.
    fn load_slots(&mut self) -> Result<(), Failure> {
        let mut known: Vec<Address> = self.open.keys().cloned().collect();
        known.push(self.endpoint.home());
        for address in known {
            let Ok(server) = self.connection_to(&address) else {
                continue;
            };
            match redis::cmd("CLUSTER")
                .arg("SLOTS")
                .query::<Value>(&mut server.connection)
            {
                Ok(table) => {
                    self.slots = slot_table(&table, &address);
                    return Ok(());
                }
                Err(_) => drop(self.open.remove(&address)),
            }
        }
        Err(Failure::NoReply)
    }
}

/// Whether the server has become a replica: behind its address there may be another one by now.
fn is_read_only(value: &Value) -> bool {
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

fn read(value: Value) -> CommandReply {
    match value {
        Value::Array(items) => {
            let number = |item: &Value| match item {
                Value::Int(number) => Some(*number),
                _ => None,
            };
            let numbers = items.iter().map(number).collect::<Option<_>>();
            numbers.map_or(
                CommandReply::Failed(Failure::Refused),
                CommandReply::Numbers,
            )
        }
        Value::ServerError(error) => match error.kind() {
            Some(ServerErrorKind::NoScript) => CommandReply::NoScript,
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
