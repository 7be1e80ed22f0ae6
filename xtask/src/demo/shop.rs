//! The shop: web asks cart, cart asks redis.

use anyhow::Result;
use devproxy_tests::{App, Bed, Namespace};
use serde_json::json;

use crate::steps::Steps;

/// The service that is swapped.
pub(super) const CART: &str = "cart";

/// Deploys it in a namespace of its own.
pub(super) async fn open(steps: &mut Steps, bed: &Bed) -> Result<Namespace> {
    steps
        .step("shop", async {
            let shop = bed.namespace("shop").await?;
            shop.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
                {
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": shop.name()},
                    "data": {"currency": "euro"},
                },
                {
                    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "payment", "namespace": shop.name()},
                    "stringData": {"key": "not-on-disk"},
                },
            ]}))
            .await?;
            let cart = App::shop(CART)
                .replicas(2)
                .env("VERSION", "cluster")
                .env("COLOUR", "green")
                .volume("settings", "/etc/shop", json!({"configMap": {"name": "settings"}}))
                .volume("payment", "/var/run/payment", json!({"secret": {"secretName": "payment"}}));
            tokio::try_join!(
                shop.deploy(App::redis("redis")),
                shop.deploy(cart),
                shop.deploy(App::shop("web")),
                async { shop.client().await.map(|_| ()) },
            )?;
            let said = format!("redis, cart (2 pods), web in namespace {}", shop.name());
            Ok((shop, said))
        })
        .await
}
