//! What the session and the requests on its control socket have in common.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use devproxy_cluster::Plan;
use tokio::sync::{Notify, watch};

use crate::{
    Failure,
    session::{
        outlet::Outlet,
        protocol::{Event, SCHEMA, ShellEntrance, Status},
    },
};

/// State that requests read and change.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Events to all listeners.
    pub outlet: Outlet,
    /// The way in, once there is one.
    pub entrance: watch::Sender<Option<ShellEntrance>>,
    /// A reason to look whether the stand-in is still there.
    pub look: Arc<Notify>,
    /// Who asked for the end.
    pub(super) ending: watch::Sender<Option<Ending>>,
    status: Arc<Mutex<Status>>,
}

impl Shared {
    pub(super) fn new(plan: &Plan) -> Self {
        let status = Status {
            schema: SCHEMA,
            id: plan.session.clone(),
            namespace: plan.namespace.clone(),
            name: plan
                .original
                .as_ref()
                .map_or_else(|| plan.stand_in_name.clone(), |original| original.name.clone()),
            phase: "starting".to_owned(),
            pod: None,
            silence: None,
            rescaled: None,
            program: None,
            round_trip: None,
            reconnects: 0,
            ports: BTreeMap::new(),
        };
        Self {
            outlet: Outlet::default(),
            entrance: watch::channel(None).0,
            look: Arc::default(),
            ending: watch::channel(None).0,
            status: Arc::new(Mutex::new(status)),
        }
    }

    /// Changes what `devproxy status` says.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells why the session cannot go on.
    pub async fn fail(&self, failure: Failure) {
        self.outlet.send(|| Event::Failed(failure.clone())).await;
    }

    /// From now on programs may enter.
    pub async fn open(&self, entrance: ShellEntrance, phase: &str) {
        self.update(|status| phase.clone_into(&mut status.phase));
        self.entrance.send_replace(Some(entrance.clone()));
        self.outlet.send(|| Event::Shell(Box::new(entrance.clone()))).await;
    }

    /// Resolves when the end was asked for: by whom. Cancel-safe.
    pub async fn asked_to_end(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        // The sender lives in `self`.
        ending.wait_for(Option::is_some).await.ok().and_then(|ending| *ending).unwrap_or(Ending::Terminal)
    }

    /// The first who asks is the one.
    pub(super) fn end(&self, by: Ending) {
        self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            ending.get_or_insert(by);
            first
        });
    }
}

/// Who asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The terminal process, or its death.
    Terminal,
    /// `devproxy restore` in another terminal.
    Restore,
    /// SIGTERM to the session process.
    Terminated,
}

impl Ending {
    /// What the terminal process has to say of it, whose program is ended with the session.
    pub fn failure(self) -> Option<Failure> {
        let by = match self {
            Self::Terminal => return None,
            Self::Restore => "`devproxy restore`",
            Self::Terminated => "SIGTERM",
        };
        Some(Failure::new("DP-SESSION-ENDED", format!("the session was ended by {by}")))
    }
}
