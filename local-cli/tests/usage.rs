//! A command line that is not understood: the exact words.

use devproxy::{
    cli::{self, Stopped},
    settings::Place,
};

fn told(words: &str) -> String {
    let words: Vec<_> = ["devproxy"].into_iter().chain(words.split(' ')).map(Into::into).collect();
    match cli::read(&words, &Place::default()) {
        Err(Stopped::Failed(failure)) => {
            assert_eq!((failure.code.as_str(), failure.exit), ("DP-USAGE", 125));
            format!("{}\nhint: {}", failure.cause, failure.hint.unwrap_or_else(|| "(none)".to_owned()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_says_what_was_meant() {
    insta::assert_snapshot!(told("swpa cart"), @"
    unrecognized subcommand `swpa`
    hint: did you mean `swap`
    ");
    insta::assert_snapshot!(told("help swpa"), @"
    unrecognized subcommand `swpa`
    hint: did you mean `swap`
    ");
    insta::assert_snapshot!(told("-n shop"), @"
    which command?
    hint: `devproxy --help` lists the commands
    ");
    insta::assert_snapshot!(told("frobnicate"), @"
    unrecognized subcommand `frobnicate`
    hint: `devproxy --help` lists the commands
    ");
    insta::assert_snapshot!(told("swap"), @"
    missing: [NAMESPACE/]NAME
    hint: usage: devproxy swap <[NAMESPACE/]NAME> [-- <COMMAND>...]
    ");
    insta::assert_snapshot!(told("swap cart cargo run"), @"
    `cargo` is not expected here
    hint: a program comes after `--`: `-- cargo …`
    ");
    insta::assert_snapshot!(told("swap cart npm"), @"
    `npm` is not expected here
    hint: a program comes after `--`: `-- npm …`
    ");
    insta::assert_snapshot!(told("swap -- cargo run"), @"
    missing: [NAMESPACE/]NAME
    hint: usage: devproxy swap <[NAMESPACE/]NAME> -- <COMMAND>...
    ");
    insta::assert_snapshot!(told("exec cart psql"), @"
    `psql` is not expected here
    hint: a program comes after `--`: `-- psql …`
    ");
    insta::assert_snapshot!(told("status cart"), @"
    `cart` is not expected here
    hint: `devproxy status --help` says what is
    ");
    insta::assert_snapshot!(told("status cart"), @"
    `cart` is not expected here
    hint: `devproxy status --help` says what is
    ");
    insta::assert_snapshot!(told("swap cart --dryrun"), @"
    `--dryrun` is not expected here
    hint: did you mean `--dry-run`
    ");
    insta::assert_snapshot!(told("swap cart --zzz"), @"
    `--zzz` is not expected here
    hint: `devproxy swap --help` lists the flags
    ");
    insta::assert_snapshot!(told("swap cart --handover"), @"
    --handover: a value is missing
    hint: `--handover <WHEN>`: when the original is scaled to 0 [default: listen, or now without ports]
    ");
    insta::assert_snapshot!(told("swap cart --handover later"), @"
    --handover: `later` is none of `listen`, `now`
    hint: did you mean `listen`
    ");
    insta::assert_snapshot!(told("swap cart --handover lisen"), @"
    --handover: `lisen` is none of `listen`, `now`
    hint: did you mean `listen`
    ");
    insta::assert_snapshot!(told("swap cart --port 80:http"), @"
    --port: `80:http` is not POD[:LOCAL][/udp], as in 8080, 8080:3000 or 53:5353/udp
    hint: `--port <POD[:LOCAL][/udp]>`: further port of the pod, and where the program listens for it
    ");
    insta::assert_snapshot!(told("swap cart --ready http:healthz"), @"
    --ready: `http:healthz` is neither `listen` nor `http:/PATH`, as in http:/healthz
    hint: `--ready <HOW>`: what makes the program ready for the handover: `listen` or `http:/PATH`
    ");
    insta::assert_snapshot!(told("swap cart --local 10.0.0.0/99"), @"
    --local: `10.0.0.0/99` has a prefix length that its address family does not have; it may be as db.example, *.example or 10.0.0.0/8
    hint: `--local <NAME|CIDR>`: name, *.suffix or CIDR that goes out through the laptop instead of the cluster
    ");
    // Whoever forgets the dry run must not get the real one.
    insta::assert_snapshot!(told("swap cart -o json"), @"
    missing: --dry-run
    hint: usage: devproxy swap --dry-run --output <FORM> <[NAMESPACE/]NAME> [-- <COMMAND>...]
    ");
    insta::assert_snapshot!(told("swap cart --hold 1m"), @"
    --hold: `1m` is not a number of seconds, as in 30
    hint: `--hold <SECONDS>`: how long a connection waits for the program while it restarts, in seconds
    ");
    insta::assert_snapshot!(told("swap cart --publish 0"), @"
    --publish: `0` is not a port from 1 to 65535, as in 9229
    hint: `--publish <PORT>`: port that is published on the laptop's 127.0.0.1 (debuggers are by themselves)
    ");
    insta::assert_snapshot!(told("swap cart --skip-init=maybe"), @"
    --skip-init: `maybe` is none of `true`, `false`
    hint: `--skip-init[=<true|false>]`: do not run the init containers again
    ");
    insta::assert_snapshot!(told("status -o xml"), @"
    --output: `xml` is none of `text`, `json`, `yaml`
    hint: did you mean `yaml`
    ");
    insta::assert_snapshot!(told("status -o json -o yaml"), @"
    the argument `--output <FORM>` cannot be used multiple times
    hint: `devproxy status --help` explains them
    ");
    insta::assert_snapshot!(told("restore cart --all"), @"
    the argument `[SESSION]...` cannot be used with `--all`
    hint: `devproxy restore --help` explains them
    ");
    insta::assert_snapshot!(told("completions tcsh"), @"
    SHELL: `tcsh` is none of `bash`, `fish`, `zsh`
    hint: did you mean `zsh`
    ");
}

fn shown(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(Into::into).collect();
    match cli::read(&words, &Place::default()) {
        Err(Stopped::Told(text)) => {
            assert!(!text.use_stderr(), "{text}");
            text.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn help_is_a_command_and_a_flag_and_what_the_name_alone_gives() {
    assert_eq!(shown(&["devproxy", "help"]), shown(&["devproxy", "--help"]));
    for command in ["swap", "restore", "completions"] {
        assert_eq!(shown(&["devproxy", "help", command]), shown(&["devproxy", command, "--help"]));
    }
    assert_eq!(shown(&["devproxy"]), shown(&["devproxy", "-h"]));
}
