use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use devproxy_namespaces::{Files, NamespaceError, Skipped};
use devproxy_tunnel::control::{FileEntry, FileKind, FileTree};

use crate::bed::{self, Session, as_user};

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn entry(path: &str, mode: u32, kind: FileKind) -> FileEntry {
    FileEntry { path: path.to_owned(), mode, kind }
}

fn file(path: &str, content: &str) -> FileEntry {
    entry(path, 0o440, FileKind::File(content.as_bytes().to_vec()))
}

fn single(root: &str, content: &str) -> FileTree {
    FileTree { root: root.to_owned(), entries: vec![file("", content)] }
}

/// A volume as the kubelet lays it out.
fn volume(root: &str, stamp: &str, content: &[(&str, &str)]) -> FileTree {
    let link = |path: &str, target: String| entry(path, 0o777, FileKind::Symlink(target));
    let mut entries = vec![entry("", 0o1777, FileKind::Directory), entry(stamp, 0o755, FileKind::Directory)];
    entries.extend(content.iter().map(|(name, content)| file(&format!("{stamp}/{name}"), content)));
    entries.push(link("..data", stamp.to_owned()));
    entries.extend(content.iter().map(|(name, _)| link(name, format!("..data/{name}"))));
    FileTree { root: root.to_owned(), entries }
}

fn files(trees: Vec<FileTree>) -> Files {
    Files {
        resolv_conf: b"nameserver 10.96.0.10\nsearch shop.svc.cluster.local\n".to_vec(),
        hosts: b"127.0.0.1 localhost\n10.244.9.9 cart-7f2\n".to_vec(),
        hostname: "cart-7f2".to_owned(),
        trees,
    }
}

