//! The connection: context, namespace and kubeconfig as kubectl has them. Proxies, exec plugins and the renewal of
//! tokens are kube's.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::future::join_all;
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::ConfigExt,
    config::{KubeConfigOptions, KubeconfigError},
};
use serde::{Deserialize, Serialize};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::{
    ClusterError, carrier,
    kubeconfig::{kubeconfig, namespaces},
    read_ahead::ReadAhead,
    target::nearest,
};

/// An API server that does not take a connection for so long counts as unreachable. Shorter than the wait for any
/// answer, so that it is known which of them ended.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(9);

/// What the user said about the cluster; kubectl's `--kubeconfig`, `--context`, `--namespace`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ApiSettings {
    /// Instead of `$KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Instead of the current context.
    pub context: Option<String>,
    /// Instead of the context's namespace.
    pub namespace: Option<String>,
}

/// A client of one cluster, and the namespace it works in.
#[derive(Clone)]
pub struct Connection {
    /// kube's client; cheap to clone.
    pub client: Client,
    /// Where names without a namespace are looked up.
    pub namespace: String,
    /// Name of the context; empty inside a cluster.
    pub context: String,
    /// Address of the API server.
    pub cluster_url: String,
    /// Name of the login in the kubeconfig: a best effort, the server may call it otherwise.
    pub user: String,
    /// The namespaces that the kubeconfig's contexts of this cluster name.
    pub(crate) namespaces: Arc<[String]>,
    /// What its carriers learnt.
    pub(crate) carriers: Arc<carrier::Known>,
}

impl Connection {
    /// Reads the settings. No network: errors of the connection come from the first request. Needs a tokio runtime.
    pub async fn open(settings: &ApiSettings) -> Result<Self, ClusterError> {
        let unusable = |error: KubeconfigError| ClusterError::Kubeconfig {
            message: match error {
                KubeconfigError::ReadConfig(cause, file) => format!("{}: {cause}", file.display()),
                // The YAML parser draws the line below its words.
                other => {
                    other.to_string().lines().next().unwrap_or_default().replace("YAML: error:", "YAML:")
                }
            },
        };
        let kubeconfig = kubeconfig(settings);
        let (mut config, context, user, namespaces) = match kubeconfig {
            Ok(kubeconfig) => {
                let context = settings.context.clone().or_else(|| kubeconfig.current_context.clone());
                let name = context.clone().unwrap_or_default();
                let named = kubeconfig.contexts.iter().find(|named| named.name == name);
                if named.is_none() && context.is_some() {
                    let all = kubeconfig.contexts.iter().map(|named| named.name.clone());
                    return Err(ClusterError::Context { nearest: nearest(&name, all), context: name });
                }
                let user = named.and_then(|named| named.context.as_ref()?.user.clone()).unwrap_or_default();
                let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
                let namespaces = namespaces(&kubeconfig, named);
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)?;
                // Whoever impersonates (`as:` in the kubeconfig) has the other one's rights.
                let user = config.auth_info.impersonate.clone().unwrap_or(user);
                (config, name, user, namespaces)
            }
            // Inside a pod there is no kubeconfig but a ServiceAccount: kubectl uses it too.
            Err(error) => match Config::incluster() {
                Ok(config) if settings.kubeconfig.is_none() && settings.context.is_none() => {
                    (config, String::new(), "serviceaccount".to_owned(), Vec::new())
                }
                _ => return Err(unusable(error)),
            },
        };
        config.connect_timeout = Some(CONNECT_LIMIT);
        // kube's own retries of 429 and 5xx would outlast our limits; what may be repeated, we repeat.
        config.default_retry = false;
        let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let cluster_url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client =
            client(config).map_err(|error| ClusterError::Kubeconfig { message: error.to_string() })?;
        let (namespaces, carriers) = (namespaces.into(), Arc::default());
        Ok(Self { client, namespace, context, cluster_url, user, namespaces, carriers })
    }

    /// The same connection in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// Whether the login is that of the pod around us.
    pub fn is_of_pod(&self) -> bool {
        self.context.is_empty()
    }

    /// Those that the kubeconfig names and that ours, which it does not name, may be a misspelling of.
    pub(crate) fn similar_namespaces(&self) -> Vec<String> {
        if self.namespaces.contains(&self.namespace) {
            return Vec::new();
        }
        nearest(&self.namespace, self.namespaces.iter().cloned())
    }

    /// Opens so many connections ahead of the requests that will be sent at once: each costs two round trips, and what
    /// waits for it is a person. Whatever goes wrong here, the requests themselves will tell.
    pub async fn warm(&self, connections: usize) {
        join_all((0..connections).map(|_| self.client.apiserver_version())).await;
    }
}

