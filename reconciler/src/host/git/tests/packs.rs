//! Packs made by hand, as no git would make them. Each test is one attack.

use gix::hash::Kind as Hash;
use gix::objs::Kind;

use super::*;

/// A pack under construction. Nothing in it is compressed: zlib allows that, and a hostile peer need not be tidy.
struct Pack {
    bytes: Vec<u8>,
    count: u32,
}

/// The types of a pack's entries that have no object type.
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

impl Pack {
    fn new() -> Self {
        Self {
            bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(),
            count: 0,
        }
    }

    /// Adds an entry: its type, the size that it claims, what stands between header and data, its data. Gives its
    /// offset.
    fn entry(&mut self, kind: u8, claimed: u64, between: &[u8], data: &[u8]) -> u64 {
        let offset = self.bytes.len() as u64;
        let mut rest = claimed >> 4;
        let mut byte = (kind << 4) | (claimed & 0xf) as u8;
        while rest > 0 {
            self.bytes.push(byte | 0x80);
            byte = (rest & 0x7f) as u8;
            rest >>= 7;
        }
        self.bytes.push(byte);
        self.bytes.extend_from_slice(between);
        self.bytes.extend_from_slice(&stored(data));
        self.count += 1;
        offset
    }

    fn object(&mut self, kind: Kind, data: &[u8]) -> gix::ObjectId {
        let number = match kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
            Kind::Tag => 4,
        };
        self.entry(number, data.len() as u64, b"", data);
        gix::objs::compute_hash(Hash::Sha1, kind, data).expect("a hash")
    }

    /// A commit on top of the seed with one file.
    fn commit(&mut self, seed: &CommitOid) -> gix::ObjectId {
        let blob = self.object(Kind::Blob, b"{}\n");
        let mut tree = b"100644 agent.json\0".to_vec();
        tree.extend_from_slice(blob.as_slice());
        let tree = self.object(Kind::Tree, &tree);
        let who = "x <x@x> 1700000000 +0000";
        let text = format!("tree {tree}\nparent {seed}\nauthor {who}\ncommitter {who}\n\nby hand\n");
        self.object(Kind::Commit, text.as_bytes())
    }

    /// The whole bundle, which says that the pack has `count` entries.
    fn bundle(mut self, seed: &CommitOid, commit: gix::ObjectId, count: u32) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&count.to_be_bytes());
        let mut hasher = gix::hash::hasher(Hash::Sha1);
        hasher.update(&self.bytes);
        let sum = hasher.try_finalize().expect("a hash");
        let mut bundle = format!("# v2 git bundle\n-{seed}\n{commit} refs/heads/main\n\n").into_bytes();
        bundle.extend(self.bytes);
        bundle.extend_from_slice(sum.as_slice());
        bundle
    }
}

/// A zlib stream of blocks that are stored as they are.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = data.chunks(0xffff).peekable();
    if blocks.peek().is_none() {
        stream.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("a block");
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    stream.extend(((b << 16) | a).to_be_bytes());
    stream
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
    bytes
}

/// How far back an entry's base lies, as git writes it.
fn distance(mut back: u64) -> Vec<u8> {
    let mut bytes = vec![(back & 0x7f) as u8];
    while back >= 0x80 {
        back = (back >> 7) - 1;
        bytes.insert(0, (back & 0x7f) as u8 | 0x80);
    }
    bytes
}

#[tokio::test]
async fn a_pack_made_by_hand_is_as_good_as_any() {
    let world = World::new().await;
    let mut pack = Pack::new();
    let commit = pack.commit(&world.seed);
    let count = pack.count;
    let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
    let imported = world.import(&bundle).await.expect("accepted");
    assert_eq!(imported.commit.as_str(), commit.to_string());
    assert_eq!(imported.title, "by hand");
}

#[tokio::test]
async fn a_pack_that_claims_more_or_fewer_entries_than_it_has_is_refused() {
    for claimed in [0, 1, 2, 4, 1_000_000, u32::MAX] {
        let world = World::new().await;
        let mut pack = Pack::new();
        let commit = pack.commit(&world.seed);
        let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, claimed));
        world.assert_bundle_refused(&bundle, "").await;
    }
}

#[tokio::test]
async fn an_entry_that_claims_to_be_huge_is_refused_within_the_memory_that_is_granted() {
    for kind in 1..=4 {
        for claimed in [1 << 30, 1 << 40, u64::MAX >> 4] {
            let world = World::new().await;
            let mut pack = Pack::new();
            let commit = pack.commit(&world.seed);
            pack.entry(kind, claimed, b"", b"small");
            let count = pack.count;
            let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
            world.assert_bundle_refused(&bundle, "").await;
        }
    }
}

