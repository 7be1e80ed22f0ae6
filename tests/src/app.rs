//! What tests deploy: a Deployment and its Service, said in a line and changed where a test needs it.

use serde_json::{Value, json};

use crate::images::Image;

/// An application under construction.
#[derive(Debug, Clone)]
pub struct App {
    pub(crate) name: String,
    pub(crate) image: Image,
    replicas: u32,
    container: Value,
    pod: Value,
    ports: Vec<Port>,
    service: Option<Value>,
}

#[derive(Debug, Clone)]
struct Port {
    name: String,
    number: u16,
    protocol: &'static str,
}

impl App {
    /// An application of `image` with one replica, no port and no Service.
    pub fn of(image: Image, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image,
            replicas: 1,
            container: json!({
                "name": name,
                "image": image.reference(),
                "imagePullPolicy": "IfNotPresent",
                "env": [],
            }),
            pod: json!({"terminationGracePeriodSeconds": 30}),
            ports: Vec::new(),
            service: None,
        }
    }

    /// `shopd` as a server on port 8080 that drains, beside a shell. Its paths are told in `tests/shopd/src/answers.rs`.
    pub fn shop(name: &str) -> Self {
        Self::shop_of(Image::Shop, name)
    }

    /// `shopd` on a host port, which is there once per node: two of its pods never run together. Also the port.
    pub fn shop_on_host_port(name: &str) -> (Self, u32) {
        let port = 20_000 + std::process::id() % 10_000;
        let ports = json!([{"name": "http", "containerPort": 8080, "hostPort": port}]);
        let app = Self::of(Image::Shop, name).env("NAME", name).env("DRAIN", "1");
        (app.container(json!({"ports": ports})), port)
    }

    /// The same as [`App::shop`] from an image that holds nothing else.
    pub fn bare_shop(name: &str) -> Self {
        Self::shop_of(Image::ShopBare, name)
    }

    /// Redis on port 6379.
    pub fn redis(name: &str) -> Self {
        let probe = json!({"tcpSocket": {"port": 6379}, "periodSeconds": 1});
        Self::of(Image::Redis, name).port("redis", 6379).container(json!({"readinessProbe": probe}))
    }

    /// PostgreSQL on port 5432, user `postgres`, everybody trusted.
    pub fn postgres(name: &str) -> Self {
        let probe = json!({"tcpSocket": {"port": 5432}, "periodSeconds": 1});
        Self::of(Image::Postgres, name).port("postgres", 5432).container(json!({"readinessProbe": probe}))
    }

    fn shop_of(image: Image, name: &str) -> Self {
        let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1});
        Self::of(image, name).port("http", 8080).env("NAME", name).container(json!({"readinessProbe": probe}))
    }

    /// How many pods.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// A variable of the container.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.variable(json!({"name": name, "value": value}))
    }

    /// A variable as the API has it, such as `{"name": …, "valueFrom": …}`.
    #[must_use]
    pub fn variable(mut self, variable: Value) -> Self {
        if let Some(all) = self.container["env"].as_array_mut() {
            all.push(variable);
        }
        self
    }

    /// A TCP port of container and Service.
    #[must_use]
    pub fn port(self, name: &str, number: u16) -> Self {
        self.any_port(name, number, "TCP")
    }

    /// A UDP port of container and Service.
    #[must_use]
    pub fn udp_port(self, name: &str, number: u16) -> Self {
        self.any_port(name, number, "UDP")
    }

    /// Seconds that `shopd` serves on after SIGTERM; 0 dies at once.
    #[must_use]
    pub fn drain(self, seconds: u32) -> Self {
        self.env("DRAIN", &seconds.to_string())
    }

    /// Replaces the image's entry point.
    #[must_use]
    pub fn command<const N: usize>(self, words: [&str; N]) -> Self {
        self.container(json!({"command": words.to_vec()}))
    }

    /// Arguments of the entry point.
    #[must_use]
    pub fn args<const N: usize>(self, words: [&str; N]) -> Self {
        self.container(json!({"args": words.to_vec()}))
    }

    /// Merges into the container (RFC 7386: objects merge, all else is replaced, null removes).
    #[must_use]
    pub fn container(mut self, patch: Value) -> Self {
        merge(&mut self.container, patch);
        self
    }

    /// Merges into the pod's spec, as [`App::container`].
    #[must_use]
    pub fn pod(mut self, patch: Value) -> Self {
        merge(&mut self.pod, patch);
        self
    }

    /// Merges into the Service's spec, as [`App::container`].
    #[must_use]
    pub fn service(mut self, patch: Value) -> Self {
        merge(self.service.get_or_insert_with(|| json!({})), patch);
        self
    }

    /// Files of a ConfigMap, Secret or anything else at `path`: `source` as a volume has it, such as
    /// `{"configMap": {"name": "settings"}}`.
    #[must_use]
    pub fn volume(mut self, name: &str, path: &str, source: Value) -> Self {
        let mut volume = source;
        volume["name"] = json!(name);
        push(&mut self.pod, "volumes", volume);
        push(&mut self.container, "volumeMounts", json!({"name": name, "mountPath": path}));
        self
    }

    /// A further container, as the API has it.
    #[must_use]
    pub fn sidecar(mut self, container: Value) -> Self {
        push(&mut self.pod, "containers", container);
        self
    }

    /// What Pod Security `restricted` asks for, with a user that no image knows.
    #[must_use]
    pub fn restricted(self) -> Self {
        self.pod(json!({"securityContext": {
            "runAsNonRoot": true, "runAsUser": 1_234_567, "seccompProfile": {"type": "RuntimeDefault"},
        }}))
        .container(json!({"securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        }}))
    }

    /// The Deployment, and the Service if there are ports.
    pub fn manifest(&self) -> Value {
        let mut items = vec![self.deployment()];
        if !self.ports.is_empty() {
            items.push(self.service_object());
        }
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    fn deployment(&self) -> Value {
        let labels = json!({"app": self.name});
        let mut container = self.container.clone();
        if !self.ports.is_empty() {
            container["ports"] = self
                .ports
                .iter()
                .map(|port| json!({"name": port.name, "containerPort": port.number, "protocol": port.protocol}))
                .collect();
        }
        let mut pod = self.pod.clone();
        let mut containers = vec![container];
        containers.extend(pod["containers"].as_array().cloned().unwrap_or_default());
        pod["containers"] = containers.into();
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        })
    }

    fn service_object(&self) -> Value {
        let ports: Value = self
            .ports
            .iter()
            .map(|port| {
                json!({
                    "name": port.name, "port": port.number, "targetPort": port.name, "protocol": port.protocol,
                })
            })
            .collect();
        let mut spec =
            json!({"selector": {"app": self.name}, "ports": ports, "ipFamilyPolicy": "PreferDualStack"});
        if let Some(patch) = &self.service {
            merge(&mut spec, patch.clone());
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name}, "spec": spec})
    }

    fn any_port(mut self, name: &str, number: u16, protocol: &'static str) -> Self {
        self.ports.push(Port { name: name.to_owned(), number, protocol });
        self
    }
}

fn push(object: &mut Value, list: &str, item: Value) {
    if let Some(items) = object[list].as_array_mut() {
        items.push(item);
    } else {
        object[list] = json!([item]);
    }
}

fn merge(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                if value.is_null() {
                    if let Some(object) = target.as_object_mut() {
                        object.remove(&name);
                    }
                } else {
                    merge(&mut target[name.as_str()], value);
                }
            }
        }
        other => *target = other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_merges_objects_replaces_values_and_removes_by_null() {
        let app = App::shop("cart")
            .container(json!({"readinessProbe": null, "resources": {"limits": {"cpu": "1"}}}))
            .container(json!({"resources": {"limits": {"memory": "1Gi"}}}));
        let manifest = app.manifest();
        let container = &manifest["items"][0]["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container.get("readinessProbe"), None);
        assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
    }
}
