use std::fs;

use super::*;

fn entry(path: &str, kind: FileKind) -> FileEntry {
    let mode = if kind == FileKind::Directory { 0o755 } else { 0o640 };
    FileEntry { path: path.to_owned(), mode, kind }
}

fn folder(path: &str) -> FileEntry {
    entry(path, FileKind::Directory)
}

fn file(path: &str, content: &str) -> FileEntry {
    entry(path, FileKind::File(content.as_bytes().to_vec()))
}

fn link(path: &str, target: &str) -> FileEntry {
    entry(path, FileKind::Symlink(target.to_owned()))
}

fn tree(entries: impl IntoIterator<Item = FileEntry>) -> FileTree {
    let entries = [folder("")].into_iter().chain(entries).collect();
    FileTree { root: "/app/config".to_owned(), entries }
}

fn write(at: &Path, tree: &FileTree) -> io::Result<Tree> {
    Tree::write(File::open(at).unwrap().into(), tree)
}

fn names(at: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_volume_of_the_kubelet_flips_as_a_whole() {
    let at = tempfile::tempdir().unwrap();
    let state = |stamp: &str, content: &str, more: &[&str]| {
        let mut entries = vec![folder(stamp), file(&format!("{stamp}/a"), content), link("..data", stamp)];
        entries.push(link("a", "..data/a"));
        for name in more {
            entries.push(file(&format!("{stamp}/{name}"), content));
            entries.push(link(name, &format!("..data/{name}")));
        }
        tree(entries)
    };
    let mut written = write(at.path(), &state("..1", "one", &["old"])).unwrap();
    let open = File::open(at.path().join("..data")).unwrap();
    written.update(&state("..2", "two", &["new"])).unwrap();
    assert_eq!(names(at.path()), ["..2", "..data", "a", "new"]);
    assert_eq!(fs::read_to_string(at.path().join("a")).unwrap(), "two");
    assert_eq!(fs::metadata(at.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o640);
    drop(open);
}

#[test]
fn a_plain_file_is_replaced_and_not_written_into() {
    let at = tempfile::tempdir().unwrap();
    let mut written = write(at.path(), &tree([file("a", "one"), file("b", "same")])).unwrap();
    let reader = File::open(at.path().join("a")).unwrap();
    written.update(&tree([file("a", "two"), file("b", "same")])).unwrap();
    assert_eq!(io::read_to_string(reader).unwrap(), "one");
    assert_eq!(fs::read_to_string(at.path().join("a")).unwrap(), "two");
    assert_eq!(names(at.path()), ["a", "b"]);
}

#[test]
fn a_file_becomes_a_folder_and_back() {
    let at = tempfile::tempdir().unwrap();
    let one = tree([file("a", "one")]);
    let two = tree([folder("a"), folder("a/b"), file("a/b/c", "deep")]);
    let mut written = write(at.path(), &one).unwrap();
    written.update(&two).unwrap();
    assert_eq!(fs::read_to_string(at.path().join("a/b/c")).unwrap(), "deep");
    written.update(&one).unwrap();
    assert_eq!(fs::read_to_string(at.path().join("a")).unwrap(), "one");
    written.update(&tree([link("a", "elsewhere")])).unwrap();
    assert_eq!(fs::read_link(at.path().join("a")).unwrap(), Path::new("elsewhere"));
}

#[test]
fn nothing_is_written_outside_of_the_folder() {
    let all = tempfile::tempdir().unwrap();
    let at = all.path().join("tree");
    for hostile in [
        tree([file("../escaped", "x")]),
        tree([file("/escaped", "x")]),
        tree([file("a/../../escaped", "x")]),
        tree([folder("a"), file("a/./b", "x")]),
        tree([folder("a"), file("a//b", "x")]),
        tree([link("a", ".."), file("a/escaped", "x")]),
        tree([file("a", "x"), file("a", "y")]),
        tree([file("no/parent", "x")]),
        tree([file("nul\0", "x")]),
        tree([file("..", "x")]),
        tree([file("", "x")]),
        tree([file("..devproxy", "x")]),
        FileTree { root: String::new(), entries: vec![file("not-the-root", "x")] },
        FileTree { root: String::new(), entries: vec![link("", "/etc")] },
        FileTree { root: String::new(), entries: Vec::new() },
    ] {
        fs::create_dir(&at).unwrap();
        assert!(write(&at, &hostile).is_err(), "{hostile:?}");
        assert_eq!(names(all.path()), ["tree"]);
        fs::remove_dir_all(&at).unwrap();
    }
}

#[test]
fn a_link_that_was_a_folder_is_not_followed_by_an_update() {
    let at = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let mut written = write(at.path(), &tree([folder("a"), file("a/b", "x")])).unwrap();
    // As if a program had changed the folder under us.
    fs::remove_dir_all(at.path().join("a")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at.path().join("a")).unwrap();
    assert!(written.update(&tree([folder("a"), file("a/b", "y")])).is_err());
    assert!(names(outside.path()).is_empty());
}

#[test]
fn a_folder_without_the_right_to_write_is_filled_and_keeps_its_mode() {
    let at = tempfile::tempdir().unwrap();
    let mut closed = folder("a");
    closed.mode = 0o6555;
    write(at.path(), &tree([closed, file("a/b", "x")])).unwrap();
    assert_eq!(fs::metadata(at.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o555);
    fs::set_permissions(at.path().join("a"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_the_group_may_read_in_the_pod_the_user_may_read_here() {
    for (pod, here) in
        [(0o040, 0o440), (0o644, 0o644), (0o640, 0o640), (0o400, 0o400), (0o4755, 0o755), (0o005, 0o505)]
    {
        assert_eq!(permissions(pod).mode(), here, "{pod:o}");
    }
}
