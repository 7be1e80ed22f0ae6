//! One file a command. Each turns what was typed into checked settings, does it, and returns the exit code.

mod completions;
mod config;
pub(crate) mod exec;
mod man;
pub(crate) mod restore;
mod shell;
mod status;
mod swap;

use tokio::{runtime::Handle, task::spawn_blocking};

use devproxy_cluster::{ApiSettings, Connection, Holder, Plan, target::Target};

use crate::{
    Failure,
    cli::{Command, EnvironmentForm, Global, Read},
    environment::{self, Form},
    session::client::Session,
    terminal::Signals,
    ui::Progress,
};

/// Runs what was typed; the result is the exit code.
pub async fn run(read: Read) -> Result<u8, Failure> {
    if let Command::Config(config) = &read.cli.command {
        return config::run(config, &read);
    }
    let global = read.cli.global;
    match read.cli.command {
        Command::Swap(swap) => swap::run(&global, *swap, &mut Signals::new()?).await,
        Command::Shell(shell) => shell::run(&global, *shell, &mut Signals::new()?).await,
        Command::Exec(exec) => exec::run(&global, exec, &mut Signals::new()?).await,
        Command::Status(status) => Signals::new()?.during(status::run(&global, &status)).await,
        Command::Restore(restore) => restore::run(&global, &restore, &mut Signals::new()?).await,
        Command::Completions(completions) => completions::run(&completions),
        Command::Man(man) => man::run(&man),
        // Above: it alone looks at where the settings come from.
        Command::Config(_) => Ok(0),
    }
}

fn api_settings(global: &Global) -> ApiSettings {
    ApiSettings {
        kubeconfig: global.kubeconfig.clone(),
        context: global.context.clone(),
        namespace: global.namespace.clone(),
    }
}

/// What the user named. `--namespace` and a namespace before the slash must not contradict each other; one of a
/// variable or a file gives way.
fn target(global: &Global, text: &str) -> Result<Target, Failure> {
    let target = Target::parse(text)?;
    match (&global.namespace, &target.namespace) {
        (Some(flag), Some(written)) if flag != written && global.namespace_typed => Err(Failure::new(
            "DP-USAGE",
            format!("`--namespace {flag}` and `{text}` name different namespaces"),
        )
        .hint("leave one of them out")),
        _ => Ok(target),
    }
}

/// Plans, while the session process that will do it prepares itself.
async fn planned(
    global: &Global,
    signals: &mut Signals,
    planning: impl AsyncFnOnce(&Connection) -> Result<Plan, Failure>,
) -> Result<(Session, Plan), Failure> {
    if let Some(around) = environment::around_us() {
        let cause = format!("this is the shell of {around}: no other session can begin in it");
        return Err(
            Failure::new("DP-NAMESPACES", cause).hint("begin it in another terminal, outside of the session")
        );
    }
    let mut session = Session::spawn(global.verbose)?;
    let plan = async {
        let connection = connect(global).await?;
        session.prepare(api_settings(global)).await;
        planning(&connection).await
    };
    match signals.during(plan).await {
        Ok(plan) => Ok((session, plan)),
        Err(failure) => {
            session.dismiss().await;
            Err(failure)
        }
    }
}

/// The progress lines of a command that changes something, begun with what a project's file decided.
fn progress(global: &Global) -> Progress {
    let progress = Progress::new();
    for notice in &global.notices {
        progress.notice(notice);
    }
    progress
}

async fn connect(global: &Global) -> Result<Connection, Failure> {
    open(api_settings(global)).await
}

/// On a thread of its own: a login plugin blocks it for as long as it asks its user, who may leave meanwhile.
async fn open(settings: ApiSettings) -> Result<Connection, Failure> {
    let runtime = Handle::current();
    let opening = spawn_blocking(move || runtime.block_on(Connection::open(&settings)));
    Ok(opening.await.map_err(|e| Failure::new("DP-RUNTIME", e))??)
}

/// Who the Lease names: user and host of the laptop.
fn holder() -> Holder {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current())
        .ok()
        .flatten()
        .map_or_else(|| std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()), |user| user.name);
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    Holder { user, host: host.unwrap_or_else(|| "unknown".to_owned()), place: None }
}

fn form(form: EnvironmentForm) -> Form {
    match form {
        EnvironmentForm::Merged => Form::Merged,
        EnvironmentForm::Pod => Form::Pod,
    }
}

/// Prints a value for programs to stdout.
fn print<T: serde::Serialize>(value: &T, output: crate::cli::Output) -> Result<(), Failure> {
    use std::io::Write;
    let text = match output {
        crate::cli::Output::Yaml => {
            serde_yaml_ng::to_string(value).map_err(|e| Failure::new("DP-OUTPUT", e))?
        }
        _ => serde_json::to_string_pretty(value).map_err(|e| Failure::new("DP-OUTPUT", e))? + "\n",
    };
    write_stdout(&text);
    let _ = std::io::stdout().flush();
    Ok(())
}

/// Writes data to stdout. A reader that went away (`| head`) is no error.
pub(crate) fn write_stdout(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_different_namespaces_are_a_mistake_and_twice_the_same_is_none() {
        let mut global = Global {
            kubeconfig: None,
            context: None,
            namespace: Some("shop".into()),
            verbose: 0,
            namespace_typed: true,
            notices: Vec::new(),
        };
        assert_eq!(target(&global, "till/cart").unwrap_err().code, "DP-USAGE");
        assert_eq!(target(&global, "shop/cart").unwrap().name, "cart");
        assert_eq!(target(&global, "deployment/cart").unwrap().namespace, None);
        global.namespace_typed = false;
        assert_eq!(target(&global, "till/cart").unwrap().namespace.as_deref(), Some("till"));
    }
}
