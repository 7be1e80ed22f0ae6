use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::CommandFactory;
use tempfile::TempDir;

use super::*;
use crate::cli::{self, Cli, Read, Stopped};

/// A home with a project in it.
struct Home {
    folder: TempDir,
    variables: BTreeMap<String, String>,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("project/src")).unwrap();
        fs::create_dir_all(folder.path().join(".config/devproxy")).unwrap();
        Self { folder, variables: BTreeMap::new() }
    }

    fn project(self, text: &str) -> Self {
        self.write("project/devproxy.toml", text)
    }

    fn user(self, text: &str) -> Self {
        self.write(".config/devproxy/config.toml", text)
    }

    fn write(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn place(&self) -> Place {
        let home = self.folder.path().to_path_buf();
        Place { folder: Some(home.join("project")), home: Some(home), variables: self.variables.clone() }
    }

    /// `devproxy WORDS` in the project's folder.
    fn read(&self, words: &str) -> Result<Read, Failure> {
        let words: Vec<_> = ["devproxy"].into_iter().chain(words.split(' ')).map(Into::into).collect();
        match cli::read(&words, &self.place()) {
            Ok(read) => Ok(read),
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::Told(error)) => panic!("{error}"),
        }
    }

    /// Value and source of a setting.
    fn value(&self, words: &str, key: &str) -> (Vec<String>, Source) {
        let read = self.read(words).unwrap();
        let value = read.effective.into_iter().find(|value| value.key == key).unwrap();
        (value.values, value.from)
    }

    fn source(&self, words: &str, key: &str) -> &'static str {
        match self.value(words, key).1 {
            Source::Flag => "flag",
            Source::Variable { .. } => "variable",
            Source::Project { .. } => "project",
            Source::User { .. } => "user",
            Source::Kubeconfig { .. } => "kubeconfig",
            Source::Default => "default",
        }
    }

    /// The error's text without the folder's name.
    fn failure(&self, words: &str) -> String {
        let failure = self.read(words).expect_err("a failure");
        assert_eq!(failure.exit, 125);
        let text = format!("{failure}\nhint: {}", failure.hint.as_deref().unwrap_or("(none)"));
        text.replace(&self.folder.path().display().to_string(), "HOME")
    }
}

#[test]
fn every_setting_is_a_flag() {
    for setting in SETTINGS {
        assert!(setting.flag(&Cli::command()).is_some(), "{setting:?}");
    }
}

#[test]
fn every_flag_is_a_setting_or_belongs_to_one_command_line_only() {
    let once = ["output", "dry-run", "take-over", "all", "stale", "force", "help", "version"];
    let command = Cli::command();
    let below = command.get_subcommands().flat_map(Command::get_arguments);
    for long in command.get_arguments().chain(below).filter_map(Arg::get_long) {
        let is_setting = SETTINGS.iter().any(|setting| setting.key == long);
        assert!(is_setting != once.contains(&long), "{long}");
    }
}

#[test]
fn the_flag_wins_then_the_variable_then_the_project_then_the_user() {
    let home = Home::new();
    assert_eq!(home.source("config", "namespace"), "default");
    let home = home.user("namespace = 'of-user'");
    assert_eq!(home.source("config", "namespace"), "user");
    let home = home.project("namespace = 'of-project'");
    assert_eq!(home.source("config", "namespace"), "project");
    let home = home.variable("DEVPROXY_NAMESPACE", "of-variable");
    assert_eq!(home.source("config", "namespace"), "variable");
    assert_eq!(home.source("config -n typed", "namespace"), "flag");
    assert_eq!(home.value("-n typed config", "namespace").0, ["typed"]);
}

