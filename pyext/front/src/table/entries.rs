//! The rules of the L1 cache: which entries are accepted, kept and evicted. Without locks and clocks.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::entry::{Entry, Marks};
use super::order::{Linked, Links, Order};

/// How much a table holds: counts.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Entries, the oldest of which are evicted.
    pub entries: usize,
    /// Of these, slugs that no link has: a scan evicts its own guesses.
    pub absent: usize,
    /// And links with long targets.
    pub long: usize,
    /// Minimum versions of slugs without an entry.
    pub min_versions: usize,
}

/// What a table is asked to hold.
#[derive(Debug)]
pub enum Offer {
    /// A link, and what is answered for it.
    Entry(Arc<Entry>),
    /// A link that nothing can be answered for.
    Unsendable {
        /// Its key.
        slug: Box<[u8]>,
        /// As in [`super::Link`].
        version: u64,
        /// As in [`super::Link`].
        epoch: i64,
    },
}

/// The oldest version that is accepted of a slug without an entry. An entry is its own.
#[derive(Debug)]
struct MinVersion {
    slug: Box<[u8]>,
    version: u64,
}

#[derive(Debug)]
enum Content {
    Held(Arc<Entry>),
    MinVersion(Box<MinVersion>),
    Free,
}

/// All that is known about a slug.
#[derive(Debug)]
struct Node {
    content: Content,
    /// Until when an older version is refused.
    until: f64,
    links: [Links; 2],
}

impl Node {
    fn slug(&self) -> &[u8] {
        match &self.content {
            Content::Held(entry) => (**entry).as_ref(),
            Content::MinVersion(least) => &least.slug,
            Content::Free => &[],
        }
    }

    fn held(&self) -> Option<&Arc<Entry>> {
        match &self.content {
            Content::Held(entry) => Some(entry),
            Content::MinVersion(_) | Content::Free => None,
        }
    }

    /// The oldest version that is accepted until `self.until`.
    fn min_version(&self) -> u64 {
        match &self.content {
            Content::Held(entry) => entry.link().version,
            Content::MinVersion(least) => least.version,
            Content::Free => 0,
        }
    }
}

impl Linked for Node {
    fn links(&mut self, kind: usize) -> &mut Links {
        &mut self.links[kind]
    }
}

/// The kinds of orders: of all nodes, and of those that a bound of their own holds for.
const OF_ALL: usize = 0;
const OF_FEW: usize = 1;

/// Entries and minimum versions by slug, in a slab: an entry takes 40 bytes beside its own, and 10 of the index.
#[derive(Debug)]
pub(super) struct Entries {
    bounds: Bounds,
    /// The history of the links; None: not known yet, so links of any are accepted.
    epoch: Option<i64>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    held: Order,
    absent: Order,
    long: Order,
    min_versions: Order,
}

/// Entries that are held no more: freed after the lock, as that takes as long as the rest.
pub(super) type Gone = Vec<Arc<Entry>>;

