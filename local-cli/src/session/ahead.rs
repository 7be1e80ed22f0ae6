//! What the session process does while the terminal process still plans: all that changes nothing.

use std::{net::IpAddr, path::Path};

use devproxy_cluster::{ApiSettings, ClusterError, Connection};
use devproxy_namespaces::{Namespaces, Spec};
use tokio::{sync::oneshot, task::JoinSet};

use crate::Failure;

/// Requests that the session sends at once: three creations, and the look at the pods.
const CONNECTIONS: usize = 4;

/// Work that has begun. Dropping it ends it.
pub struct Ahead {
    namespaces: Option<oneshot::Receiver<Result<(), Failure>>>,
    connection: Option<oneshot::Receiver<Result<Connection, ClusterError>>>,
    tasks: JoinSet<()>,
}

impl Ahead {
    /// Makes and drops namespaces: the kernel's refusal comes before anything changes in the cluster.
    pub fn begin() -> Self {
        let mut tasks = JoinSet::new();
        let (tried, namespaces) = oneshot::channel();
        tasks.spawn(async move {
            let addresses = vec![IpAddr::from([192, 0, 2, 1])];
            let spec = Spec { hostname: "devproxy".to_owned(), addresses, mtu: 1500 };
            let _ = tried.send(Namespaces::create(helper(), &spec).await.map(drop).map_err(Failure::from));
        });
        Self { namespaces: Some(namespaces), connection: None, tasks }
    }

    /// Connects to the API server. Not before the terminal process has: a login plugin asks its user once.
    pub fn connect(&mut self, api: ApiSettings) {
        let (opened, connection) = oneshot::channel();
        self.connection = Some(connection);
        self.tasks.spawn(async move {
            let connection = Connection::open(&api).await;
            let warming = connection.as_ref().ok().cloned();
            let _ = opened.send(connection);
            if let Some(connection) = warming {
                connection.warm(CONNECTIONS).await;
            }
        });
    }

    /// The connection, if the kernel does not refuse namespaces. What is still being warmed goes on.
    pub async fn done(&mut self, api: &ApiSettings) -> Result<Connection, Failure> {
        if let Some(tried) = self.namespaces.take() {
            tried.await.unwrap_or(Ok(()))?;
        }
        let opened = match self.connection.take() {
            Some(opened) => opened.await.ok(),
            None => None,
        };
        Ok(match opened {
            Some(opened) => opened?,
            None => Connection::open(api).await?,
        })
    }
}

/// This program; it becomes the namespace helper by its first argument.
pub fn helper() -> &'static Path {
    Path::new("/proc/self/exe")
}
