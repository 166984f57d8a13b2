//! Rate limits, decided by the limiter that the control plane decides by.
//!
//! The limiter lives in another extension module. It hands out a table of C functions, so that the two modules
//! share no Rust type and may be built apart.

use std::ffi::c_void;

use crate::client::ClientKeys;

/// The version of [`LimiterApi`] that this module knows. Another one is refused.
pub const API_VERSION: u32 = 1;
/// More than the headers of a refusal need, unless a limit has dozens of rates.
const MAX_HEADERS: usize = 4096;

/// The functions of one limiter, as `hopgate_limiter` lays them out.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimiterApi {
    /// [`API_VERSION`], first in every version.
    pub version: u32,
    /// The limiter, to be passed to every function.
    pub context: *const c_void,
    /// Takes one unit of a key, UTF-8: 1 if it was there, 0 if not, 2 if the limiter failed.
    pub allow: unsafe extern "C" fn(*const c_void, *const u8, usize) -> u32,
    /// Gives one unit of a key back.
    pub refund: unsafe extern "C" fn(*const c_void, *const u8, usize),
    /// Writes the headers of a refusal: lines `name: value\n` into a buffer, and the wait in nanoseconds
    /// (`u64::MAX`: for ever). Returns the length of the lines; beyond the capacity, nothing was written.
    pub refusal:
        unsafe extern "C" fn(*const c_void, *const u8, usize, *mut u8, usize, *mut u64) -> usize,
}

/// One limiter. Valid as long as the object that it was taken from.
#[derive(Debug, Clone, Copy)]
pub struct Limiter(LimiterApi);

// Safety: the functions may be called from any thread, and the limiter is shared between threads; both are a part
// of what `hopgate_limiter` promises for its functions.
unsafe impl Send for Limiter {}
// Safety: as above.
unsafe impl Sync for Limiter {}

/// Whether a request may go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Admitted,
    /// The limit is reached; nothing was taken.
    Refused,
    /// The limiter failed: the control plane decides.
    Failed,
}

/// When a refused client may try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How long to wait, nanoseconds; `u64::MAX`: for ever.
    pub retry_after_ns: u64,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
}

impl Limiter {
    /// The limiter of these functions; None if their version is unknown.
    ///
    /// # Safety
    /// The functions are those of a living limiter, may be called from any thread, and stay valid for as long as
    /// this or a copy is used.
    pub unsafe fn new(api: LimiterApi) -> Option<Self> {
        (api.version == API_VERSION).then_some(Self(api))
    }

    fn allow(self, key: &str) -> Verdict {
        // Safety: `new` was promised that the function and its context are valid; the key is a live slice.
        match unsafe { (self.0.allow)(self.0.context, key.as_ptr(), key.len()) } {
            1 => Verdict::Admitted,
            0 => Verdict::Refused,
            _ => Verdict::Failed,
        }
    }

    fn refund(self, key: &str) {
        // Safety: as in `allow`.
        unsafe { (self.0.refund)(self.0.context, key.as_ptr(), key.len()) }
    }

    fn refusal(self, key: &str) -> Option<Refusal> {
        let mut buffer = [0_u8; MAX_HEADERS];
        let mut retry_after_ns = 0;
        // Safety: as in `allow`; the buffer is as large as stated, and both outputs outlive the call.
        let length = unsafe {
            (self.0.refusal)(
                self.0.context,
                key.as_ptr(),
                key.len(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut retry_after_ns,
            )
        };
        let lines = std::str::from_utf8(buffer.get(..length)?).ok()?;
        let headers = lines
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Refusal {
            retry_after_ns,
            headers,
        })
    }
}

/// The limit of a policy: for each client and, for IPv6, for the network around it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// By client.
    pub own: Limiter,
    /// By IPv6 network of 48 bits.
    pub wide: Option<Limiter>,
}

impl Limit {
    /// Takes a unit of `client`, from both limits or from none.
    pub fn admit(&self, client: &ClientKeys) -> Verdict {
        let (Some(wide), Some(network)) = (self.wide, client.wide.as_deref()) else {
            return self.own.allow(&client.own);
        };
        // The wide limit first: what is counted as admitted is then admitted by both.
        match wide.allow(network) {
            Verdict::Admitted => {}
            other => return other,
        }
        let own = self.own.allow(&client.own);
        if own != Verdict::Admitted {
            wide.refund(network);
        }
        own
    }

    /// Gives a unit of `client` back to both limits.
    pub fn refund(&self, client: &ClientKeys) {
        self.own.refund(&client.own);
        if let (Some(wide), Some(network)) = (self.wide, client.wide.as_deref()) {
            wide.refund(network);
        }
    }

