//! The order in which nodes have come, from the oldest to the newest.

/// No node.
const NONE: u32 = u32::MAX;

/// The neighbours of a node in an order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    older: u32,
    newer: u32,
}

impl Links {
    /// Those of a node that is in no order.
    pub(super) const NONE: Self = Self {
        older: NONE,
        newer: NONE,
    };
}

/// What has a place in orders: one in each of several kinds at most.
pub(super) trait Linked {
    /// The neighbours in the order of this kind.
    fn links(&mut self, kind: usize) -> &mut Links;
}

/// A doubly linked list of nodes of a slab, which are named by their places there.
#[derive(Debug)]
pub(super) struct Order {
    kind: usize,
    oldest: u32,
    newest: u32,
    len: usize,
}

impl Order {
    /// An order without nodes. Orders of one `kind` never have a node in common.
    pub(super) const fn new(kind: usize) -> Self {
        Self {
            kind,
            oldest: NONE,
            newest: NONE,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Makes `at`, which is in no order of this kind, the newest.
    pub(super) fn push<N: Linked>(&mut self, nodes: &mut [N], at: u32) {
        *nodes[at as usize].links(self.kind) = Links {
            older: self.newest,
            newer: NONE,
        };
        if self.newest == NONE {
            self.oldest = at;
        } else {
            nodes[self.newest as usize].links(self.kind).newer = at;
        }
        self.newest = at;
        self.len += 1;
    }

    /// Takes `at` out, which is in this order.
    pub(super) fn take<N: Linked>(&mut self, nodes: &mut [N], at: u32) {
        let links = std::mem::replace(nodes[at as usize].links(self.kind), Links::NONE);
        if links.older == NONE {
            self.oldest = links.newer;
        } else {
            nodes[links.older as usize].links(self.kind).newer = links.newer;
        }
        if links.newer == NONE {
            self.newest = links.older;
        } else {
            nodes[links.newer as usize].links(self.kind).older = links.older;
        }
        self.len -= 1;
    }

    /// The places from the oldest on.
    #[cfg(test)]
    pub(super) fn places<N: Linked>(&self, nodes: &mut [N]) -> Vec<u32> {
        let mut places = Vec::with_capacity(self.len);
        let mut at = self.oldest;
        while at != NONE {
            places.push(at);
            at = nodes[at as usize].links(self.kind).newer;
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node([Links; 2]);

    impl Linked for Node {
        fn links(&mut self, kind: usize) -> &mut Links {
            &mut self.0[kind]
        }
    }

    #[test]
    fn order_is_that_of_the_pushes() {
        let mut nodes: Vec<_> = (0..4).map(|_| Node([Links::NONE; 2])).collect();
        let (mut all, mut some) = (Order::new(0), Order::new(1));
        for at in [2, 0, 3, 1] {
            all.push(&mut nodes, at);
        }
        some.push(&mut nodes, 3);
        some.push(&mut nodes, 0);

        // The newest, one between, and the oldest.
        for (taken, left) in [(1, vec![2, 0, 3]), (0, vec![2, 3]), (2, vec![3])] {
            all.take(&mut nodes, taken);
            assert_eq!(all.places(&mut nodes), left);
            assert_eq!((all.len(), all.oldest()), (left.len(), Some(left[0])));
        }
        all.take(&mut nodes, 3);
        assert_eq!((all.len(), all.oldest()), (0, None));
        all.push(&mut nodes, 1);
        assert_eq!(all.places(&mut nodes), [1]);
        assert_eq!(some.places(&mut nodes), [3, 0]);
    }
}
