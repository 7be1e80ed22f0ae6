use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use devproxy_tunnel::control::{FileEntry, FileKind};

use super::{tree, watch::Watch};

/// A ConfigMap volume as the kubelet writes it.
fn publish(root: &Path, version: &str, content: &str) {
    let data = root.join(version);
    fs::create_dir(&data).unwrap();
    fs::write(data.join("key"), content).unwrap();
    fs::set_permissions(data.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink(version, root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
}

fn volume() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    symlink("..data/key", root.path().join("key")).unwrap();
    publish(root.path(), "..v1", "one");
    root
}

fn read(root: &Path) -> Vec<FileEntry> {
    tree::read(root.to_str().unwrap()).unwrap().entries
}

#[test]
fn the_data_structure_is_kept_with_modes_and_links() {
    let root = volume();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let entries = read(root.path());
    let seen: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), &entry.kind)).collect();
    let (data, key) = (FileKind::Symlink("..v1".into()), FileKind::Symlink("..data/key".into()));
    let file = FileKind::File(b"one".to_vec());
    let folder = FileKind::Directory;
    assert_eq!(
        seen,
        [("", &folder), ("..data", &data), ("..v1", &folder), ("..v1/key", &file), ("key", &key)]
    );
    assert_eq!(entries[0].mode, 0o1777);
    assert_eq!(entries[3].mode, 0o640);
}

#[test]
fn a_sub_path_is_a_tree_of_one_file() {
    let root = volume();
    let entries = read(&root.path().join("..v1/key"));
    assert_eq!(
        entries,
        [FileEntry { path: String::new(), mode: 0o640, kind: FileKind::File(b"one".to_vec()) }]
    );
}

#[test]
fn what_is_no_file_or_too_large_is_left_out() {
    let root = volume();
    nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(read(root.path()).iter().all(|entry| entry.path != "pipe"));
    fs::write(root.path().join("large"), vec![0; 9 << 20]).unwrap();
    let error = tree::read(root.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(error, tree::TreeError::TooLarge));
}

#[test]
fn only_absolute_paths_are_read() {
    for root in ["etc", "/etc/../etc", ""] {
        assert!(matches!(tree::read(root), Err(tree::TreeError::Path)), "{root}");
    }
}

#[tokio::test]
async fn a_flip_is_seen_with_inotify_and_without() {
    for without in [false, true] {
        let root = volume();
        let mut watch = if without { Watch::looking(root.path()) } else { Watch::new(root.path()) };
        assert_eq!(matches!(watch, Watch::Looking { .. }), without);
        publish(root.path(), "..v2", "two");
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("the flip is seen");
        watch.settle();
        assert!(read(root.path()).iter().any(|entry| entry.kind == FileKind::File(b"two".to_vec())));
    }
}