    /// When `client` may try again, by the limit that makes it wait longer. None if the limiter failed.
    pub fn refusal(&self, client: &ClientKeys) -> Option<Refusal> {
        let own = self.own.refusal(&client.own)?;
        let (Some(wide), Some(network)) = (self.wide, client.wide.as_deref()) else {
            return Some(own);
        };
        let wide = wide.refusal(network)?;
        Some(if wide.retry_after_ns >= own.retry_after_ns {
            wide
        } else {
            own
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::slice;

    use super::*;

    /// Counts down the units of each key.
    #[derive(Default)]
    struct Units(RefCell<HashMap<Vec<u8>, i64>>);

    impl Units {
        fn with(units: &[(&str, i64)]) -> Self {
            let units = units
                .iter()
                .map(|(key, units)| (key.as_bytes().to_vec(), *units));
            Self(RefCell::new(units.collect()))
        }

        fn limiter(&self) -> Limiter {
            let api = LimiterApi {
                version: API_VERSION,
                context: std::ptr::from_ref(self).cast(),
                allow,
                refund,
                refusal,
            };
            // Safety: the tests use it while `self` lives, on one thread.
            unsafe { Limiter::new(api) }.unwrap()
        }

        fn of(&self, key: &str) -> i64 {
            self.0.borrow()[key.as_bytes()]
        }
    }

    unsafe fn parts<'a>(
        context: *const c_void,
        key: *const u8,
        len: usize,
    ) -> (&'a Units, Vec<u8>) {
        // Safety: the context is that of `Units::limiter`, the key a live slice.
        unsafe {
            (
                &*context.cast::<Units>(),
                slice::from_raw_parts(key, len).to_vec(),
            )
        }
    }

    unsafe extern "C" fn allow(context: *const c_void, key: *const u8, len: usize) -> u32 {
        // Safety: as above.
        let (units, key) = unsafe { parts(context, key, len) };
        let mut units = units.0.borrow_mut();
        let left = units.get_mut(&key).unwrap();
        if *left == 0 {
            return 0;
        }
        *left -= 1;
        1
    }

    unsafe extern "C" fn refund(context: *const c_void, key: *const u8, len: usize) {
        // Safety: as above.
        let (units, key) = unsafe { parts(context, key, len) };
        *units.0.borrow_mut().get_mut(&key).unwrap() += 1;
    }

    unsafe extern "C" fn refusal(
        context: *const c_void,
        key: *const u8,
        len: usize,
        buffer: *mut u8,
        capacity: usize,
        retry_after_ns: *mut u64,
    ) -> usize {
        // Safety: as above; the outputs are those of `Limiter::refusal`.
        unsafe {
            let (units, key) = parts(context, key, len);
            *retry_after_ns = if units.0.borrow()[&key] == 0 { 7 } else { 0 };
            let lines = format!("key: {}\n", String::from_utf8(key).unwrap());
            assert!(lines.len() <= capacity);
            buffer.copy_from(lines.as_ptr(), lines.len());
            lines.len()
        }
    }

    unsafe extern "C" fn always(_: *const c_void, _: *const u8, _: usize) -> u32 {
        1
    }

    unsafe extern "C" fn never(_: *const c_void, _: *const u8, _: usize) -> u32 {
        0
    }

    unsafe extern "C" fn keep(_: *const c_void, _: *const u8, _: usize) {}

    unsafe extern "C" fn silent(
        _: *const c_void,
        _: *const u8,
        _: usize,
        _: *mut u8,
        _: usize,
        _: *mut u64,
    ) -> usize {
        0
    }

    /// A limiter that admits all keys, or none.
    pub(crate) fn constant(admits: bool) -> Limiter {
        let api = LimiterApi {
            version: API_VERSION,
            context: std::ptr::null(),
            allow: if admits { always } else { never },
            refund: keep,
            refusal: silent,
        };
        // Safety: the functions read nothing.
        unsafe { Limiter::new(api) }.unwrap()
    }

    type Keys = std::sync::Mutex<Vec<String>>;

    unsafe extern "C" fn note(context: *const c_void, key: *const u8, len: usize) -> u32 {
        // Safety: the context is that of `counting`, which is never freed; the key is a live slice.
        let (keys, key) = unsafe { (&*context.cast::<Keys>(), slice::from_raw_parts(key, len)) };
        keys.lock()
            .unwrap()
            .push(String::from_utf8(key.to_vec()).unwrap());
        1
    }

    /// A limiter that admits all keys, and the keys that it was called with.
    pub(crate) fn counting() -> (Limiter, &'static Keys) {
        let keys: &'static Keys = Box::leak(Box::default());
        let api = LimiterApi {
            version: API_VERSION,
            context: std::ptr::from_ref(keys).cast(),
            allow: note,
            refund: keep,
            refusal: silent,
        };
        // Safety: the keys are never freed.
        (unsafe { Limiter::new(api) }.unwrap(), keys)
    }

    fn v6() -> ClientKeys {
        ClientKeys::of("2001:db8::1".parse().unwrap())
    }

    #[test]
    fn unknown_version_is_refused() {
        let units = Units::default();
        let mut api = units.limiter().0;
        api.version = API_VERSION + 1;

        // Safety: it is not used.
        assert!(unsafe { Limiter::new(api) }.is_none());
    }

    #[test]
    fn both_limits_are_taken_or_none() {
        let own = Units::with(&[("2001:db8::/64", 1)]);
        let wide = Units::with(&[("2001:db8::/48", 5)]);
        let limit = Limit {
            own: own.limiter(),
            wide: Some(wide.limiter()),
        };

        let verdicts = [limit.admit(&v6()), limit.admit(&v6())];

        assert_eq!(verdicts, [Verdict::Admitted, Verdict::Refused]);
        assert_eq!((own.of("2001:db8::/64"), wide.of("2001:db8::/48")), (0, 4));
    }

    #[test]
    fn longer_wait_is_told() {
        let own = Units::with(&[("2001:db8::/64", 1)]);
        let wide = Units::with(&[("2001:db8::/48", 0)]);
        let limit = Limit {
            own: own.limiter(),
            wide: Some(wide.limiter()),
        };

        assert_eq!(limit.admit(&v6()), Verdict::Refused);
        let refusal = limit.refusal(&v6()).unwrap();
        assert_eq!(refusal.retry_after_ns, 7);
        assert_eq!(
            refusal.headers,
            [("key".to_owned(), "2001:db8::/48".to_owned())]
        );
        assert_eq!(own.of("2001:db8::/64"), 1);
    }
}
