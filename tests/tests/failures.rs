//! Whatever stops a session on its way: one line of cause, and everything as before.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::laptop::Snapshot;
use devproxy_tests::{App, Bed, Exit, Image, Laptop, Namespace, Objects};
use nix::sys::signal::Signal;
use serde_json::json;

/// From Enter to the handover, with a pod to be started on a busy machine.
const SWAP: Duration = Duration::from_mins(1);
/// From the end of the program, or from the failure, to our end.
const RESTORE: Duration = Duration::from_mins(2);

/// A namespace with `cart` in it, a laptop, and how both were before.
struct Place {
    shop: Namespace,
    laptop: Laptop,
    before: Objects,
    machine: Snapshot,
}

impl Place {
    async fn open(bed: &Bed, purpose: &str, app: App) -> Result<Self> {
        let shop = bed.namespace(purpose).await?;
        shop.deploy(app).await?;
        let laptop = bed.laptop().await?;
        laptop.login(&shop).await?;
        // The program is put on the laptop by its first use.
        laptop.devproxy(["--version"])?.output(SWAP).await?.success()?;
        let (before, machine) = (shop.objects().await?, laptop.snapshot()?);
        Ok(Self { shop, laptop, before, machine })
    }

    async fn swap(&self) -> Result<Exit> {
        self.laptop.devproxy(["swap", "cart", "--", "shopd"])?.output(SWAP + RESTORE).await
    }

    /// Namespace and laptop are as before.
    async fn require_untouched(&self) -> Result<()> {
        self.shop.ready("cart").await?;
        self.before.require_same(&self.shop.objects().await?)?;
        self.machine.require_same(&self.laptop.snapshot()?)
    }
}

/// A policy of the API server that denies one request of the plan in one namespace. Dropping it deletes it.
struct Denial<'a> {
    shop: &'a Namespace,
}

impl<'a> Denial<'a> {
    /// Returns when it is in force.
    async fn of(shop: &'a Namespace, denied: &str) -> Result<Self> {
        let name = shop.name();
        let denial = Self { shop };
        // Another probe for each request: the policy before this one may be in force still.
        let probe = format!(
            "probe-{}",
            denied.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte))
        );
        let is_probe = format!("request.resource.resource == 'serviceaccounts' && request.name == '{probe}'");
        shop.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                        "resourceRules": [{
                            "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
                            "operations": ["CREATE", "UPDATE", "CONNECT"],
                        }],
                    },
                    "validations": [{"expression": format!("!(({denied}) || ({is_probe}))"), "message": "the test says no"}],
                },
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            },
        ]}))
        .await?;
        let words = ["create", "serviceaccount", &probe, "--dry-run=server"];
        shop.until("the denial", SWAP, async || {
            shop.kubectl(words).await.is_err_and(|error| error.to_string().contains("the test says no"))
        })
        .await?;
        Ok(denial)
    }
}

impl Drop for Denial<'_> {
    fn drop(&mut self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            let mut command = self.shop.cluster().kubectl().command();
            let deleted = command.args(["delete", kind, self.shop.name(), "--ignore-not-found"]).output();
            if !deleted.is_ok_and(|output| output.status.success()) {
                eprintln!("{kind} {} could not be deleted", self.shop.name());
            }
        }
    }
}

/// The request that is denied, and how the failure begins and ends.
const STEPS: &[(&str, &str, &str)] = &[
    ("leases create", "the cluster refused leases `devproxy-cart`: ", "[DP-REFUSED]"),
    ("deployments create", "the cluster refused deployments `cart-devproxy-", "[DP-REFUSED]"),
    ("configmaps create", "the cluster refused configmaps `cart-devproxy-", "[DP-REFUSED]"),
    ("secrets create", "the cluster refused secrets `cart-devproxy-", "[DP-REFUSED]"),
    ("stand-in to 1", "the cluster refused deployments `cart-devproxy-", "[DP-REFUSED]"),
    ("pods create", "the stand-in's pod cannot be started: ", "[DP-SCHEDULE]"),
    ("port-forward", "the cluster refused pods `cart-devproxy-", "[DP-REFUSED]"),
    ("original to 0", "the cluster refused deployments `cart`: ", "[DP-REFUSED]"),
];

