//! What cannot be done is refused soon, in one line that says why, and nothing is changed. Each test reads all that was
//! printed, word for word.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devproxy_tests::{App, Bed, Exit, Laptop, LaptopCommand, Namespace, snapshots};
use serde_json::json;

/// Nothing else takes longer than an API server that does not answer, which is given up after 10 s.
const SOON: Duration = Duration::from_secs(20);
/// A pod that is waited for, and what follows when it does not come.
const POD: Duration = Duration::from_mins(2);

/// Exit code and all output, with what differs from run to run replaced.
fn told(shop: &Namespace, laptop: &Laptop, exit: &Exit) -> String {
    let text = format!("exit code {}\n{}{}", exit.code(), exit.stderr, exit.stdout);
    text.replace(&laptop.home().display().to_string(), "HOME")
        .replace(&format!("https://{}", laptop.api_server()), "SERVER")
        .replace(shop.name(), "NAMESPACE")
}

async fn output(
    shop: &Namespace,
    laptop: &Laptop,
    command: LaptopCommand<'_>,
    limit: Duration,
) -> Result<String> {
    Ok(told(shop, laptop, &command.output(limit).await?))
}

async fn refused(shop: &Namespace, laptop: &Laptop, words: &str) -> Result<String> {
    output(shop, laptop, laptop.devproxy(words.split(' '))?, SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_swapped_is_refused_in_one_line() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("refusals").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    shop.deploy(App::shop("card-service").replicas(0)).await?;
    let beside = json!({"name": "neighbour", "image": "none"});
    shop.deploy(App::shop("pair").replicas(0).sidecar(beside)).await?;
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
    let before = shop.objects().await?;
    let refused = async |words: &str| refused(&shop, &laptop, words).await;

    // The program.
    insta::assert_snapshot!(refused("swap cart -- no-such-program").await?, @"
    exit code 127
    error: command not found: `no-such-program` [DP-PROGRAM-NOT-FOUND]
    hint: the program is looked up in the laptop's PATH, the pod's image is not here
    ");
    insta::assert_snapshot!(refused("swap cart -- ./missing").await?, @"
    exit code 127
    error: `./missing`: No such file or directory (os error 2) [DP-PROGRAM-NOT-FOUND]
    hint: the path is one of the laptop, the pod's image is not here
    ");
    laptop.write_file("data", 0o644, b"no program")?;
    insta::assert_snapshot!(refused("swap cart -- ./data").await?, @"
    exit code 126
    error: `./data` is not executable [DP-PROGRAM-NOT-EXECUTABLE]
    hint: chmod +x ./data
    ");
    insta::assert_snapshot!(refused("swap cart -- ./").await?, @"
    exit code 126
    error: `./` is a folder [DP-PROGRAM-NOT-EXECUTABLE]
    hint: name the program in it
    ");

    insta::assert_snapshot!(refused("swap cart shopd").await?, @"
    exit code 125
    error: `shopd` is not expected here [DP-USAGE]
    hint: a program comes after `--`: `-- shopd …`
    ");

    // The Deployment.
    insta::assert_snapshot!(refused("swap crat -- shopd").await?, @"
    exit code 125
    error: no Deployment `crat` in namespace `NAMESPACE` [DP-NOT-FOUND]
    hint: did you mean `cart`
    ");
    insta::assert_snapshot!(refused("swap zzz -- shopd").await?, @"
    exit code 125
    error: no Deployment `zzz` in namespace `NAMESPACE` [DP-NOT-FOUND]
    hint: `kubectl get deployments -n NAMESPACE` lists them
    ");
    insta::assert_snapshot!(refused("swap no-such-namespace/cart -- shopd").await?, @"
    exit code 125
    error: user `system:serviceaccount:NAMESPACE:developer-edit` may not get deployments in namespace `no-such-namespace` [DP-FORBIDDEN]
    hint: is the namespace right? if so, an administrator grants it with `kubectl create rolebinding devproxy-developer-edit --clusterrole=edit --serviceaccount=NAMESPACE:developer-edit -n no-such-namespace` or with the rbac.yaml that comes with devproxy
    ");
    let misspelt = format!("swap {}x/cart -- shopd", shop.name());
    insta::assert_snapshot!(refused(&misspelt).await?, @"
    exit code 125
    error: user `system:serviceaccount:NAMESPACE:developer-edit` may not get deployments in namespace `NAMESPACEx` [DP-FORBIDDEN]
    hint: did you mean namespace `NAMESPACE`? if not, an administrator grants it with `kubectl create rolebinding devproxy-developer-edit --clusterrole=edit --serviceaccount=NAMESPACE:developer-edit -n NAMESPACEx` or with the rbac.yaml that comes with devproxy
    ");
    insta::assert_snapshot!(refused("swap sts/store -- shopd").await?, @"
    exit code 125
    error: `store` is a StatefulSet, and only Deployments can be swapped [DP-KIND]
    hint: `devproxy shell` gives the cluster's network without taking its place
    ");
    insta::assert_snapshot!(refused("swap store -- shopd").await?, @"
    exit code 125
    error: `store` is a StatefulSet, and only Deployments can be swapped [DP-KIND]
    hint: `devproxy shell` gives the cluster's network without taking its place
    ");
    insta::assert_snapshot!(refused("swap svc/cart -- shopd").await?, @"
    exit code 125
    error: `cart` is a Service, and only Deployments can be swapped [DP-KIND]
    hint: name the Deployment behind the Service, `devproxy swap cart` if it has the same name
    ");
    insta::assert_snapshot!(refused("swap pod/cart-1 -- shopd").await?, @"
    exit code 125
    error: `cart-1` is a Pod, and only Deployments can be swapped [DP-KIND]
    hint: name the Deployment that owns it: `kubectl get deployments`
    ");
    insta::assert_snapshot!(refused("swap a/b/c -- shopd").await?, @"
    exit code 125
    error: `a/b/c` is not the name of a Deployment [DP-TARGET]
    hint: give [NAMESPACE/]NAME or deployment/NAME
    ");
    insta::assert_snapshot!(refused("-n shop swap till/cart -- shopd").await?, @"
    exit code 125
    error: `--namespace shop` and `till/cart` name different namespaces [DP-USAGE]
    hint: leave one of them out
    ");

    // Its containers.
    insta::assert_snapshot!(refused("swap pair -- shopd").await?, @"
    exit code 125
    error: pair has several containers: pair, neighbour [DP-CONTAINER]
    hint: choose one with -c: pair, neighbour
    ");
    insta::assert_snapshot!(refused("swap cart -c app -- shopd").await?, @"
    exit code 125
    error: cart has no container `app` [DP-CONTAINER]
    hint: choose one with -c: cart
    ");

    // Ports of the laptop.
    let taken = laptop.network().enter(|| Ok(std::net::TcpListener::bind(("127.0.0.1", 5005))?))?;
    insta::assert_snapshot!(refused("swap cart --publish 5005 -- shopd").await?, @"
    exit code 125
    error: port 5005 of 127.0.0.1 cannot be published: Address already in use (os error 98) [DP-PORT]
    hint: `ss -tlnp sport = 5005` shows who has it; end that, or leave out `--publish 5005`
    ");
    insta::assert_snapshot!(refused("shell --publish 5005 -- shopd").await?, @"
    exit code 125
    error: port 5005 of 127.0.0.1 cannot be published: Address already in use (os error 98) [DP-PORT]
    hint: `ss -tlnp sport = 5005` shows who has it; end that, or leave out `--publish 5005`
    ");
    insta::assert_snapshot!(refused("swap cart --publish 80 -- shopd").await?, @"
    exit code 125
    error: port 80 of 127.0.0.1 cannot be published: Permission denied (os error 13) [DP-PORT]
    hint: the laptop's own system must let you listen on it
    ");
    drop(taken);

    // Sessions.
    insta::assert_snapshot!(refused("restore cart").await?, @"
    exit code 0
      … NAMESPACE/cart is not swapped: nothing to restore
    ");
    insta::assert_snapshot!(refused("restore crat cart zzz").await?, @"
    exit code 125
    error: no session `crat` in namespace `NAMESPACE` [DP-NO-SESSION]
    hint: did you mean `cart`
      … NAMESPACE/cart is not swapped: nothing to restore
    error: no session `zzz` in namespace `NAMESPACE` [DP-NO-SESSION]
    hint: `devproxy status --all` lists the sessions
    ");
    insta::assert_snapshot!(refused("restore").await?, @"
    exit code 0
      … no session of yours on this laptop or in namespace NAMESPACE: nothing to restore
    ");
    insta::assert_snapshot!(refused("exec cart -- true").await?, @"
    exit code 125
    error: no session `cart` runs on this laptop [DP-NO-SESSION]
    hint: `devproxy status` lists them
    ");
    insta::assert_snapshot!(refused("exec -- true").await?, @"
    exit code 125
    error: no session runs on this laptop [DP-NO-SESSION]
    hint: `devproxy swap NAME` starts one
    ");
    insta::assert_snapshot!(refused("status").await?, @"
    exit code 0
      … no session in namespace NAMESPACE, none on this laptop
    ");
    insta::assert_snapshot!(refused("status -A").await?, @"
    exit code 125
    error: user `system:serviceaccount:NAMESPACE:developer-edit` may not list leases in all namespaces [DP-FORBIDDEN]
    hint: ask for one namespace with -n NAMESPACE, or an administrator for the right on all
    ");
    insta::assert_snapshot!(refused("restore --stale").await?, @"
    exit code 0
      … nothing to restore in namespace NAMESPACE
    ");

    // Values.
    insta::assert_snapshot!(refused("swap cart -p abc -- shopd").await?, @"
    exit code 125
    error: --port: `abc` is not POD[:LOCAL][/udp], as in 8080, 8080:3000 or 53:5353/udp [DP-USAGE]
    hint: `--port <POD[:LOCAL][/udp]>`: further port of the pod, and where the program listens for it
    ");
    insta::assert_snapshot!(refused("swap cart --hold abc -- shopd").await?, @"
    exit code 125
    error: --hold: `abc` is not a number of seconds, as in 30 [DP-USAGE]
    hint: `--hold <SECONDS>`: how long a connection waits for the program while it restarts, in seconds
    ");

    // Settings.
    insta::assert_snapshot!(refused("swap crat --dryrun").await?, @"
    exit code 125
    error: `--dryrun` is not expected here [DP-USAGE]
    hint: did you mean `--dry-run`
    ");
    laptop.write_file("devproxy.toml", 0o644, b"contxt = 'bed'\n")?;
    insta::assert_snapshot!(refused("swap cart -- shopd").await?, @"
    exit code 125
    error: ~/devproxy.toml:1: unknown key `contxt` [DP-CONFIG]
    hint: did you mean `context`
    ");
    laptop.write_file("devproxy.toml", 0o000, b"context = 'bed'\n")?;
    insta::assert_snapshot!(refused("swap cart -- shopd").await?, @"
    exit code 125
    error: ~/devproxy.toml: Permission denied (os error 13) [DP-CONFIG]
    hint: mend it, or move it away
    ");
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_used_is_told_in_one_line() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("clusters").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    let (laptop, swap) = (bed.laptop().await?, "swap cart -- shopd");
    let refused = async |words: &str| refused(&shop, &laptop, words).await;
    // A login that is no longer one: its account is gone. The others' accounts are part of what must not change.
    shop.kubectl(["create", "serviceaccount", "gone"]).await?;
    let token = shop.kubectl(["create", "token", "gone"]).await?;
    shop.kubectl(["delete", "serviceaccount", "gone"]).await?;
    let ended = laptop.kubeconfig(shop.name(), &json!({"token": token.trim()}));
    laptop.login_as(&shop, "view").await?;
    laptop.login(&shop).await?;
    std::fs::remove_file(laptop.home().join(".kube/config"))?;
    let before = shop.objects().await?;

    insta::assert_snapshot!(refused(swap).await?, @"
    exit code 125
    error: the kubeconfig cannot be used: HOME/.kube/config: No such file or directory (os error 2) [DP-KUBECONFIG]
    hint: set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses
    ");
    insta::assert_snapshot!(refused("--kubeconfig /none status").await?, @"
    exit code 125
    error: the kubeconfig cannot be used: /none: No such file or directory (os error 2) [DP-KUBECONFIG]
    hint: set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses
    ");
    laptop.write_file(".kube/config", 0o600, b"{")?;
    insta::assert_snapshot!(refused(swap).await?, @"
    exit code 125
    error: the kubeconfig cannot be used: failed to parse kubeconfig YAML: line 1 column 1: unclosed bracket '{' [DP-KUBECONFIG]
    hint: set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses
    ");

    laptop.write_kubeconfig(&ended)?;
    insta::assert_snapshot!(refused(swap).await?, @"
    exit code 125
    error: the API server does not accept the login: Unauthorized [DP-LOGIN]
    hint: log in again, as for kubectl
    ");
    insta::assert_snapshot!(refused("status").await?, @"
    exit code 125
    error: the API server does not accept the login: Unauthorized [DP-LOGIN]
    hint: log in again, as for kubectl
    ");
    insta::assert_snapshot!(refused("restore cart").await?, @"
    exit code 125
    error: the API server does not accept the login: Unauthorized [DP-LOGIN]
    hint: log in again, as for kubectl
    ");

    // `view` may read the Deployment and nothing else that counts.
    laptop.login_as(&shop, "view").await?;
    insta::assert_snapshot!(refused(swap).await?, @"
    exit code 125
    error: user `system:serviceaccount:NAMESPACE:developer-view` may not, in namespace `NAMESPACE`: create, patch, delete leases; create, patch, delete deployments; create, delete configmaps; create, delete secrets; create pods/portforward [DP-FORBIDDEN]
    hint: an administrator grants them with `kubectl create rolebinding devproxy-developer-view --clusterrole=edit --serviceaccount=NAMESPACE:developer-view -n NAMESPACE` or with the rbac.yaml that comes with devproxy
    ");
    insta::assert_snapshot!(refused("status").await?, @"
    exit code 125
    error: user `system:serviceaccount:NAMESPACE:developer-view` may not list leases in namespace `NAMESPACE` [DP-FORBIDDEN]
    hint: `kubectl get events -n NAMESPACE --field-selector reason=DevproxySwapped` tells who holds what; is the namespace right? if so, an administrator grants it with `kubectl create rolebinding devproxy-developer-view --clusterrole=edit --serviceaccount=NAMESPACE:developer-view -n NAMESPACE` or with the rbac.yaml that comes with devproxy
    ");

    laptop.login(&shop).await?;
    insta::assert_snapshot!(refused("--context bad swap cart -- shopd").await?, @"
    exit code 125
    error: the kubeconfig has no context `bad` [DP-CONTEXT]
    hint: did you mean `bed`
    ");
    let of = async |files: &str| {
        let status = laptop.devproxy(["status"])?.env("KUBECONFIG", files);
        output(&shop, &laptop, status, SOON).await
    };
    insta::assert_snapshot!(of("/nowhere").await?, @"
    exit code 125
    error: the kubeconfig cannot be used: /nowhere: No such file or directory (os error 2) [DP-KUBECONFIG]
    hint: set KUBECONFIG, or pass --kubeconfig FILE; `kubectl config view` shows what kubectl uses
    ");
    // As kubectl has it, one of several may be missing.
    let several = format!("/nowhere:{}", laptop.home().join(".kube/config").display());
    insta::assert_snapshot!(of(&several).await?, @"
    exit code 0
      … no session in namespace NAMESPACE, none on this laptop
    ");
    insta::assert_snapshot!(refused("--context production swap cart -- shopd").await?, @"
    exit code 125
    error: the kubeconfig has no context `production` [DP-CONTEXT]
    hint: `kubectl config get-contexts` lists them
    ");

    laptop.relay().refuse();
    insta::assert_snapshot!(refused(swap).await?, @"
    exit code 125
    error: the API server at SERVER cannot be reached: Connection refused (os error 111) [DP-UNREACHABLE]
    hint: check that the cluster runs and that the VPN is up; --context selects another cluster
    ");
    laptop.relay().resume();
    laptop.relay().stall();
    let start = Instant::now();
    insta::assert_snapshot!(refused(swap).await?, @"
    exit code 125
    error: the API server at SERVER cannot be reached: no connection within 9 s [DP-UNREACHABLE]
    hint: check that the cluster runs and that the VPN is up; --context selects another cluster
    ");
    ensure!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    laptop.relay().resume();
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hint_says_grants_all_that_is_missing() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("rights").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    let laptop = bed.laptop().await?;
    laptop.login_as(&shop, "view").await?;
    let plan = "swap cart --dry-run";
    let told = refused(&shop, &laptop, plan).await?;
    let granting = told.split_once("grants them with `kubectl ").and_then(|(_, rest)| rest.split_once('`'));
    let granting = granting.context(told.clone())?.0.replace("NAMESPACE", shop.name());
    shop.kubectl(granting.split(' ')).await?;
    shop.until("the rights", SOON, async || {
        refused(&shop, &laptop, plan).await.is_ok_and(|told| told.starts_with("exit code 0\n"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_start_is_told_in_its_own_words() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("pods").await?;
    let never = json!({"image": "mirror.example/none:1", "imagePullPolicy": "Never"});
    shop.deploy(App::shop("missing").replicas(0).container(never)).await?;
    let name = json!({"image": "mirror.example/Not A Name"});
    shop.deploy(App::shop("misnamed").replicas(0).container(name)).await?;
    let nowhere = json!({"nodeSelector": {"nowhere": "true"}});
    shop.deploy(App::shop("nowhere").replicas(0).pod(nowhere)).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    let before = shop.objects().await?;
    let refused = async |words: &str| output(&shop, &laptop, laptop.devproxy(words.split(' '))?, POD).await;
    let _filters = snapshots::filters().bind_to_scope();
    insta::assert_snapshot!(refused("swap missing -- shopd").await?, @r#"
    exit code 125
      ✓ plan      1 stand-in pod, missing 0 → 0 replicas, 8080/tcp  TIME
      ! missing has 0 replicas, and will have 0 again afterwards
      ✓ restore   missing was not touched; all of ours is gone  TIME
    error: the image of the stand-in's pod cannot be used: missing: ErrImageNeverPull: Container image "mirror.example/none:1" is not present with pull policy of Never [DP-IMAGE]
    hint: --agent-image IMAGE brings the agent in an image of its own
    "#);
    insta::assert_snapshot!(refused("swap misnamed -- shopd").await?, @r#"
    exit code 125
      ✓ plan      1 stand-in pod, misnamed 0 → 0 replicas, 8080/tcp  TIME
      ! misnamed has 0 replicas, and will have 0 again afterwards
      ✓ restore   misnamed was not touched; all of ours is gone  TIME
    error: the image of the stand-in's pod cannot be used: misnamed: InvalidImageName: Failed to apply default image tag "mirror.example/Not A Name": couldn't parse image name "mirror.example/Not A Name": invalid reference format: repository name (Not A Name) must be lowercase [DP-IMAGE]
    hint: --agent-image IMAGE brings the agent in an image of its own
    "#);
    insta::assert_snapshot!(refused("swap nowhere -- shopd").await?, @"
    exit code 125
      ✓ plan      1 stand-in pod, nowhere 0 → 0 replicas, 8080/tcp  TIME
      ! nowhere has 0 replicas, and will have 0 again afterwards
      … 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
      ✓ restore   nowhere was not touched; all of ours is gone  TIME
    error: the stand-in's pod cannot be started: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. [DP-SCHEDULE]
    hint: the original would not start here either; `kubectl get events` tells more
    ");
    before.require_same(&shop.objects().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_does_not_exist_is_told_from_an_empty_one() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("empty").await?;
    let laptop = bed.laptop().await?;
    // Somebody who may read namespaces.
    let view =
        laptop.administrator().run(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])?;
    let view: serde_json::Value = serde_json::from_str(&view)?;
    let mut user = view["users"][0]["user"].clone();
    laptop.write_kubeconfig(&laptop.kubeconfig(shop.name(), &user))?;
    let refused = async |words: &str| refused(&shop, &laptop, words).await;

    insta::assert_snapshot!(refused("status").await?, @"
    exit code 0
      … no session in namespace NAMESPACE, none on this laptop
    ");
    insta::assert_snapshot!(refused("swap cart -- shopd").await?, @"
    exit code 125
    error: no Deployment `cart` in namespace `NAMESPACE` [DP-NOT-FOUND]
    hint: the namespace has no Deployments, or does not exist; -n NAMESPACE or --context NAME selects another
    ");
    for words in [
        "status -n zzz",
        "swap zzz/cart -- shopd",
        "restore zzz/cart",
        "-n zzz restore",
        "-n zzz restore --stale",
    ] {
        let text = refused(words).await?;
        insta::allow_duplicates! {
            insta::assert_snapshot!(text, @"
            exit code 125
            error: there is no namespace `zzz` [DP-NO-NAMESPACE]
            hint: -n NAMESPACE or --context NAME selects another
            ");
        }
    }
    let some = refused("status -A -o json").await?;
    insta::assert_snapshot!(some.lines().next().unwrap_or_default(), @"exit code 0");

    // Nor may one who reads namespaces read Deployments in one that does not exist.
    user["as"] = json!("system:kube-scheduler");
    laptop.write_kubeconfig(&laptop.kubeconfig(shop.name(), &user))?;
    insta::assert_snapshot!(refused("swap zzz/cart -- shopd").await?, @"
    exit code 125
    error: there is no namespace `zzz` [DP-NO-NAMESPACE]
    hint: -n NAMESPACE or --context NAME selects another
    ");
    let misspelt = format!("swap {}x/cart -- shopd", shop.name());
    insta::assert_snapshot!(refused(&misspelt).await?, @"
    exit code 125
    error: there is no namespace `NAMESPACEx` [DP-NO-NAMESPACE]
    hint: did you mean `NAMESPACE`
    ");
    insta::assert_snapshot!(refused("swap cart -- shopd").await?, @"
    exit code 125
    error: user `system:kube-scheduler` may not get deployments in namespace `NAMESPACE` [DP-FORBIDDEN]
    hint: is the namespace right? if so, an administrator grants it with `kubectl create rolebinding devproxy-kube-scheduler --clusterrole=edit --user=system:kube-scheduler -n NAMESPACE` or with the rbac.yaml that comes with devproxy
    ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_that_refuses_namespaces_is_told_with_the_remedy() -> Result<()> {
    let bed = Bed::get().await?;
    let shop = bed.namespace("userns").await?;
    shop.deploy(App::shop("cart").replicas(0)).await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;
    laptop.install_product_as("devproxy")?;
    let before = shop.objects().await?;
    let _filters = snapshots::filters().bind_to_scope();
    // The limit holds for the namespaces below the one where it is set.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec devproxy swap cart -- shopd";
    let words = ["--user", "--map-current-user", "--keep-caps", "sh", "-c", script];
    insta::assert_snapshot!(output(&shop, &laptop, laptop.command("unshare").args(words), SOON).await?, @"
    exit code 125
      ✓ plan      1 stand-in pod, cart 0 → 0 replicas, 8080/tcp  TIME
      ! cart has 0 replicas, and will have 0 again afterwards
    error: this machine refuses namespaces of the user's own: unshare(CLONE_NEWUSER|NEWNS|NEWUTS|NEWNET): No space left on device (os error 28) [DP-NAMESPACES]
    hint: allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000
    ");
    before.require_same(&shop.objects().await?)
}