/// kube's client, but without Nagle's algorithm: a request after the last word of the TLS handshake, and each small
/// frame of a port-forward, would wait for the acknowledgement of what was sent before (40 ms where it is delayed).
fn client(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // The connection to a proxy is kube's own affair.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tcp = tcp.map_response(ReadAhead::new);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{convert::Infallible, fs, path::Path};

    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A connection to an API server that is a function of method, path with query, and body.
    pub(crate) fn answered(
        by: impl Fn(&str, &str, Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Connection {
        let by = Arc::new(by);
        let server = tower::service_fn(move |request: http::Request<Body>| {
            let by = Arc::clone(&by);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (status, answer) = by(head.method.as_str(), &head.uri.to_string(), body);
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(http::Response::builder().status(status).body(answer).unwrap())
            }
        });
        Connection {
            client: Client::new(server, "shop"),
            namespace: "shop".into(),
            context: String::new(),
            cluster_url: String::new(),
            user: "ann".into(),
            namespaces: [].into(),
            carriers: Arc::default(),
        }
    }

    /// The API server's form of a failure.
    pub(crate) fn refusal(status: u16, reason: &str) -> Value {
        json!({"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": ""})
    }

    fn kubeconfig(folder: &Path) -> PathBuf {
        let path = folder.join("config");
        let text = r#"
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: ann, user: {token: t}}]
contexts:
- {name: staging, context: {cluster: c, user: ann, namespace: shop}}
- {name: plain, context: {cluster: c, user: ann}}
current-context: staging
"#;
        fs::write(&path, text).unwrap();
        path
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("devproxy-cluster-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn settings_mean_what_they_mean_to_kubectl() {
        let folder = folder("settings");
        let kubeconfig = Some(kubeconfig(&folder));
        let settings = ApiSettings { kubeconfig, ..ApiSettings::default() };
        let current = Connection::open(&settings).await.unwrap();
        assert_eq!((current.namespace.as_str(), current.context.as_str()), ("shop", "staging"));
        assert_eq!((current.user.as_str(), current.cluster_url.as_str()), ("ann", "https://127.0.0.1:1"));

        let context = Some("plain".to_owned());
        let plain = Connection::open(&ApiSettings { context, ..settings.clone() }).await.unwrap();
        assert_eq!(plain.namespace, "default");

        let namespace = Some("other".to_owned());
        let other = Connection::open(&ApiSettings { namespace, ..settings }).await.unwrap();
        assert_eq!(other.namespace, "other");
        fs::remove_dir_all(folder).unwrap();
    }

    /// The session process runs all of this on a multi-threaded runtime.
    #[test]
    fn everything_may_run_on_another_thread() {
        fn of<T: Send>(_: fn(&'static Connection) -> T) {}
        of(|connection| Box::pin(crate::portforward(connection, "pod", 1, crate::Purpose::Bulk)));
        of(|connection| Box::pin(crate::sessions(connection, true)));
        of(|connection| Box::pin(crate::find_session(connection, "cart")));
    }

    #[expect(dead_code, reason = "compiled, never run")]
    fn the_futures_of_a_swap_are_send(
        connection: &Connection,
        swap: &mut crate::Swap,
        settings: &crate::SwapSettings,
        agents: &crate::Agents<'_>,
        hook: &mut dyn crate::SpliceHook,
    ) {
        fn send<T: Send>(_: T) {}
        send(crate::plan(connection, settings));
        send(swap.prepare(agents, &[], async {}));
        send(swap.handover());
        send(swap.undo(Some(hook)));
    }

    #[tokio::test]
    async fn an_unknown_context_names_the_nearest() {
        let folder = folder("context");
        let settings = ApiSettings {
            kubeconfig: Some(kubeconfig(&folder)),
            context: Some("stagin".into()),
            namespace: None,
        };
        let error = Connection::open(&settings).await.err().unwrap();
        assert_eq!(error.code(), "DP-CONTEXT");
        assert_eq!(error.hint().as_deref(), Some("did you mean `staging`"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_told() {
        let kubeconfig = Some(PathBuf::from("/nonexistent/config"));
        let error =
            Connection::open(&ApiSettings { kubeconfig, ..ApiSettings::default() }).await.err().unwrap();
        assert_eq!(error.code(), "DP-KUBECONFIG");
        let cause =
            "the kubeconfig cannot be used: /nonexistent/config: No such file or directory (os error 2)";
        assert_eq!(error.to_string(), cause);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let folder = folder("unreachable");
        let settings = ApiSettings { kubeconfig: Some(kubeconfig(&folder)), ..ApiSettings::default() };
        let connection = Connection::open(&settings).await.unwrap();
        let error =
            crate::resource::Objects::new(&connection, crate::resource::Kind::Pod).get("x").await.err();
        assert_eq!(error.unwrap().code(), "DP-UNREACHABLE");
        fs::remove_dir_all(folder).unwrap();
    }
}
