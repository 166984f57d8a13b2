//! Connections to Redis: one to a standalone server, one to each server of a cluster.
//! In this crate a *node* is a process that shares the limits, and a *server* is a Redis server.
//!
//! A pipeline is sent as a whole and then read. A command is repeated only if the server replies that it
//! did not run it: the script is unknown (`NOSCRIPT`), `EVALSHA` is not permitted, or another server has the
//! key (`MOVED`, `ASK`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{RedisError, Value};

use crate::shared::endpoint::{Failure, RedisEndpoint, ServerConnection};
use crate::shared::replies::{CommandReply, is_read_only, read};
use crate::shared::slots::{Address, slot, slot_table};
use crate::shared::wire::{Request, SCRIPT, script_digest};

const NODES_SCRIPT: &str = include_str!("nodes.lua");
/// A node without heartbeats is counted for this long.
const HEARTBEAT_TTL_MS: u64 = 3000;
/// A server of a cluster that could not be reached is not tried again for this long.
const AVOIDED_FOR: Duration = Duration::from_millis(400);
/// Most requests in one command: other clients of Redis wait no longer for it than for a pipeline of a few commands.
const MAX_TOGETHER: usize = 16;

/// Open connections. Used by one thread at a time.
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

    /// Whether the server is connected, of which there is one only.
    pub(crate) fn is_open(&self) -> bool {
        !self.endpoint.is_cluster && !self.open.is_empty()
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
        let mut again = Vec::new();
        let undecided = self.exchange_with(by_server, true, &mut again, complete);
        if !undecided.is_empty() {
            self.exchange_with(undecided, false, &mut again, complete);
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
                | CommandReply::NotTogether
                | CommandReply::Several(_)
                | CommandReply::Redirected { .. } => {
                    complete(request, Err(Failure::Refused));
                }
            }
        }
    }

    /// Sends requests to their servers, with `shares_commands` several in one command where that is possible. Returns
    /// those that need a command of their own, and adds to `again` those that were not run for another reason, with
    /// the address of the server, and whether it must be asked to take them nevertheless.
    fn exchange_with<'r>(
        &mut self,
        by_server: HashMap<Address, Vec<&'r Request>>,
        shares_commands: bool,
        again: &mut Vec<(&'r Request, Address, bool)>,
        complete: &mut impl FnMut(&Request, Result<&[i64], Failure>),
    ) -> HashMap<Address, Vec<&'r Request>> {
        // Everything is sent before anything is read, so that all servers work at the same time.
        let mut sent = Vec::new();
        for (address, requests) in by_server {
            let shares = shares_commands
                && self
                    .connection_to(&address)
                    .is_ok_and(|server| server.takes_several);
            let commands = commands(requests, shares);
            match self.send(&address, &commands, false) {
                Ok(()) => sent.push((address, commands)),
                Err(why) => commands
                    .concat()
                    .iter()
                    .for_each(|request| complete(request, Err(why))),
            }
        }
        let mut undecided: HashMap<Address, Vec<&Request>> = HashMap::new();
        for (address, commands) in sent {
            let replies = self.receive(&address, commands.len(), false);
            for (requests, reply) in commands.into_iter().zip(replies) {
                match reply {
                    CommandReply::Numbers(numbers) if requests.len() == 1 => {
                        complete(requests[0], Ok(&numbers));
                    }
                    CommandReply::Several(replies) if requests.len() == replies.len() => {
                        for (request, numbers) in requests.into_iter().zip(replies) {
                            match numbers {
                                Some(numbers) => complete(request, Ok(&numbers)),
                                None => undecided.entry(address.clone()).or_default().push(request),
                            }
                        }
                    }
                    CommandReply::NotTogether if requests.len() > 1 => {
                        undecided
                            .entry(address.clone())
                            .or_default()
                            .extend(requests);
                    }
                    CommandReply::NoScript | CommandReply::NoDigest => {
                        again.extend(
                            requests
                                .iter()
                                .map(|request| (*request, address.clone(), false)),
                        );
                    }
                    CommandReply::Redirected { address, is_ask } => {
                        again.extend(
                            requests
                                .iter()
                                .map(|request| (*request, address.clone(), is_ask)),
                        );
                    }
                    CommandReply::Failed(why) => {
                        for request in requests {
                            complete(request, Err(why));
                        }
                    }
                    CommandReply::Numbers(_)
                    | CommandReply::Several(_)
                    | CommandReply::NotTogether => {
                        for request in requests {
                            complete(request, Err(Failure::Refused));
                        }
                    }
                }
            }
        }
        undecided
    }

    /// Sends a request again that was not run, to the server that has its key.
    fn repeat(&mut self, request: &Request, address: &Address, is_ask: bool) -> CommandReply {
        if let Some(server) = self.open.get_mut(address) {
            // The source goes with the request: there is no other reply than that to the request.
            server.is_cached = false;
        }
        if self.send(address, &[vec![request]], is_ask).is_err() {
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
        commands: &[Vec<&Request>],
        is_ask: bool,
    ) -> Result<(), Failure> {
        let server = self.connection_to(address)?;
        let mut pipeline = Vec::new();
        for requests in commands {
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
            command.arg(requests.len());
            for request in requests {
                command.arg(&request.key);
            }
            command.arg(&requests[0].body);
            if requests.len() > 1 {
                for short in requests.iter().filter_map(|request| request.short.as_ref()) {
                    command.arg(&short.body);
                }
            }
            command.write_packed_command(&mut pipeline);
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
                            (CommandReply::NotTogether, _) => server.takes_several = false,
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

/// The requests of each command. With `shares`, requests that differ by their key and a few numbers share commands.
fn commands(requests: Vec<&Request>, shares: bool) -> Vec<Vec<&Request>> {
    let is_short = |request: &&Request| shares && request.short.is_some();
    let (short, long): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_short);
    let have_same_terms = |one: &&Request, other: &&Request| match (&one.short, &other.short) {
        (Some(one), Some(other)) => Arc::ptr_eq(&one.terms, &other.terms),
        _ => false,
    };
    let together = short
        .chunk_by(have_same_terms)
        .flat_map(|run| run.chunks(MAX_TOGETHER).map(<[_]>::to_vec));
    together
        .chain(long.into_iter().map(|request| vec![request]))
        .collect()
}
