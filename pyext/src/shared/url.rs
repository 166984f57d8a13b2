//! The URL of Redis: what is read from it, and what is refused.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates, parse_redis_url,
};

use crate::error::Error;
use crate::shared::sentinel::Sentinels;
use crate::shared::slots::Address;

/// The URLs that are understood.
const FORMS: &str = "expected redis://[user:password@]host[:port][/db], rediss:// for TLS, \
    redis+unix:///path, redis+cluster:// or rediss+cluster://, \
    redis+sentinel://host:port,host:port/name[/db] or rediss+sentinel://";
/// The schemes of such URLs, and whether they mean TLS. Valkey's names are synonyms.
const SCHEMES: [(&str, bool); 4] = [
    ("redis", false),
    ("rediss", true),
    ("valkey", false),
    ("valkeys", true),
];
const UNIX_SCHEMES: [&str; 3] = ["redis+unix", "valkey+unix", "unix"];
/// The parameters of a URL that have a meaning, named as in redis-py; `user` and `pass` are synonyms.
const PARAMETERS: &str = "db, username, password, protocol, ssl_ca_certs, ssl_certfile, ssl_keyfile, sentinel_username, \
    sentinel_password";
const SENTINEL_PORT: u16 = 26379;

/// What a URL says.
#[derive(Debug, Clone)]
pub(super) struct RedisUrl {
    /// Of the server, or of any server of a cluster. With sentinels, of a server whose address they tell.
    pub(super) info: ConnectionInfo,
    pub(super) is_cluster: bool,
    pub(super) sentinels: Option<Sentinels>,
    pub(super) tls: TlsFiles,
}

/// The files that a URL names for TLS.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsFiles {
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    /// Without one, the key stands in the file of the certificate.
    key: Option<PathBuf>,
}

impl TlsFiles {
    pub(super) fn is_empty(&self) -> bool {
        self.authority.is_none() && self.certificate.is_none()
    }

    /// Reads them as they are now: certificates are replaced while a service runs.
    pub(super) fn read(&self) -> std::io::Result<TlsCertificates> {
        let key = self.key.as_ref().or(self.certificate.as_ref());
        let client_tls = match (&self.certificate, key) {
            (Some(certificate), Some(key)) => Some(ClientTlsConfig {
                client_cert: pem("ssl_certfile", certificate, "CERTIFICATE-----")?,
                client_key: pem("ssl_keyfile", key, "PRIVATE KEY-----")?,
            }),
            _ => None,
        };
        let root_cert = self
            .authority
            .as_ref()
            .map(|path| pem("ssl_ca_certs", path, "CERTIFICATE-----"))
            .transpose()?;
        Ok(TlsCertificates {
            client_tls,
            root_cert,
        })
    }
}

/// The contents of a file, which has a part of that kind.
fn pem(parameter: &str, path: &Path, kind: &str) -> std::io::Result<Vec<u8>> {
    let what = |why: &dyn Display| std::io::Error::other(format!("the file of {parameter}: {why}"));
    let text = std::fs::read(path).map_err(|error| what(&error))?;
    let has_part = text
        .windows(kind.len())
        .any(|window| window == kind.as_bytes());
    if has_part {
        Ok(text)
    } else {
        Err(what(&format!(
            "no {} in PEM form",
            kind.trim_end_matches('-')
        )))
    }
}

fn refused(what: impl Display) -> Error {
    Error::invalid(format!("url: cannot read the Redis URL: {what}; {FORMS}"))
}

fn unread(error: &RedisError) -> Error {
    refused(error.detail().unwrap_or("not a URL of a Redis server"))
}