#[test]
fn what_was_found_fills_up_the_command_line() {
    let home = Home::new()
        .user("hold = 60\nagent-image = 'mirror.example/agent'\nkubeconfig = '/etc/k'")
        .project("port = ['8080:3000', 9090]\nskip-init = true\nlocal = 'mirror.example'\nverbose = 1")
        .variable("DEVPROXY_PUBLISH", "5005, 9229");
    let read = home.read("swap cart").unwrap();
    assert_eq!(read.cli.global.verbose, 1);
    assert_eq!(read.cli.global.kubeconfig, Some(PathBuf::from("/etc/k")));
    let cli::Command::Swap(swap) = read.cli.command else { panic!("swap") };
    let ports: Vec<_> = swap.ports.iter().map(|port| (port.pod, port.local)).collect();
    assert_eq!(ports, [(8080, 3000), (9090, 9090)]);
    assert!(swap.skip_init);
    assert_eq!(swap.session.hold, 60);
    assert_eq!(swap.session.publish, [5005, 9229]);
    assert_eq!(swap.session.local, ["mirror.example"]);
    assert_eq!(swap.session.agent_image.as_deref(), Some("mirror.example/agent"));
    assert_eq!(read.cli.global.notices, ["devproxy.toml sets port, skip-init, local, verbose"]);

    let cli::Command::Swap(swap) = home.read("swap cart --skip-init=false -p 1").unwrap().cli.command else {
        panic!("swap")
    };
    assert!(!swap.skip_init);
    assert_eq!(swap.ports.len(), 1, "a flag replaces the list of a file");
}

#[test]
fn an_empty_variable_is_none_and_an_unknown_one_is_somebody_elses() {
    let home = Home::new().variable("DEVPROXY_HOLD", "").variable("DEVPROXY_SESSION", "shop/cart");
    assert_eq!(home.source("config", "hold"), "default");
}

#[test]
fn the_projects_file_is_found_from_below_but_not_above_home() {
    let home = Home::new().project("hold = 1");
    let mut place = home.place();
    place.folder = Some(home.folder.path().join("project/src"));
    assert!(place.project_file().0.is_some());
    // Another user's home: what lies above it is nobody's project.
    place.home = place.folder.clone();
    assert_eq!(place.project_file(), (None, None));
}

