//! A set of pieces or runs, as a bitmap.

/// A fixed-length bitmap; bit 0 is the lowest bit of the first byte on the wire.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bits {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bits {
    /// `len` bits, none set.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }
    /// `len` bits, all set.
    pub fn full(len: u32) -> Self {
        let mut b = Self { words: vec![u64::MAX; len.div_ceil(64) as usize], len, ones: len };
        b.clear_tail();
        b
    }
    /// From wire bytes; missing bytes are zeros. `None` when there are too many bytes or bits set past `len`.
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.len() > len.div_ceil(8) as usize {
            return None;
        }
        let mut b = Self::new(len);
        for (i, byte) in bytes.iter().enumerate() {
            b.words[i / 8] |= u64::from(*byte) << (8 * (i % 8));
        }
        let before = b.words.last().copied();
        b.clear_tail();
        if before != b.words.last().copied() {
            return None;
        }
        b.ones = b.words.iter().map(|w| w.count_ones()).sum();
        Some(b)
    }
    /// Wire bytes, without trailing zero bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        while out.last() == Some(&0) {
            out.pop();
        }
        out
    }
    /// How many bits there are.
    pub fn len(&self) -> u32 {
        self.len
    }
    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }
    /// Whether all bits are set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }
    /// How many bits are set.
    pub fn ones(&self) -> u32 {
        self.ones
    }
    /// Bit `i`; false past the end.
    pub fn get(&self, i: u32) -> bool {
        i < self.len && self.words[i as usize / 64] >> (i % 64) & 1 == 1
    }
    /// Sets bit `i`; true if it changed. Past the end nothing happens.
    pub fn set(&mut self, i: u32) -> bool {
        if i >= self.len || self.get(i) {
            return false;
        }
        self.words[i as usize / 64] |= 1 << (i % 64);
        self.ones += 1;
        true
    }
    /// Clears bit `i`; true if it changed.
    pub fn clear(&mut self, i: u32) -> bool {
        if !self.get(i) {
            return false;
        }
        self.words[i as usize / 64] &= !(1 << (i % 64));
        self.ones -= 1;
        true
    }
    /// The words, lowest bits first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
    /// Indices of set bits, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(w, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    w as u32 * 64 + bit
                })
            })
        })
    }
    /// Whether `other` (of the same length) has a bit that this set lacks.
    pub fn lacks_some_of(&self, other: &Bits) -> bool {
        self.words.iter().zip(&other.words).any(|(mine, theirs)| theirs & !mine != 0)
    }
    /// How many bits of `start..end` are set.
    pub fn ones_in(&self, start: u32, end: u32) -> u32 {
        (start..end.min(self.len)).filter(|i| self.get(*i)).count() as u32
    }
    fn clear_tail(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(len in 1u32..300, ops in prop::collection::vec((any::<bool>(), 0u32..320), 0..200)) {
            let mut bits = Bits::new(len);
            let mut set = std::collections::BTreeSet::new();
            for (on, i) in ops {
                if on { prop_assert_eq!(bits.set(i), i < len && set.insert(i)); } else { prop_assert_eq!(bits.clear(i), set.remove(&i)); }
            }
            prop_assert_eq!(bits.ones() as usize, set.len());
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Bits::from_bytes(len, &bits.to_bytes()), Some(bits.clone()));
            prop_assert!(Bits::full(len).is_full());
        }
    }

    #[test]
    fn refuses_bits_past_the_end() {
        assert_eq!(Bits::from_bytes(3, &[0b1000]), None);
        assert_eq!(Bits::from_bytes(3, &[1, 0]), None);
        assert!(Bits::from_bytes(3, &[0b101]).is_some());
    }
}