impl Entries {
    pub(super) fn new(bounds: Bounds, epoch: Option<i64>) -> Self {
        // And one that is there before another is evicted. To grow would keep requests waiting.
        let most = bounds.entries + bounds.min_versions + 1;
        Self {
            bounds,
            epoch,
            nodes: Vec::with_capacity(most),
            free: Vec::new(),
            index: HashTable::with_capacity(most),
            hasher: RandomState::default(),
            held: Order::new(OF_ALL),
            absent: Order::new(OF_FEW),
            long: Order::new(OF_FEW),
            min_versions: Order::new(OF_ALL),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn get(&self, slug: &[u8]) -> Option<&Arc<Entry>> {
        self.nodes[self.find(slug)? as usize].held()
    }

    /// The entries in the places of the slab from `start` on, `count` at most; None: there is none.
    pub(super) fn part(
        &self,
        start: usize,
        count: usize,
    ) -> Option<impl Iterator<Item = &Arc<Entry>>> {
        let rest = self.nodes.get(start..).filter(|rest| !rest.is_empty())?;
        Some(rest.iter().take(count).filter_map(Node::held))
    }

    /// Whether a link is of this epoch, and at least at its minimum version.
    pub(super) fn accepts(&self, slug: &[u8], version: u64, epoch: i64, now: f64) -> bool {
        if version > 0 && self.epoch.is_some_and(|present| present != epoch) {
            return false;
        }
        self.find(slug).is_none_or(|at| {
            let node = &self.nodes[at as usize];
            version >= node.min_version() || now >= node.until
        })
    }

    /// Holds what is offered, unless it is known to be old. Until `until`, older versions are refused.
    ///
    /// The minimum version rises with every read: a later read of a lagging source is then refused.
    pub(super) fn offer(&mut self, offer: &Offer, now: f64, until: f64, gone: &mut Gone) -> bool {
        let (slug, version, epoch) = match offer {
            Offer::Entry(entry) => {
                let link = entry.link();
                ((**entry).as_ref(), link.version, link.epoch)
            }
            Offer::Unsendable {
                slug,
                version,
                epoch,
            } => (&**slug, *version, *epoch),
        };
        let is_accepted = self.accepts(slug, version, epoch, now);
        if is_accepted {
            match offer {
                Offer::Entry(entry) => self.keep(Arc::clone(entry), until, gone),
                Offer::Unsendable { .. } => self.set_min_version(slug.into(), version, until, gone),
            }
        }
        is_accepted
    }

    /// A link has changed to `version`: drops an older entry. Returns whether that version is new here.
    pub(super) fn change(
        &mut self,
        slug: &[u8],
        version: u64,
        until: f64,
        gone: &mut Gone,
    ) -> bool {
        let known = self.find(slug).map(|at| {
            let node = &mut self.nodes[at as usize];
            node.until = until;
            (at, node.min_version())
        });
        match known {
            Some((at, least)) if version <= least => {
                if matches!(self.nodes[at as usize].content, Content::MinVersion(_)) {
                    self.min_versions.take(&mut self.nodes, at);
                    self.min_versions.push(&mut self.nodes, at);
                }
                false
            }
            Some(_) | None => {
                self.set_min_version(slug.into(), version, until, gone);
                true
            }
        }
    }

    /// Holds `entry` instead of the one of its slug, if there is one, with the same minimum version; as the newest, if
    /// it `is_read`. Returns whether there was one.
    pub(super) fn renew(&mut self, entry: &Arc<Entry>, is_read: bool, gone: &mut Gone) -> bool {
        let Some(at) = self.find((**entry).as_ref()) else {
            return false;
        };
        let Content::Held(held) = &mut self.nodes[at as usize].content else {
            return false;
        };
        gone.push(std::mem::replace(held, Arc::clone(entry)));
        if is_read {
            self.unlink(at);
            self.link(at);
        }
        true
    }

    /// Drops the entry of `slug`; its minimum version stays.
    pub(super) fn remove(&mut self, slug: &[u8], gone: &mut Gone) {
        if let Some(at) = self.find(slug) {
            self.drop_entry(at, gone);
        }
    }

    /// Drops the oldest entry; its minimum version stays. Returns whether there was one.
    pub(super) fn remove_oldest(&mut self, gone: &mut Gone) -> bool {
        let oldest = self.held.oldest();
        if let Some(at) = oldest {
            self.drop_entry(at, gone);
        }
        oldest.is_some()
    }

    fn find(&self, slug: &[u8]) -> Option<u32> {
        let is_it = |&at: &u32| self.nodes[at as usize].slug() == slug;
        let found = self.index.find(self.hasher.hash_one(slug), is_it);
        found.copied()
    }

    fn keep(&mut self, entry: Arc<Entry>, until: f64, gone: &mut Gone) {
        let at = self.replace(Content::Held(entry), until, gone);
        self.link(at);
        let bounds = self.bounds;
        let bounded = [
            (&self.absent, bounds.absent),
            (&self.long, bounds.long),
            (&self.held, bounds.entries),
        ];
        // Each bound was kept before, and one entry less keeps them all.
        let over = bounded.iter().find(|(order, most)| order.len() > *most);
        if let Some(oldest) = over.and_then(|(order, _)| order.oldest()) {
            self.drop_entry(oldest, gone);
        }
    }

    fn set_min_version(&mut self, slug: Box<[u8]>, version: u64, until: f64, gone: &mut Gone) {
        let least = Content::MinVersion(Box::new(MinVersion { slug, version }));
        let at = self.replace(least, until, gone);
        self.link(at);
        if self.min_versions.len() > self.bounds.min_versions
            && let Some(oldest) = self.min_versions.oldest()
        {
            self.unlink(oldest);
            self.free(oldest, gone);
        }
    }

    /// Drops the entry at `at`; its minimum version stays, if it is a link.
    fn drop_entry(&mut self, at: u32, gone: &mut Gone) {
        let node = &self.nodes[at as usize];
        let Content::Held(entry) = &node.content else {
            return;
        };
        let (version, until) = (entry.link().version, node.until);
        if version > 0 {
            self.set_min_version(node.slug().into(), version, until, gone);
        } else {
            self.unlink(at);
            self.free(at, gone);
        }
    }

    /// Has `content` in place of what is known about its slug, in no order; returns where.
    fn replace(&mut self, content: Content, until: f64, gone: &mut Gone) -> u32 {
        let node = Node {
            content,
            until,
            links: [Links::NONE; 2],
        };
        if let Some(at) = self.find(node.slug()) {
            self.unlink(at);
            let before = std::mem::replace(&mut self.nodes[at as usize], node);
            if let Content::Held(entry) = before.content {
                gone.push(entry);
            }
            return at;
        }
        let hash = self.hasher.hash_one(node.slug());
        let at = if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            at
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("bounds are below 2^32")
        };
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let hash_of = |&at: &u32| hasher.hash_one(nodes[at as usize].slug());
        self.index.insert_unique(hash, at, hash_of);
        at
    }

    /// Forgets the node at `at`, which is in no order.
    fn free(&mut self, at: u32, gone: &mut Gone) {
        let hash = self.hasher.hash_one(self.nodes[at as usize].slug());
        if let Ok(found) = self.index.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        let node = &mut self.nodes[at as usize];
        if let Content::Held(entry) = std::mem::replace(&mut node.content, Content::Free) {
            gone.push(entry);
        }
        self.free.push(at);
    }

    /// Makes the node at `at` the newest of its orders.
    fn link(&mut self, at: u32) {
        let (nodes, orders) = self.orders(at);
        for order in orders.into_iter().flatten() {
            order.push(nodes, at);
        }
    }

    fn unlink(&mut self, at: u32) {
        let (nodes, orders) = self.orders(at);
        for order in orders.into_iter().flatten() {
            order.take(nodes, at);
        }
    }

    /// All nodes, and the orders that the one at `at` belongs to.
    fn orders(&mut self, at: u32) -> (&mut [Node], [Option<&mut Order>; 2]) {
        let orders = match &self.nodes[at as usize].content {
            Content::Held(entry) => {
                let link = entry.link();
                let few = if link.version == 0 {
                    Some(&mut self.absent)
                } else if link.marks.has(Marks::LONG) {
                    Some(&mut self.long)
                } else {
                    None
                };
                [Some(&mut self.held), few]
            }
            Content::MinVersion(_) => [Some(&mut self.min_versions), None],
            Content::Free => [None, None],
        };
        (&mut self.nodes, orders)
    }
}

#[cfg(test)]
mod tests;
