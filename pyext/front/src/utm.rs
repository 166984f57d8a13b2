//! The parameters that name the campaign of a visit, as they are written; `app.web.look` keeps the same.

/// What they begin with; a query without it is not read.
const MARK: &str = "utm_";
const NAMES: [&str; 3] = ["utm_source=", "utm_medium=", "utm_campaign="];
/// What is kept of them, bytes.
const MAX: usize = 600;

/// Writes the parameters of `queries` that name a campaign, parted by ampersands. One that does not fit is left out.
pub(crate) fn write(parts: &mut Vec<u8>, queries: [&str; 2]) {
    let start = parts.len();
    for query in queries {
        if !query.contains(MARK) {
            continue;
        }
        for one in query.split('&') {
            let is_kept = one.is_ascii() && NAMES.iter().any(|name| one.starts_with(name));
            if is_kept && parts.len() - start + one.len() < MAX {
                if parts.len() > start {
                    parts.push(b'&');
                }
                parts.extend_from_slice(one.as_bytes());
            }
        }
    }
}

/// The query of `url`; empty without one.
pub(crate) fn query_of(url: &str) -> &str {
    let end = url.find('#').unwrap_or(url.len());
    url[..end].split_once('?').map_or("", |(_, query)| query)
}
