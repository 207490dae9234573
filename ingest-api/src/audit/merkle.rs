//! Pure: Merkle trees as RFC 6962, section 2.1, defines them. Leaves and nodes are hashed with different first bytes,
//! so that no inner node can be shown as a leaf.

use sha2::{Digest, Sha256};

use super::chain::Hash;

/// Hash of a leaf: SHA-256 of 0 and the data.
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    hasher.finalize().into()
}

/// Hash of a node: SHA-256 of 1, left and right.
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// How many leaves go to the left: the largest power of two below `leaves`, which is at least 2.
fn left_of(leaves: usize) -> usize {
    1 << (usize::BITS - 1 - (leaves - 1).leading_zeros())
}

/// Root over leaf hashes; of none the hash of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(left_of(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The hashes beside the way from a leaf to the root, from the leaf on. Nothing when there is no such leaf.
pub fn path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let middle = left_of(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut way, other) =
        if index < middle { (path(left, index)?, root(right)) } else { (path(right, index - middle)?, root(left)) };
    way.push(other);
    Some(way)
}

/// The root that this leaf gives with this path, in a tree of `count` leaves; nothing when the path has not the length
/// that the place of the leaf asks for.
pub fn root_of_path(leaf: Hash, index: u64, count: u64, path: &[Hash]) -> Option<Hash> {
    if index >= count {
        return None;
    }
    let (mut hash, mut place, mut last) = (leaf, index, count - 1);
    for beside in path {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            hash = node_hash(beside, &hash);
            // A last node without a neighbour moves up unchanged.
            while place.is_multiple_of(2) && place != 0 {
                (place, last) = (place / 2, last / 2);
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        (place, last) = (place / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sales::hash::hex;

    /// Leaves and roots that other implementations of the RFC are tested with.
    const LEAVES: [&[u8]; 8] = [
        &[],
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_the_rfc() {
        let leaves: Vec<Hash> = LEAVES.iter().map(|data| leaf_hash(data)).collect();
        for (count, expected) in (1..).zip(ROOTS) {
            assert_eq!(hex(&root(&leaves[..count])), expected, "{count} leaves");
        }
        assert_eq!(hex(&root(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn a_path_leads_to_the_root_for_its_own_leaf_and_place_only() {
        for count in 1..=33usize {
            let leaves: Vec<Hash> = (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let top = Some(root(&leaves));
            for index in 0..count {
                let way = path(&leaves, index).unwrap();
                let reached = |leaf, index: usize, count: usize, way: &[Hash]| {
                    root_of_path(leaf, index as u64, count as u64, way)
                };
                assert_eq!(reached(leaves[index], index, count, &way), top, "{index} of {count}");
                assert_ne!(reached(leaf_hash(b"other"), index, count, &way), top);
                for other in (0..count).filter(|other| *other != index) {
                    assert_ne!(reached(leaves[index], other, count, &way), top, "{index} at {other} of {count}");
                }
                for place in 0..way.len() {
                    let mut bent = way.clone();
                    bent[place][0] ^= 1;
                    assert_ne!(reached(leaves[index], index, count, &bent), top);
                }
                let longer = [way.clone(), vec![GENESIS]].concat();
                assert_eq!(reached(leaves[index], index, count, &longer), None);
                if let Some((_, shorter)) = way.split_last() {
                    assert_eq!(reached(leaves[index], index, count, shorter), None);
                }
            }
            assert_eq!(path(&leaves, count), None);
        }
    }

    use super::super::chain::GENESIS;
}
