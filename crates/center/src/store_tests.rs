use super::*;

fn row(n: u8, epoch: u64) -> ContentRow {
    ContentRow {
        version: Version { content: ContentId([n; 32]), epoch },
        name: format!("content {n}"),
        log: vec![n; 10],
        access: OriginAccess { headers: vec![("cookie".into(), "s".into())], query: "q=1".into() },
        share_origin_credentials: true,
        restricted: true,
        lightweight: (n == 1).then(|| "small".to_owned()),
        published_unix_ms: 77,
    }
}

fn transfer(n: u64) -> TransferRow {
    let transfer = Transfer {
        node: NodeId([1; 32]),
        content: ContentId([2; 32]),
        title: "t".into(),
        peer_bytes: n,
        waypoint_bytes: 2,
        origin_bytes: 3,
        start: Default::default(),
        end: Default::default(),
        max_rate: 9,
        complete: true,
    };
    TransferRow { transfer, start_unix_ms: 5, end_unix_ms: 6 }
}

#[tokio::test]
async fn state_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, thread, loaded) = Store::open(folder.path(), 1).unwrap();
    assert!(loaded.contents.is_empty() && loaded.moved_aside.is_none());
    store.publish(row(1, 5), Some(vec![3; 64])).await.unwrap();
    store.publish(row(2, u64::MAX), None).await.unwrap();
    store.publish(row(3, 1), None).await.unwrap();
    store.withdraw(row(3, 1).version, 9).await.unwrap();
    (1..=3).for_each(|n| store.record(transfer(n)));
    assert_eq!(store.transfers(2).await.unwrap(), [transfer(3), transfer(2)]);
    drop(store);
    thread.join().unwrap();

    let (store, _, loaded) = Store::open(folder.path(), 1).unwrap();
    let found: Vec<_> = loaded.contents.iter().map(|c| (c.name.as_str(), c.version.epoch)).collect();
    assert_eq!(found, [("content 1", 5), ("content 2", u64::MAX)]);
    let (first, expected) = (&loaded.contents[0], row(1, 5));
    assert_eq!((&first.log, &first.access), (&expected.log, &expected.access));
    assert!(first.share_origin_credentials && first.restricted && first.published_unix_ms == 77);
    assert_eq!((first.lightweight.as_deref(), &loaded.contents[1].lightweight), (Some("small"), &None));
    assert_eq!(loaded.withdrawn, [(ContentId([3; 32]), 1)]);
    assert_eq!(store.leaves(row(1, 5).version).await.unwrap(), Some(vec![3; 64]));
    assert_eq!(store.leaves(row(1, 6).version).await.unwrap(), None, "of another version");
    assert_eq!(store.leaves(row(2, u64::MAX).version).await.unwrap(), None);
    store.set_leaves(row(2, u64::MAX).version, vec![4; 32]).await.unwrap();
    assert_eq!(store.leaves(row(2, u64::MAX).version).await.unwrap(), Some(vec![4; 32]));
}

#[tokio::test]
async fn state_of_the_first_version_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let first = Connection::open(folder.path().join(FILE)).unwrap();
    first.execute_batch(&TABLES.replace(", lightweight TEXT", "")).unwrap();
    let old = "INSERT INTO contents VALUES (?1, 'film', 5, x'01', NULL, '{\"headers\":[],\"query\":\"\"}', 0, 1, 77)";
    first.execute(old, [&[1u8; 32][..]]).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    drop(first);
    for _ in 0..2 {
        let (store, thread, loaded) = Store::open(folder.path(), 1).unwrap();
        let found: Vec<_> = loaded.contents.iter().map(|c| (c.name.as_str(), c.restricted, &c.lightweight)).collect();
        assert_eq!((found, loaded.moved_aside), (vec![("film", true, &None)], None));
        store.publish(row(2, 1), None).await.unwrap();
        store.withdraw(row(2, 1).version, 9).await.unwrap();
        drop(store);
        thread.join().unwrap();
    }
}

#[test]
fn two_processes_cannot_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Store::open(folder.path(), 1).unwrap();
    let said = Store::open(folder.path(), 1).err().unwrap();
    assert!(matches!(said, StoreError::InUse { .. }), "{said}");
}

#[test]
fn a_newer_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    Connection::open(folder.path().join(FILE)).unwrap().pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    let said = Store::open(folder.path(), 1).err().unwrap().to_string();
    assert!(said.contains("newer version"), "{said}");
}

#[tokio::test]
async fn a_corrupt_database_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    for bytes in [&b"this is no database at all, whatever its name says"[..], &[0; 8192]] {
        std::fs::write(&path, bytes).unwrap();
        let (store, thread, loaded) = Store::open(folder.path(), bytes.len() as u64).unwrap();
        let aside = loaded.moved_aside.unwrap();
        assert!(aside.to_str().unwrap().contains("headwater.db.corrupt-"));
        assert_eq!(std::fs::read(aside).unwrap(), bytes);
        drop(store);
        thread.join().unwrap();
    }
}