#[tokio::test]
async fn a_delta_that_claims_a_huge_result_is_refused() {
    for result in [1 << 30, 1 << 40, u64::MAX] {
        let world = World::new().await;
        let mut pack = Pack::new();
        let commit = pack.commit(&world.seed);
        let base = pack.entry(3, 4, b"", b"base");
        let mut delta = varint(4);
        delta.extend(varint(result));
        // Copies the whole base once: far less than it claims.
        delta.extend([0x90, 4]);
        let back = pack.bytes.len() as u64 - base;
        pack.entry(OFS_DELTA, delta.len() as u64, &distance(back), &delta);
        let count = pack.count;
        let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
        world.assert_bundle_refused(&bundle, "").await;
    }
}

#[tokio::test]
async fn deltas_without_a_base_are_refused() {
    let world = World::new().await;
    let delta = [varint(4), varint(4), vec![0x90, 4]].concat();
    // A base that is nowhere, one before the pack, one that is the entry itself.
    let bases: [(u8, Vec<u8>); 3] = [
        (REF_DELTA, vec![0x11; 20]),
        (OFS_DELTA, distance(1 << 40)),
        (OFS_DELTA, distance(0)),
    ];
    for (kind, base) in bases {
        let mut pack = Pack::new();
        let commit = pack.commit(&world.seed);
        pack.entry(kind, delta.len() as u64, &base, &delta);
        let count = pack.count;
        let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
        world.assert_bundle_refused(&bundle, "").await;
    }
}

/// Each entry is a change to the one before: reading the last one means reading all of them.
#[tokio::test]
async fn a_chain_of_deltas_without_end_is_refused() {
    let world = World::new().await;
    let mut pack = Pack::new();
    let commit = pack.commit(&world.seed);
    let length = 64;
    let mut before = pack.entry(3, length, b"", &[b'x'; 64]);
    for n in 0..19_990_u32 {
        let mut delta = [varint(length), varint(length)].concat();
        delta.push(4);
        delta.extend(n.to_le_bytes());
        delta.extend([0x91, 4, 60]);
        let back = pack.bytes.len() as u64 - before;
        before = pack.entry(OFS_DELTA, delta.len() as u64, &distance(back), &delta);
    }
    let count = pack.count;
    let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
    world.assert_bundle_refused(&bundle, "delta").await;
}

#[tokio::test]
async fn entries_of_no_known_type_are_refused() {
    for kind in [0, 5] {
        let world = World::new().await;
        let mut pack = Pack::new();
        let commit = pack.commit(&world.seed);
        pack.entry(kind, 5, b"", b"small");
        let count = pack.count;
        let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
        world.assert_bundle_refused(&bundle, "").await;
    }
}

#[tokio::test]
async fn what_follows_the_pack_is_not_kept() {
    let world = World::new().await;
    let mut pack = Pack::new();
    let commit = pack.commit(&world.seed);
    let count = pack.count;
    let mut bytes = pack.bundle(&world.seed, commit, count);
    bytes.extend_from_slice(b"#!/bin/sh\n");
    let imported = world.import(&world.fake_bundle(&bytes)).await.expect("accepted");
    assert_eq!(imported.commit.as_str(), commit.to_string());
    for entry in fs::read_dir(world.repo().join("objects/pack")).expect("packs") {
        let kept = fs::read(entry.expect("an entry").path()).expect("read");
        assert!(!kept.windows(9).any(|part| part == b"#!/bin/sh"));
    }
}

#[tokio::test]
async fn thousands_of_small_objects_are_refused_by_their_number() {
    let world = World::new().await;
    let mut pack = Pack::new();
    let commit = pack.commit(&world.seed);
    for n in 0..20_000_u32 {
        pack.object(Kind::Blob, &n.to_le_bytes());
    }
    let count = pack.count;
    let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
    world.assert_bundle_refused(&bundle, "squash your commits").await;
}

/// The commit of a pack that refers to a tree by the id of a commit, and the like.
#[tokio::test]
async fn objects_that_are_not_what_they_are_named_as_are_refused() {
    let who = "x <x@x> 1700000000 +0000";
    for field in ["tree", "parent"] {
        let world = World::new().await;
        let mut pack = Pack::new();
        let blob = pack.object(Kind::Blob, b"{}\n");
        let tree = pack.object(Kind::Tree, b"");
        let (tree, parents) = match field {
            "tree" => (blob, format!("parent {}\n", world.seed)),
            _ => (tree, format!("parent {}\nparent {blob}\n", world.seed)),
        };
        let text = format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\nby hand\n");
        let commit = pack.object(Kind::Commit, text.as_bytes());
        let count = pack.count;
        let bundle = world.fake_bundle(&pack.bundle(&world.seed, commit, count));
        world.assert_bundle_refused(&bundle, "").await;
    }
}