fn mounted(trees: Vec<FileTree>) -> (Session, Vec<Skipped>) {
    let (session, _sockets) = Session::start();
    match session.runtime.block_on(session.namespaces.mount(&files(trees))) {
        Ok(skipped) => (session, skipped),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn volumes_appear_at_paths_that_the_laptop_does_not_have() {
    as_user("files::volumes_appear_at_paths_that_the_laptop_does_not_have", || {
        let big = "x".repeat(1 << 20);
        let (session, skipped) = mounted(vec![
            volume("/app-of-the-pod/config", "..1", &[("a.yaml", "cfg"), ("big", &big)]),
            volume(TOKEN, "..1", &[("token", "TOKEN"), ("namespace", "shop")]),
            volume("/etc/of-the-pod/conf.d", "..1", &[("site", "in etc")]),
            volume("/usr/share/of-the-pod", "..1", &[("index.html", "in usr")]),
            volume("/app-of-the-pod/config/nested", "..1", &[("n", "nested")]),
            volume("/opt/of-the-pod", "..1", &[("o", "in opt")]),
            volume("/root/.of-the-pod", "..1", &[("r", "in a closed folder")]),
            single("/app-of-the-pod/settings", "one file"),
            single("/etc/of-the-pod/settings", "one file in etc"),
            single("/of-the-pod", "one file in the root"),
        ]);
        assert_eq!(skipped, []);
        for (path, content) in [
            ("/app-of-the-pod/config/a.yaml", "cfg"),
            ("/app-of-the-pod/config/..data/a.yaml", "cfg"),
            ("/app-of-the-pod/config/big", &big),
            ("/app-of-the-pod/config/nested/n", "nested"),
            ("/var/run/secrets/kubernetes.io/serviceaccount/token", "TOKEN"),
            ("/run/secrets/kubernetes.io/serviceaccount/namespace", "shop"),
            ("/etc/of-the-pod/conf.d/site", "in etc"),
            ("/etc/of-the-pod/settings", "one file in etc"),
            ("/usr/share/of-the-pod/index.html", "in usr"),
            ("/opt/of-the-pod/o", "in opt"),
            ("/root/.of-the-pod/r", "in a closed folder"),
            ("/app-of-the-pod/settings", "one file"),
            ("/of-the-pod", "one file in the root"),
        ] {
            assert!(session.run(&["read", path]) == content, "{path}: {}", session.run(&["read", path]));
            assert!(!Path::new(path).exists(), "{path} is on the laptop");
        }
        // Everything else is where it was, and the laptop's folders are no more writable than before.
        for folder in ["/", "/usr/share", "/opt", "/run"] {
            let inside = session.run(&["list", folder]);
            let inside: Vec<_> = inside.split(' ').collect();
            for name in fs::read_dir(folder).unwrap() {
                let name = name.unwrap().file_name().into_string().unwrap();
                assert!(inside.contains(&&*name), "{name} is not in {folder} any more: {inside:?}");
            }
            assert!(session.run(&["touch", &format!("{folder}/written")]).starts_with("error"), "{folder}");
        }
        assert!(session.run(&["touch", "/app-of-the-pod/config/a.yaml"]).starts_with("error"));
        let output = session.command(Path::new("unshare")).args(["-U", "true"]).output().unwrap();
        assert!(output.status.success(), "a user namespace inside: {output:?}");
        let inside = session.run(&["status"]);
        assert!(inside.contains("hostname cart-7f2\ndirectory /\n"), "{inside}");
    });
}

#[test]
fn etc_is_the_pods_where_it_matters_and_the_laptops_elsewhere() {
    as_user("files::etc_is_the_pods_where_it_matters_and_the_laptops_elsewhere", || {
        let (session, skipped) = mounted(Vec::new());
        assert_eq!(skipped, []);
        let wanted = files(Vec::new());
        for (path, content) in [
            ("/etc/resolv.conf", &wanted.resolv_conf),
            ("/etc/hosts", &wanted.hosts),
            ("/etc/hostname", &b"cart-7f2".to_vec()),
        ] {
            assert_eq!(
                session.run(&["read", path]).trim_end().as_bytes(),
                content.trim_ascii_end(),
                "{path}"
            );
        }
        assert!(session.run(&["read", "/etc/nsswitch.conf"]).contains("hosts: files dns"));
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        assert_eq!(session.run(&["read", "/etc/passwd"]), passwd.trim());
    });
}

#[test]
fn ssh_accepts_the_laptops_configuration() {
    as_user("files::ssh_accepts_the_laptops_configuration", || {
        let (session, _) = mounted(Vec::new());
        let output = match session.command(Path::new("ssh")).args(["-G", "example.com"]).output() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                panic!("ssh is missing: apt-get install openssh-client")
            }
            output => output.unwrap(),
        };
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn a_refresh_flips_all_files_of_a_volume_at_once() {
    as_user("files::a_refresh_flips_all_files_of_a_volume_at_once", || {
        let root = "/app-of-the-pod/config";
        let (session, skipped) = mounted(vec![
            volume(root, "..1", &[("a", "one"), ("old", "one")]),
            volume(&format!("{root}/nested"), "..1", &[("n", "nested")]),
            volume("/etc/of-the-pod", "..1", &[("a", "one")]),
            single("/app-of-the-pod/settings", "one"),
        ]);
        assert_eq!(skipped, []);
        let refresh = |tree: &FileTree| session.runtime.block_on(session.namespaces.refresh(tree));
        refresh(&volume(root, "..2", &[("a", "two"), ("new", "two")])).unwrap();
        refresh(&volume("/etc/of-the-pod", "..2", &[("a", "two")])).unwrap();
        refresh(&single("/app-of-the-pod/settings", "two")).unwrap();
        for name in ["config/a", "config/new", "config/..data/new", "settings"] {
            assert_eq!(session.run(&["read", &format!("/app-of-the-pod/{name}")]), "two", "{name}");
        }
        assert_eq!(session.run(&["read", "/etc/of-the-pod/a"]), "two");
        assert_eq!(session.run(&["list", root]), "..2 ..data a nested new");
        assert_eq!(session.run(&["read", &format!("{root}/nested/n")]), "nested");
        let unknown = refresh(&volume("/elsewhere", "..1", &[]));
        assert!(matches!(unknown, Err(NamespaceError::Step { .. })), "{unknown:?}");
    });
}

#[test]
fn what_would_hide_the_laptop_is_skipped_with_its_reason() {
    as_user("files::what_would_hide_the_laptop_is_skipped_with_its_reason", || {
        let home = std::env::var("HOME").unwrap();
        let mut hostile = volume("/app-of-the-pod/hostile", "..1", &[("a", "x")]);
        hostile.entries.push(file("../escaped", "x"));
        let empty = FileTree { root: "/app-of-the-pod/empty".to_owned(), entries: Vec::new() };
        let (session, skipped) = mounted(vec![
            volume("/tmp/of-the-pod", "..1", &[("a", "x")]),
            volume(&format!("{home}/config"), "..1", &[("a", "x")]),
            volume("/usr/bin", "..1", &[("a", "x")]),
            volume("/bin", "..1", &[("a", "x")]),
            single("/usr/share", "x"),
            hostile,
            empty,
            volume("/app-of-the-pod/good", "..1", &[("a", "good")]),
        ]);
        let reasons: BTreeMap<_, _> =
            skipped.iter().map(|s| (s.path.to_str().unwrap(), s.reason.as_str())).collect();
        assert_eq!(reasons.len(), 7, "{reasons:?}");
        assert_eq!(reasons["/tmp/of-the-pod"], "/tmp stays the laptop's own");
        assert_eq!(session.run(&["read", "/app-of-the-pod/good/a"]), "good");
    });
}

#[test]
fn the_laptops_files_stay_as_they_are() {
    as_user("files::the_laptops_files_stay_as_they_are", || {
        let state = || {
            let folders = ["/", "/run", "/opt", "/usr/share", "/etc", "/tmp"].map(|folder| {
                let entries = fs::read_dir(folder).unwrap().flatten();
                // Others come and go in /tmp; ours would be the user's.
                let ours = |entry: &fs::DirEntry| {
                    entry.metadata().is_ok_and(|metadata| metadata.uid() == nix::unistd::getuid().as_raw())
                };
                let mut names: Vec<_> = entries.filter(ours).map(|entry| entry.file_name()).collect();
                names.sort();
                names
            });
            let read = |path: &str| fs::read(path).unwrap();
            (folders, ["/etc/resolv.conf", "/etc/hosts"].map(read))
        };
        let (before, mounts) = (state(), bed::mounts());
        let (session, skipped) = mounted(vec![
            volume("/app-of-the-pod/config", "..1", &[("a", "x")]),
            volume(TOKEN, "..1", &[("token", "x")]),
        ]);
        assert_eq!(skipped, []);
        assert_eq!(session.run(&["read", "/app-of-the-pod/config/a"]), "x");
        assert_eq!(state(), before);
        assert!(bed::mounts().is_subset(&mounts));
        drop(session);
        assert_eq!(state(), before);
        assert!(bed::mounts().is_subset(&mounts));
    });
}
