//! The data plane of the Hopgate gateway.
//!
//! The front owns the public listening sockets. It answers redirects that its table holds, by itself and on
//! threads of its own, and passes every other request on to the control plane, over a private Unix socket.
//!
//! * [`front`]: threads, the sockets, the drain.
//! * `accepted`: a connection from its first byte to its last.
//! * `proxy_protocol`: the client of a connection, if a proxy names it there.
//! * [`tls`]: what secures it.
//! * `connection`: a connection, and its requests in turn; `idle` ends those that wait for too long.
//! * [`plane`]: the decision about a request: `request`, [`address`] and [`client`] read it, [`limits`] decides,
//!   [`table`] has the answer, [`template`] and [`body`] form it, as [`accept`] has it, [`tarpit`] delays it, [`recorder`] counts it.
//!   `visit`, `request_id`, [`intent`], [`query`] and [`quota`] are what a link may ask of them.
//! * `plane::watch`: what is reported of single requests: [`sampling`] decides of which, [`records`] keeps it; [`origins`] ties
//!   look-ups to their traces.
//! * [`seen`]: what visits look like, for statistics; `utm`: the campaigns that they are of.
//! * [`misses`]: what requests wait for, asked of the control plane many at once.
//! * [`upstream`], [`pool`], [`private`], [`upload`]: the way to the control plane.
//! * [`clock`]: the time of the control plane. `wire`: the limits of a connection that hyper has not.
//! * `python`: the Python API, and the only module that depends on it.
//!
//! The table is filled by the control plane alone. A request costs the front no system call but those of its
//! connection, and no lock that is held while anything waits.

pub mod accept;
mod accepted;
pub mod address;
pub mod body;
pub mod client;
pub mod clock;
mod config;
mod connection;
pub mod domains;
pub mod front;
#[cfg(test)]
mod fuzz;
mod idle;
pub mod intent;
pub mod limits;
pub mod misses;
pub mod origins;
pub mod plane;
pub mod pool;
pub mod private;
mod proxy_protocol;
#[cfg(feature = "python")]
mod python;
pub mod query;
pub mod quota;
pub mod recorder;
pub mod records;
mod request;
mod request_id;
pub mod sampling;
pub mod seen;
pub mod table;
pub mod tarpit;
pub mod template;
pub mod tls;
pub mod upload;
pub mod upstream;
mod utm;
mod visit;
mod wire;

pub use config::{Caps, Config};
pub use front::Front;
