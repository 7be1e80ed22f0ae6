//! EndpointSlices: whether a pod's address is reached through a Service.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use serde_json::Value;

use crate::{
    ClusterError, Connection,
    json::{list, text},
    resource::{Kind, Objects},
    wait::{Seen, until},
};

/// Label with the Service's name on its slices.
const SERVICE: &str = "kubernetes.io/service-name";

/// Waits until each of `services` leads to all of `addresses`; `false` when the limit passed first.
///
/// A Service has one slice per address family, and a pod may have addresses of families that the Service lacks: each
/// pod counts as reached by any one of its addresses.
pub(crate) async fn await_present(
    connection: &Connection,
    services: &[String],
    pods: &[Vec<IpAddr>],
    limit: Duration,
) -> Result<bool, ClusterError> {
    await_all(connection, services, limit, |ready| {
        pods.iter().all(|addresses| addresses.iter().any(|address| ready.contains(address)))
    })
    .await
}

/// Waits until none of `services` leads to any of `addresses`; `false` when the limit passed first.
pub(crate) async fn await_absent(
    connection: &Connection,
    services: &[String],
    addresses: &[IpAddr],
    limit: Duration,
) -> Result<bool, ClusterError> {
    await_all(connection, services, limit, |ready| !addresses.iter().any(|address| ready.contains(address)))
        .await
}

async fn await_all(
    connection: &Connection,
    services: &[String],
    limit: Duration,
    holds: impl Fn(&BTreeSet<IpAddr>) -> bool,
) -> Result<bool, ClusterError> {
    if services.is_empty() {
        return Ok(true);
    }
    let slices = Objects::new(connection, Kind::EndpointSlice);
    let selector = format!("{SERVICE} in ({})", services.join(","));
    let all = |seen: &Seen| services.iter().all(|service| holds(&ready(seen, service))).then_some(());
    Ok(until(&slices, &selector, limit, all).await?.is_some())
}

/// The addresses to which a Service leads now.
fn ready(seen: &Seen, service: &str) -> BTreeSet<IpAddr> {
    seen.values()
        .filter(|slice| {
            slice.pointer("/metadata/labels").and_then(|labels| labels.get(SERVICE)?.as_str())
                == Some(service)
        })
        .flat_map(|slice| list(slice, "/endpoints"))
        // Absent means "unknown", which the API tells consumers to take for ready.
        .filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)))
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect()
}

/// The addresses of pods, one list per pod.
pub(crate) fn addresses_by_pod<'a>(pods: impl IntoIterator<Item = &'a Value>) -> Vec<Vec<IpAddr>> {
    pods.into_iter().map(crate::pod::addresses).filter(|addresses| !addresses.is_empty()).collect()
}

/// Whether an object is still on its way out.
pub(crate) fn is_leaving(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_addresses_of_the_service_count() {
        let slice = |service: &str, address: &str, ready: &Value| {
            json!({"metadata": {"labels": {SERVICE: service}},
                   "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}]})
        };
        let seen: Seen = [
            slice("cart", "10.0.0.1", &json!(true)),
            slice("cart", "10.0.0.2", &json!(false)),
            slice("cart", "fd00::1", &Value::Null),
            slice("other", "10.0.0.3", &json!(true)),
        ]
        .into_iter()
        .enumerate()
        .map(|(index, slice)| (index.to_string(), slice))
        .collect();
        let expected: BTreeSet<IpAddr> =
            ["10.0.0.1", "fd00::1"].iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(ready(&seen, "cart"), expected);
    }
}
