//! A test's own part of the cluster, deleted with the test.

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::app::App;
use crate::bed::{RUN_LABEL, blocking, run_label};
use crate::cluster::Cluster;
use crate::host::process::{ProcessId, find_all};
use crate::host::program::{output, output_with_input};
use crate::images::Image;
use crate::load::LoadBuilder;
use crate::objects::Objects;

/// How long a Deployment may take to be ready.
const READY: Duration = Duration::from_secs(90);
/// The pod from which [`Namespace::ask`] asks.
const CLIENT: &str = "client";

/// A pod's addresses of both families, IPv4 first.
pub fn pod_addresses(pod: &Value) -> Result<[IpAddr; 2]> {
    both_families(|family| &pod["status"]["podIPs"][family]["ip"])
}

fn both_families<'a>(address: impl Fn(usize) -> &'a Value) -> Result<[IpAddr; 2]> {
    let of = |family| -> Result<IpAddr> { Ok(address(family).as_str().context("no address")?.parse()?) };
    Ok([of(0)?, of(1)?])
}

/// A namespace. Dropping it deletes it, without waiting.
#[derive(Debug)]
pub struct Namespace {
    cluster: Arc<Cluster>,
    name: String,
    client: OnceCell<()>,
}

impl Namespace {
    pub(crate) async fn create(cluster: Arc<Cluster>, name: String) -> Result<Self> {
        let label = run_label()?;
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {RUN_LABEL: label}},
        });
        let namespace = Self { cluster, name, client: OnceCell::new() };
        namespace.apply(&manifest).await?;
        // Pods cannot be made before it exists.
        namespace
            .until("its default service account", Duration::from_secs(30), async || {
                namespace.kubectl(["get", "serviceaccount", "default"]).await.is_ok()
            })
            .await?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is part of.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// kubectl in this namespace, with all rights; gives what it printed.
    pub async fn kubectl<A: Into<String>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command();
        command.args(args.into_iter().map(Into::into));
        blocking(move || output(&mut command)).await
    }

    /// `kubectl get … -o json`.
    pub async fn get<A: Into<String>>(&self, args: impl IntoIterator<Item = A>) -> Result<Value> {
        let words = args.into_iter().map(Into::into);
        let words = ["get".to_owned()].into_iter().chain(words).chain(["-o".into(), "json".into()]);
        let text = self.kubectl(words).await?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// A Service's addresses of both families, IPv4 first.
    pub async fn service_addresses(&self, service: &str) -> Result<[IpAddr; 2]> {
        let service = self.get(["service", service]).await?;
        both_families(|family| &service["spec"]["clusterIPs"][family])
    }

    /// The processes of all agents here.
    pub async fn agents(&self) -> Result<Vec<ProcessId>> {
        let pods = self.get(["pods", "--selector", "devproxy.dev/session"]).await?;
        let pods = pods["items"].as_array().context("no list of pods")?;
        let uids: Vec<_> = pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
        let mut agents = find_all(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|groups| uids.iter().any(|uid| groups.contains(uid)))
        });
        agents.retain(|process| {
            process.words().first().is_some_and(|program| program.ends_with("devproxy-agent"))
        });
        Ok(agents)
    }

    /// Applies an object, or a List of them.
    pub async fn apply(&self, manifest: &Value) -> Result<()> {
        self.apply_text(&manifest.to_string()).await
    }

    /// Applies YAML.
    pub async fn apply_text(&self, manifest: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["apply", "-f", "-"]);
        let manifest = manifest.as_bytes().to_vec();
        blocking(move || output_with_input(&mut command, &manifest)).await?;
        Ok(())
    }

    /// Deploys `app` and waits until all its pods are ready and in its Service.
    pub async fn deploy(&self, app: App) -> Result<()> {
        let name = app.name.clone();
        self.start(app).await?;
        self.ready(&name).await
    }

    /// Deploys `app` and waits for nothing.
    pub async fn start(&self, app: App) -> Result<()> {
        let (cluster, image) = (Arc::clone(&self.cluster), app.image);
        blocking(move || cluster.provide(image)).await?;
        self.apply(&app.manifest()).await
    }

    /// Waits until the Deployment `name` is ready.
    pub async fn ready(&self, name: &str) -> Result<()> {
        let limit = format!("--timeout={}s", READY.as_secs());
        let rolled = self.kubectl(["rollout", "status", &format!("deployment/{name}"), &limit]).await;
        if let Err(error) = rolled {
            let pods = self.kubectl(["get", "pods", "-o", "wide"]).await.unwrap_or_default();
            let events =
                self.kubectl(["get", "events", "--sort-by=.lastTimestamp"]).await.unwrap_or_default();
            bail!("{name} is not ready: {error}\n{pods}\n{events}");
        }
        Ok(())
    }

    /// Waits until every pod behind `name` is the stand-in's: the handover takes the original away, whose pods may
    /// answer until all proxies know and they have drained.
    pub async fn until_swapped(&self, name: &str) -> Result<()> {
        let pods = ["get", "pods", "-o", "name", &format!("--selector=app={name}")].map(str::to_owned);
        self.until("the original's end", READY, async || {
            self.kubectl(pods.clone())
                .await
                .is_ok_and(|names| !names.is_empty() && names.lines().all(|pod| pod.contains("-devproxy-")))
        })
        .await
    }

    /// Runs a program in a pod, told as kubectl takes it (`deployment/cart`, `pod-name`), and gives what it printed.
    pub async fn exec<A: Into<String>>(
        &self,
        pod: &str,
        words: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let all = ["exec", pod, "--"].into_iter().map(str::to_owned).chain(words.into_iter().map(Into::into));
        self.kubectl(all).await
    }

    /// Asks `url` from a pod of its own inside the cluster and gives the body; another status than 200 is an error.
    pub async fn ask(&self, url: &str) -> Result<String> {
        self.exec(self.client().await?, ["shopd", "ask", url]).await
    }

    /// The pod, named `client`, from which [`Namespace::ask`] asks; it has a shell and busybox.
    pub async fn client(&self) -> Result<&'static str> {
        self.client.get_or_try_init(|| self.run_pod(CLIENT, Image::Shop, &["shopd", "pause"])).await?;
        Ok(CLIENT)
    }

    /// Runs `words` in a pod named `name` that is never started again, and waits until it runs.
    pub async fn run_pod(&self, name: &str, image: Image, words: &[&str]) -> Result<()> {
        let cluster = Arc::clone(&self.cluster);
        blocking(move || cluster.provide(image)).await?;
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": false,
                // A load opens more connections in a minute than the default range has ports.
                "securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1024 65000"}]},
                "containers": [{
                    "name": name, "image": image.reference(), "imagePullPolicy": "IfNotPresent", "command": words,
                }],
            },
        });
        self.apply(&pod).await?;
        let limit = format!("--timeout={}s", READY.as_secs());
        self.kubectl(["wait", "--for=condition=Ready", &format!("pod/{name}"), &limit]).await?;
        Ok(())
    }

    /// Requests to `url` from inside the cluster, counted.
    pub fn load(&self, url: &str) -> LoadBuilder<'_> {
        LoadBuilder::new(self, url)
    }

    /// All objects, to compare with those of later.
    pub async fn objects(&self) -> Result<Objects> {
        Objects::of(self).await
    }

    /// Waits until `is_so` says yes; asks it ten times a second.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut is_so: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        while !is_so().await {
            if tokio::time::Instant::now() > deadline {
                bail!("{what} did not come true in namespace {} within {limit:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Deletes it and waits until it is gone.
    pub async fn delete(self) -> Result<()> {
        self.kubectl(["delete", "namespace", &self.name, "--timeout=120s", "--ignore-not-found"]).await?;
        Ok(())
    }

    /// A token of the developer with the ClusterRole `role` in this namespace only.
    pub async fn developer_token(&self, role: &str) -> Result<String> {
        self.account_token(&format!("developer-{role}"), "ClusterRole", role).await
    }

    /// A token of a ServiceAccount, made when first asked for, to which `role` of this kind is bound here.
    pub(crate) async fn account_token(&self, account: &str, kind: &str, role: &str) -> Result<String> {
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": self.name}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": account, "namespace": self.name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
            },
        ]}))
        .await?;
        let token = self.kubectl(["create", "token", account, "--duration=12h"]).await?;
        Ok(token.trim().to_owned())
    }

    fn command(&self) -> Command {
        let mut command = self.cluster.kubectl().command();
        command.arg("--namespace").arg(&self.name);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = self
            .command()
            .args(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !deleted.is_ok_and(|status| status.success()) {
            // The next run deletes it, by its label.
            eprintln!("namespace {} could not be deleted", self.name);
        }
    }
}