impl RedisUrl {
    /// # Errors
    /// [`Error::Invalid`] if the URL cannot be read, or has a part that would silently be ignored. The message
    /// repeats neither user and password nor hosts and files.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(refused("it has no scheme"));
        };
        if rest.contains('#') {
            return Err(refused(
                "'#' is not supported: certificates are always checked, and in a password it is '%23'",
            ));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = parameters(query)?;
        let (plain, suffix) = match scheme.split_once('+') {
            Some((plain, suffix @ ("cluster" | "sentinel"))) => (plain, suffix),
            _ => (scheme, ""),
        };
        let known = SCHEMES.iter().find(|(name, _)| *name == plain);
        let mut sentinels = None;
        let (info, is_tls) = match known {
            Some((_, is_tls)) if suffix == "sentinel" => {
                let (info, found) = primary(plain, place)?;
                sentinels = Some(found);
                (info, *is_tls)
            }
            Some((_, is_tls)) => (server(plain, place)?, *is_tls),
            None if UNIX_SCHEMES.contains(&scheme) => (socket(place)?, false),
            None => return Err(refused(format!("the scheme '{scheme}' is none of Redis"))),
        };
        let mut parsed = Self {
            info,
            is_cluster: suffix == "cluster",
            sentinels,
            tls: TlsFiles::default(),
        };
        parsed.take_parameters(&parameters, is_tls)?;
        Ok(parsed)
    }

    fn take_parameters(
        &mut self,
        parameters: &[(String, String)],
        is_tls: bool,
    ) -> Result<(), Error> {
        let mut settings = self.info.redis_settings().clone();
        let before_host = (settings.username().is_some(), settings.password().is_some());
        for (name, value) in parameters {
            settings = match &name[..] {
                "db" => settings.set_db(database(value)?),
                // Those before the host win, as in redis-py.
                "username" if !before_host.0 => settings.set_username(value),
                "password" if !before_host.1 => settings.set_password(value),
                "protocol" => settings.set_protocol(protocol(value)?),
                "ssl_ca_certs" | "ssl_certfile" | "ssl_keyfile" if !is_tls => {
                    return Err(refused(format!("{name} needs TLS, by rediss://")));
                }
                "ssl_ca_certs" => take(&mut self.tls.authority, settings, value),
                "ssl_certfile" => take(&mut self.tls.certificate, settings, value),
                "ssl_keyfile" => take(&mut self.tls.key, settings, value),
                "sentinel_username" | "sentinel_password" => {
                    let Some(sentinels) = &mut self.sentinels else {
                        return Err(refused(format!("{name} needs redis+sentinel://")));
                    };
                    for sentinel in &mut sentinels.servers {
                        let login = sentinel.redis_settings().clone();
                        *sentinel = sentinel.clone().set_redis_settings(match &name[..] {
                            "sentinel_username" => login.set_username(value),
                            _ => login.set_password(value),
                        });
                    }
                    settings
                }
                _ => settings,
            };
        }
        if self.tls.key.is_some() && self.tls.certificate.is_none() {
            return Err(refused("ssl_keyfile needs ssl_certfile"));
        }
        self.info = self.info.clone().set_redis_settings(settings);
        Ok(())
    }
}

/// The names and values of a query, decoded.
///
/// # Errors
/// [`Error::Invalid`] if one has no meaning or is given twice.
fn parameters(query: &str) -> Result<Vec<(String, String)>, Error> {
    // The host stands for any: only the query is decoded.
    let decoded = parse_redis_url(&format!("redis://host/?{query}"))
        .ok_or_else(|| refused("its parameters are not understood"))?;
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in decoded.query_pairs() {
        let name = match &*name {
            "user" => "username",
            "pass" => "password",
            name => name,
        };
        if !PARAMETERS.split(", ").any(|known| known == name) {
            let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            // Behind an unescaped '?' stands the rest of a password.
            let shown = if is_word && !query.contains('@') {
                name
            } else {
                "?"
            };
            return Err(refused(format!(
                "the parameter '{shown}' is not supported, only {PARAMETERS}"
            )));
        }
        if found.iter().any(|(seen, _)| seen == name) {
            return Err(refused(format!("the parameter '{name}' is given twice")));
        }
        found.push((name.to_owned(), value.into_owned()));
    }
    Ok(found)
}

