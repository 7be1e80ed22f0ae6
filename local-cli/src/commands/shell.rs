//! `devproxy shell`: the cluster's network without taking anyone's place.

use std::time::Instant;

use devproxy_cluster::{ShellSettings, shell_plan};

use super::swap;
use crate::{
    Failure,
    cli::{Global, Shell},
    session::process::Start,
    terminal::{self, Signals},
};

pub(super) async fn run(global: &Global, shell: Shell, signals: &mut Signals) -> Result<u8, Failure> {
    if let Some(like) = &shell.like {
        super::target(global, like)?;
    }
    let options = swap::options(&shell.session)?;
    let program = swap::program(&shell.session)?;
    let settings = ShellSettings {
        like: shell.like,
        agent_image: shell.session.agent_image.clone(),
        holder: super::holder(),
    };
    let progress = super::progress(global);
    let since = Instant::now();
    progress.begun("plan");
    let planning = async |connection: &_| Ok(shell_plan(connection, &settings).await?);
    let (session, plan) = super::planned(global, signals, planning).await?;
    progress.done("plan", &format!("1 pod in {}, nobody's place is taken", plan.namespace), since.elapsed());
    for warning in &plan.warnings {
        progress.warning(&warning.text);
    }
    let start = Start { api: super::api_settings(global), plan, options, verbose: global.verbose };
    terminal::run(session, start, &program, &progress, since, signals).await
}
