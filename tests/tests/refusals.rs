//! What cannot be done is refused soon, in one line that says why, and nothing is changed.

use std::time::Duration;

use anyhow::Result;
use devproxy_tests::{App, Bed, Exit, Laptop};
use serde_json::json;

/// An API server that does not answer is given up after 10 s.
const SOON: Duration = Duration::from_secs(20);

async fn devproxy(laptop: &Laptop, words: &[&str]) -> Result<Exit> {
    laptop.devproxy(words.iter().copied())?.output(SOON).await
}

/// `words` end with `code` and print exactly `said` and nothing else.
async fn refuses(laptop: &Laptop, words: &[&str], code: i32, said: &str) -> Result<()> {
    let exit = devproxy(laptop, words).await?;
    assert_eq!((exit.code(), exit.stderr.trim_end(), exit.stdout.as_str()), (code, said, ""), "{words:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_swapped_is_refused_in_one_line() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("refusals").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    shop.deploy(App::shop("card-service").replicas(0)).await?;
    let set = json!({"app": "store"});
    shop.apply(&json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "store"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": set}, "serviceName": "store",
            "template": {"metadata": {"labels": set}, "spec": {"containers": [{"name": "store", "image": "none"}]}},
        },
    }))
    .await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let (before, namespace) = (shop.objects().await?, shop.name());

    let program = |name: &'static str| ["swap", "cart", "--", name];
    refuses(
        &laptop,
        &program("no-such-program"),
        127,
        "\
error: command not found: `no-such-program` [DP-PROGRAM-NOT-FOUND]
hint: the program is looked up in the laptop's PATH, the pod's image is not here",
    )
    .await?;
    refuses(
        &laptop,
        &program("./missing"),
        127,
        "\
error: `./missing`: No such file or directory (os error 2) [DP-PROGRAM-NOT-FOUND]",
    )
    .await?;
    laptop.write_file("data", 0o644, b"no program")?;
    refuses(
        &laptop,
        &program("./data"),
        126,
        "\
error: `./data` is not executable [DP-PROGRAM-NOT-EXECUTABLE]
hint: chmod +x ./data",
    )
    .await?;
    refuses(
        &laptop,
        &["swap", "crat", "--", "shopd"],
        125,
        &format!(
            "\
error: no Deployment `crat` in namespace `{namespace}` [DP-NOT-FOUND]
hint: did you mean `cart`"
        ),
    )
    .await?;
    refuses(
        &laptop,
        &["swap", "zzz", "--", "shopd"],
        125,
        &format!(
            "\
error: no Deployment `zzz` in namespace `{namespace}` [DP-NOT-FOUND]
hint: `kubectl get deployments -n {namespace}` lists them"
        ),
    )
    .await?;
    refuses(
        &laptop,
        &["swap", "sts/store", "--", "shopd"],
        125,
        "\
error: `store` is a StatefulSet, and only Deployments can be swapped [DP-KIND]
hint: `devproxy shell` gives the cluster's network without taking its place",
    )
    .await?;
    refuses(
        &laptop,
        &["swap", "store", "--", "shopd"],
        125,
        "\
error: `store` is a StatefulSet, and only Deployments can be swapped [DP-KIND]
hint: `devproxy shell` gives the cluster's network without taking its place",
    )
    .await?;
    refuses(
        &laptop,
        &["swap", "svc/cart", "--", "shopd"],
        125,
        "\
error: `cart` is a Service, and only Deployments can be swapped [DP-KIND]
hint: name the Deployment behind the Service: `kubectl get deployments`",
    )
    .await?;
    refuses(
        &laptop,
        &["swap", "cart", "-c", "app", "--", "shopd"],
        125,
        "\
error: cart has no container `app` [DP-CONTAINER]
hint: choose one with -c: cart",
    )
    .await?;
    refuses(
        &laptop,
        &["restore", "cart"],
        125,
        &format!(
            "\
error: no session `cart` in namespace `{namespace}` [DP-NO-SESSION]
hint: `devproxy status --all` lists the sessions"
        ),
    )
    .await?;
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_used_is_told_in_one_line() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("clusters").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    let (laptop, swap) = (bed.laptop().await?, ["swap", "cart", "--", "shopd"]);

    let config = laptop.home().join(".kube/config");
    refuses(
        &laptop,
        &swap,
        125,
        &format!(
            "\
error: the kubeconfig cannot be used: {}: No such file or directory (os error 2) [DP-KUBECONFIG]
hint: set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses",
            config.display()
        ),
    )
    .await?;

    // `view` may read the Deployment and nothing else that counts.
    laptop.login_as(&shop, "view").await?;
    let namespace = shop.name();
    refuses(&laptop, &swap, 125, &format!("\
error: user `developer` may not create leases in namespace `{namespace}` [DP-FORBIDDEN]
hint: an administrator grants it with `kubectl create rolebinding devproxy-developer --clusterrole=edit --user=developer -n {namespace}` or with deploy/rbac.yaml (needs create on leases)")).await?;

    laptop.login(&shop).await?;
    refuses(
        &laptop,
        &["--context", "bad", "swap", "cart", "--", "shopd"],
        125,
        "\
error: the kubeconfig has no context `bad` [DP-CONTEXT]
hint: did you mean `bed`",
    )
    .await?;
    let before = shop.objects().await?;
    laptop.write_kubeconfig(&laptop.kubeconfig(shop.name(), &json!({"token": "wrong"})))?;
    refuses(
        &laptop,
        &swap,
        125,
        "\
error: the API server does not accept the login: Unauthorized [DP-LOGIN]
hint: log in again, as for kubectl",
    )
    .await?;

    laptop.login(&shop).await?;
    let server = format!("https://{}", laptop.api_server());
    laptop.relay().refuse();
    let refused = devproxy(&laptop, &swap).await?;
    assert_eq!(
        refused.stderr,
        format!(
            "\
error: the API server at {server} cannot be reached: Connection refused (os error 111) [DP-UNREACHABLE]
hint: check that the cluster runs and that the VPN is up; --context selects another cluster\n"
        )
    );
    laptop.relay().resume();
    laptop.relay().stall();
    let silent = devproxy(&laptop, &swap).await?;
    assert_eq!(
        silent.stderr,
        format!(
            "\
error: the API server at {server} cannot be reached: no connection within 9 s [DP-UNREACHABLE]
hint: check that the cluster runs and that the VPN is up; --context selects another cluster\n"
        )
    );
    laptop.relay().resume();
    assert_eq!((refused.code(), silent.code()), (125, 125));
    before.require_same(&shop.objects().await?)
}