fn take(
    file: &mut Option<PathBuf>,
    settings: RedisConnectionInfo,
    value: &str,
) -> RedisConnectionInfo {
    *file = Some(PathBuf::from(value));
    settings
}

/// `[user:password@]host[:port][/db]`
fn server(scheme: &str, place: &str) -> Result<ConnectionInfo, Error> {
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    if host.contains(',') {
        return Err(refused("it names several hosts"));
    }
    let url = format!("{scheme}://{place}");
    let info = url.into_connection_info().map_err(|error| unread(&error))?;
    if info.redis_settings().db() < 0 {
        return Err(refused("the database must be a number from 0"));
    }
    Ok(info)
}

/// `[user:password@]host[:port],host[:port]/name[/db]`
fn primary(scheme: &str, place: &str) -> Result<(ConnectionInfo, Sentinels), Error> {
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    };
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    // A user is decoded as a name is; it ends at a colon.
    let named = server("redis", &format!("{}@host", name.replace(':', "%3A")))?;
    let Some(name) = named.redis_settings().username() else {
        return Err(refused(
            "it names no primary, after the hosts of the sentinels",
        ));
    };
    let mut servers = Vec::new();
    for host in hosts.split(',') {
        let url = format!("{scheme}://{host}");
        let info = server(scheme, host)?;
        let has_port = parse_redis_url(&url).is_some_and(|url| url.port().is_some());
        servers.push(match host_and_port(&info) {
            Some((host, _)) if !has_port => at(&info, &(host, SENTINEL_PORT)),
            _ => info,
        });
    }
    let sentinels = Sentinels {
        servers,
        name: name.to_owned(),
    };
    let info = server(scheme, &format!("{credentials}primary/{database}"))?;
    Ok((info, sentinels))
}

/// `[user:password@]/path`
fn socket(place: &str) -> Result<ConnectionInfo, Error> {
    let Some((credentials, path)) = place.split_once('/') else {
        return Err(refused("a socket is an absolute path, after three slashes"));
    };
    let login = match credentials.strip_suffix('@') {
        None if credentials.is_empty() => None,
        Some(_) => Some(server("redis", &format!("{credentials}host"))?),
        None => return Err(refused("a socket is an absolute path, after three slashes")),
    };
    let socket = format!("unix:///{path}").into_connection_info();
    let socket = socket.map_err(|error| unread(&error))?;
    Ok(match login {
        Some(login) => socket.set_redis_settings(login.redis_settings().clone()),
        None => socket,
    })
}

fn database(value: &str) -> Result<i64, Error> {
    value
        .parse::<u32>()
        .map(i64::from)
        .map_err(|_| refused("db must be a number from 0"))
}

fn protocol(value: &str) -> Result<ProtocolVersion, Error> {
    match value {
        "2" | "resp2" => Ok(ProtocolVersion::RESP2),
        "3" | "resp3" => Ok(ProtocolVersion::RESP3),
        _ => Err(refused("protocol must be 2 or 3")),
    }
}

impl TlsFiles {
    /// # Errors
    /// [`Error::Invalid`] if a file cannot be read; the message names the parameter.
    pub(super) fn check(&self, info: &ConnectionInfo) -> Result<(), Error> {
        if !self.is_empty() {
            let certificates = self.read().map_err(refused)?;
            redis::Client::build_with_tls(info.clone(), certificates).map_err(refused)?;
        }
        Ok(())
    }
}

/// Host and port; None for a socket.
pub(super) fn host_and_port(info: &ConnectionInfo) -> Option<Address> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// The same settings, at another address.
pub(super) fn at(info: &ConnectionInfo, address: &Address) -> ConnectionInfo {
    let (host, port) = address.clone();
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure,
            tls_params,
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(addr)
}