/// The request as an expression of a policy.
fn expression(denied: &str) -> String {
    let scaled = "request.resource.resource == 'deployments' && request.operation == 'UPDATE' && !has(request.subResource)";
    match denied {
        "stand-in to 1" => format!("{scaled} && request.name != 'cart' && object.spec.replicas == 1"),
        "original to 0" => format!("{scaled} && request.name == 'cart' && object.spec.replicas == 0"),
        "pods create" => "request.resource.resource == 'pods' && request.operation == 'CREATE' \
             && !has(request.subResource) && has(object.metadata.labels) \
             && 'devproxy.dev/session' in object.metadata.labels"
            .to_owned(),
        "port-forward" => "request.operation == 'CONNECT' && has(request.subResource) \
             && request.subResource == 'portforward'"
            .to_owned(),
        create => {
            let kind = create.trim_end_matches(" create");
            format!("request.resource.resource == '{kind}' && request.operation == 'CREATE'")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_undoes_all_before_it() -> Result<()> {
    let bed = Bed::get().await?;
    let place = Place::open(&bed, "steps", App::shop("cart").drain(1)).await?;
    for (denied, begin, end) in STEPS {
        let denial = Denial::of(&place.shop, &expression(denied)).await.context(*denied)?;
        let exit = place.swap().await.context(*denied)?;
        let causes: Vec<&str> = exit.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        ensure!(exit.code() == 125 && causes.len() == 1, "{denied}: {exit:?}");
        ensure!(causes[0].starts_with(begin) && causes[0].ends_with(end), "{denied}: {exit:?}");
        ensure!(causes[0].contains("the test says no"), "{denied}: {exit:?}");
        place.require_untouched().await.with_context(|| format!("{denied}: {exit:?}"))?;
        drop(denial);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_left_first_comes_back_after_a_step_that_fails() -> Result<()> {
    let bed = Bed::get().await?;
    let (app, _) = App::shop_on_host_port("cart");
    let place = Place::open(&bed, "first", app).await?;
    for denied in ["stand-in to 1", "pods create", "port-forward"] {
        let denial = Denial::of(&place.shop, &expression(denied)).await.context(denied)?;
        let exit = place.swap().await.context(denied)?;
        ensure!(exit.code() == 125 && exit.stderr.contains("the test says no"), "{denied}: {exit:?}");
        place.require_untouched().await.with_context(|| format!("{denied}: {exit:?}"))?;
        drop(denial);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_undoes_all_so_far_wherever_it_comes() -> Result<()> {
    let bed = Bed::get().await?;
    let slow = json!({
        "name": "slow", "image": Image::Shop.reference(), "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", "sleep 4"],
    });
    let app = App::shop("cart").drain(1).pod(json!({"initContainers": [slow]}));
    let place = Place::open(&bed, "interrupt", app).await?;
    let Place { laptop, shop, .. } = &place;
    let words = ["swap", "cart", "--", "sleep", "1000"];

    // While it reads: nothing to undo.
    laptop.relay().stall();
    let connections = laptop.relay().connections();
    let mut swap = laptop.devproxy(words)?.spawn()?;
    shop.until("its connection", SWAP, async || laptop.relay().connections() > connections).await?;
    swap.signal(Signal::SIGINT)?;
    assert_eq!(swap.wait(RESTORE).await?.code(), 130);
    laptop.relay().resume();
    place.require_untouched().await.context("plan")?;

    // While the answer about the Lease is on its way, and while it waits for the agent.
    for (what, kind, delay) in [("Lease", "leases", 500), ("agent", "pods", 0)] {
        for (signal, key) in [(Signal::SIGTERM, None), (Signal::SIGINT, Some("\x03"))] {
            laptop.relay().delay(Duration::from_millis(delay));
            let mut swap = laptop.devproxy(words)?.terminal().spawn()?;
            shop.until(what, SWAP, async || {
                let list = shop.get([kind, "--selector", "devproxy.dev/session"]).await.unwrap_or_default();
                list["items"].as_array().is_some_and(|items| !items.is_empty())
            })
            .await?;
            match key {
                Some(key) => swap.write(key)?,
                None => swap.signal(signal)?,
            }
            let exit = swap.wait(RESTORE).await?;
            laptop.relay().resume();
            ensure!(
                exit.code() == 130 && exit.stdout.contains("DP-INTERRUPTED"),
                "{what}, {signal}: {exit:?}"
            );
            place.require_untouched().await.with_context(|| format!("{what}, {signal}: {exit:?}"))?;
        }
    }

    // While the tunnel is made: nothing comes back from the cluster.
    let mut swap = laptop.devproxy(words)?.spawn()?;
    swap.wait_for("✓ agent", SWAP).await?;
    laptop.relay().stall();
    swap.signal(Signal::SIGTERM)?;
    laptop.relay().resume();
    let exit = swap.wait(RESTORE).await?;
    // The program may run by then: it got the signal.
    ensure!([130, 143].contains(&exit.code()), "{exit:?}");
    place.require_untouched().await.with_context(|| format!("tunnel: {exit:?}"))?;

    // While the program has not listened yet: the signal is the program's.
    let mut swap = laptop.devproxy(words)?.terminal().spawn()?;
    swap.wait_for("waiting until something listens on 8080", SWAP).await?;
    // The program starts in this moment; before, Ctrl-C would be ours.
    shop.until("the program", SWAP, async || {
        laptop.processes().iter().any(|process| {
            std::fs::read_to_string(format!("/proc/{}/comm", process.pid))
                .is_ok_and(|name| name.trim() == "sleep")
        })
    })
    .await?;
    swap.write("\x03")?;
    let exit = swap.wait(RESTORE).await?;
    assert_eq!(exit.code(), 130, "{exit:?}");
    assert!(exit.stdout.contains("cart was not touched; all of ours is gone"), "{exit:?}");
    place.require_untouched().await.context("listen")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_finds_no_node_is_told_in_the_schedulers_words_and_the_lease_lives_until_then()
-> Result<()> {
    let bed = Bed::get().await?;
    let nowhere = json!({"nodeSelector": {"nowhere": "true"}});
    let place = Place::open(&bed, "nowhere", App::shop("cart").replicas(0).pod(nowhere)).await?;
    let mut swap = place.laptop.devproxy(["swap", "cart", "--", "shopd"])?.spawn()?;
    let mut renewed = std::collections::BTreeSet::new();
    let lease = ["lease", "devproxy-cart"];
    place
        .shop
        .until("a renewal before there is an agent", SWAP, async || {
            if let Ok(lease) = place.shop.get(lease).await {
                renewed.insert(lease["spec"]["renewTime"].to_string());
            }
            renewed.len() > 1
        })
        .await?;
    let exit = swap.wait(RESTORE).await?;
    let cause = "error: the stand-in's pod cannot be started: 0/1 nodes are available: ";
    let told = exit.stderr.lines().any(|line| line.starts_with(cause) && line.ends_with("[DP-SCHEDULE]"));
    ensure!(exit.code() == 125 && told, "{exit:?}");
    place.require_untouched().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_original_cannot_be_scaled_get_their_labels_back() -> Result<()> {
    let bed = Bed::get().await?;
    let place = Place::open(&bed, "labels", App::shop("cart").drain(0).replicas(2)).await?;
    let pods = async || {
        let names = place.shop.kubectl(["get", "pods", "--selector=app=cart", "-o", "name"]).await?;
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        anyhow::Ok(names)
    };
    let before = pods().await?;
    let _denial = Denial::of(&place.shop, &expression("original to 0")).await?;
    let exit = place
        .laptop
        .devproxy(["swap", "cart", "--drain=labels", "--", "shopd"])?
        .output(SWAP + RESTORE)
        .await?;
    ensure!(
        exit.code() == 125 && exit.stderr.contains("the cluster refused deployments `cart`: "),
        "{exit:?}"
    );
    place
        .shop
        .until("the end of their replacements", RESTORE, async || pods().await.is_ok_and(|now| now == before))
        .await?;
    place.require_untouched().await
}
