//! The id by which a client and the logs name one request, as `app/web/request_id.py` has it.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::sampling::new_span;

/// Where requests and answers have it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_LENGTH: usize = 128;

/// The client's id, if it sends one of visible ASCII characters.
pub(crate) fn given(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(REQUEST_ID).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let counts =
        (1..=MAX_LENGTH).contains(&line.len()) && line.as_bytes().iter().all(u8::is_ascii_graphic);
    counts.then_some(line)
}

/// The client's id, or a new one.
///
/// # Panics
/// Never: a number is ASCII.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    given(headers).cloned().unwrap_or_else(|| {
        let id = HeaderValue::from_str(&format!("{:016x}", new_span()));
        id.expect("a number is ASCII")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_the_client_counts_if_it_is_one_and_visible() {
        let long = "a".repeat(MAX_LENGTH + 1);
        let table: [(&[&str], bool); 8] = [
            (&["mine"], true),
            (&["\"!#~"], true),
            (&[&long[1..]], true),
            (&[&long], false),
            (&[""], false),
            (&["a b"], false),
            (&["a", "b"], false),
            (&[], false),
        ];
        for (lines, counts) in table {
            let lines = lines.iter().map(|line| {
                let value = HeaderValue::from_str(line).unwrap();
                (REQUEST_ID, value)
            });
            let headers: HeaderMap = lines.collect();

            let ids = [of(&headers), of(&headers)];

            assert_eq!(given(&headers).is_some(), counts, "{headers:?}");
            assert_eq!(ids[0] == ids[1], counts);
            assert!(counts || ids[0].len() == 16);
        }
    }
}