#[test]
fn a_project_cannot_bring_a_program_that_runs() {
    let refused: Vec<_> =
        SETTINGS.iter().filter(|setting| !setting.project).map(|setting| setting.key).collect();
    assert_eq!(refused, ["kubeconfig", "agent-image"]);
    insta::assert_snapshot!(Home::new().project("kubeconfig = './k'").failure("status"), @"
    devproxy.toml:1: a project's file may not set `kubeconfig` [DP-CONFIG]
    hint: it comes with the repository, and `kubeconfig` could run somebody else's program; set it in ~/.config/devproxy/config.toml or by DEVPROXY_KUBECONFIG
    ");
}

#[test]
fn a_mistake_in_a_file_is_one_line_with_its_place() {
    let text = |text: &str| Home::new().project(text).failure("status");
    insta::assert_snapshot!(text("\n# ours\nnamespce = 'shop'"), @"
    devproxy.toml:3: unknown key `namespce` [DP-CONFIG]
    hint: did you mean `namespace`
    ");
    insta::assert_snapshot!(text("colour = 'red'"), @"
    devproxy.toml:1: unknown key `colour` [DP-CONFIG]
    hint: the keys are context, namespace, verbose, container, handover, drain, ready, skip-init, port, like, publish, local, hold, env
    ");
    insta::assert_snapshot!(text("hold = 'soon'"), @"
    devproxy.toml:1: `hold = 'soon'`: `soon` is not a number of seconds, as in 30 [DP-CONFIG]
    hint: `hold`: how long a connection waits for the program while it restarts, in seconds
    ");
    insta::assert_snapshot!(text("hold = true"), @"
    devproxy.toml:1: `hold` is a truth value, not text or a number [DP-CONFIG]
    hint: `hold`: how long a connection waits for the program while it restarts, in seconds
    ");
    insta::assert_snapshot!(text("hold = -1"), @"
    devproxy.toml:1: `hold = -1`: `-1` is not a number of seconds, as in 30 [DP-CONFIG]
    hint: `hold`: how long a connection waits for the program while it restarts, in seconds
    ");
    insta::assert_snapshot!(text("skip-init = 'yes'"), @"
    devproxy.toml:1: `skip-init` is text, not true or false [DP-CONFIG]
    hint: `skip-init`: do not run the init containers again
    ");
    insta::assert_snapshot!(text("handover = 'later'"), @"
    devproxy.toml:1: `handover = 'later'`: `later` is none of `listen`, `now` [DP-CONFIG]
    hint: `handover`: when the original is scaled to 0 [default: listen, or now without ports]
    ");
    insta::assert_snapshot!(text("port = ['8080:3000',\n '80:http']"), @"
    devproxy.toml:1: `port = ['8080:3000', '80:http']`: `80:http` is not POD[:LOCAL][/udp], as in 8080, 8080:3000 or 53:5353/udp [DP-CONFIG]
    hint: `port`: further port of the pod, and where the program listens for it
    ");
    insta::assert_snapshot!(text("namespace = ['a', 'b']"), @"
    devproxy.toml:1: `namespace` is a list, not text or a number [DP-CONFIG]
    hint: `namespace`: namespace [default: the context's]
    ");
    insta::assert_snapshot!(text("[port]\nhttp = 1"), @"
    devproxy.toml:1: `port` is a table, not text, a number, or a list of these [DP-CONFIG]
    hint: `port`: further port of the pod, and where the program listens for it
    ");
    insta::assert_snapshot!(text("namespace = "), @"
    devproxy.toml:1: `namespace` has no value [DP-CONFIG]
    hint: the file is TOML: a `key = value` a line, text in quotes
    ");
    insta::assert_snapshot!(text("hold =\nnamespace = shop"), @"
    devproxy.toml:1: `hold` has no value [DP-CONFIG]
    hint: the file is TOML: a `key = value` a line, text in quotes
    ");
    insta::assert_snapshot!(text("namespace = shop"), @"
    devproxy.toml:1: string values must be quoted, expected literal string [DP-CONFIG]
    hint: the file is TOML: a `key = value` a line, text in quotes
    ");
    insta::assert_snapshot!(text("namespace = 'a'\nnamespace = 'b'"), @"
    devproxy.toml:2: duplicate key [DP-CONFIG]
    hint: the file is TOML: a `key = value` a line, text in quotes
    ");
    insta::assert_snapshot!(Home::new().user("hold = 'soon'").failure("status"), @"
    ~/.config/devproxy/config.toml:1: `hold = 'soon'`: `soon` is not a number of seconds, as in 30 [DP-CONFIG]
    hint: `hold`: how long a connection waits for the program while it restarts, in seconds
    ");
    insta::assert_snapshot!(Home::new().variable("DEVPROXY_HOLD", "soon").failure("status"), @"
    DEVPROXY_HOLD=soon: `soon` is not a number of seconds, as in 30 [DP-CONFIG]
    hint: `hold`: how long a connection waits for the program while it restarts, in seconds
    ");
    insta::assert_snapshot!(Home::new().variable("DEVPROXY_PORT", "80,x").failure("status"), @"
    DEVPROXY_PORT=80,x: `x` is not POD[:LOCAL][/udp], as in 8080, 8080:3000 or 53:5353/udp [DP-CONFIG]
    hint: `port`: further port of the pod, and where the program listens for it
    ");
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let with = |make: &dyn Fn(PathBuf)| {
        let home = Home::new();
        make(home.folder.path().join("project/devproxy.toml"));
        home.failure("status")
    };
    insta::assert_snapshot!(with(&|path| fs::create_dir(path).unwrap()), @"
    devproxy.toml: not a regular file [DP-CONFIG]
    hint: mend it, or move it away
    ");
    insta::assert_snapshot!(with(&|path| fs::write(path, b"\xff").unwrap()), @"
    devproxy.toml: not UTF-8 text [DP-CONFIG]
    hint: mend it, or move it away
    ");
    insta::assert_snapshot!(with(&|path| fs::write(path, " ".repeat(100_000)).unwrap()), @"
    devproxy.toml: longer than 65536 bytes [DP-CONFIG]
    hint: mend it, or move it away
    ");
}

#[test]
fn help_and_packages_work_whatever_the_files_hold() {
    let home = Home::new().project("nonsense");
    assert!(home.read("completions bash").is_ok());
    let words = ["devproxy", "swap", "--help"].map(Into::into);
    assert!(matches!(cli::read(&words, &home.place()), Err(Stopped::Told(_))));
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_told() {
    let place =
        ["NAMESPCE", "NAMESPACE", "HANDOVR", "SESSION", "COMPLETE", "BIN", "SERVICE_HOST", "PORT_80_TCP"]
            .into_iter()
            .fold(Home::new(), |home, name| home.variable(&format!("DEVPROXY_{name}"), "shop"));
    assert_eq!(
        place.read("status").unwrap().cli.global.notices,
        [
            "DEVPROXY_HANDOVR is no setting; did you mean DEVPROXY_HANDOVER",
            "DEVPROXY_NAMESPCE is no setting; did you mean DEVPROXY_NAMESPACE",
        ]
    );
}
