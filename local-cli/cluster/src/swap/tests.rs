use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    api::tests::{answered, refusal},
    name::{DRAINING_LABEL, MANAGER},
    plan::{Drain, tests::plan},
};

/// A cluster in which the stand-in of [`plan`] is ready, and which is mostly away: a read is answered the second time
/// it is asked, a write takes effect the second time and is answered the third.
#[derive(Default)]
struct Cluster {
    asked: HashMap<(String, String), u32>,
    /// The original was scaled to 0.
    scaled: bool,
    /// Its pod was taken out of its Service.
    drained: bool,
    /// That pod was deleted.
    deleted: bool,
    /// The phases that were written into the Lease.
    phases: Vec<Phase>,
}

impl Cluster {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        // A watch continues from wherever the list was.
        let asked = self.asked.entry((method.to_owned(), path.to_owned())).or_default();
        *asked += 1;
        let (asked, read) = (*asked, method == "GET");
        if asked == 1 {
            return (503, refusal(503, "ServiceUnavailable"));
        }
        let answer = if read { self.read(path) } else { self.write(path, body) };
        if asked == 2 && !read { (503, refusal(503, "ServiceUnavailable")) } else { (200, answer) }
    }

    fn read(&self, path: &str) -> Value {
        let pod = |name: &str, address: &str| {
            json!({
                "metadata": {"name": name, "uid": name, "labels": {"app": "cart", "pod-template-hash": "7d9"}},
                "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
            })
        };
        let (stand_in, original) = (pod("cart-devproxy-k7f2-1", "10.0.0.9"), pod("cart-1", "10.0.0.1"));
        let serves = !self.scaled && !self.drained;
        let items = if path.contains("watch=") {
            return Value::Null;
        } else if path.contains("/endpointslices") {
            let address = |address| json!({"addresses": [address], "conditions": {"ready": true}});
            let mut endpoints = vec![address("10.0.0.9")];
            endpoints.extend(serves.then(|| address("10.0.0.1")));
            let labels = json!({"kubernetes.io/service-name": "cart"});
            vec![
                json!({"metadata": {"name": "cart-1", "uid": "s", "labels": labels}, "endpoints": endpoints}),
            ]
        } else if path.contains(&DRAINING_LABEL.replace('/', "%2F")) {
            Vec::from_iter((self.drained && !self.deleted).then_some(original))
        } else if path.contains("session%3Dk7f2abcdef") {
            vec![stand_in]
        } else if path.contains("/pods") {
            // In the place of one that lost its labels its ReplicaSet makes another.
            let replaced = (self.drained && !self.scaled).then(|| pod("other", "10.0.0.2"));
            Vec::from_iter(serves.then_some(original).or(replaced))
        } else {
            let ours = json!([{"manager": MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
            let managed = if self.scaled { ours } else { json!([]) };
            let replicas = if self.scaled { 0 } else { 3 };
            return json!({
                "metadata": {"name": "cart", "uid": "u-1", "resourceVersion": "7", "managedFields": managed},
                "spec": {"replicas": replicas},
            });
        };
        json!({"metadata": {"resourceVersion": "7"}, "items": items})
    }

    fn write(&mut self, path: &str, body: &Value) -> Value {
        if path.contains("/leases/") {
            let record = body["metadata"]["annotations"][crate::name::RECORD_ANNOTATION].as_str();
            let record: Record = serde_json::from_str(record.expect("a record")).expect("of this schema");
            self.phases.push(record.phase);
        } else if path.contains("/deployments/cart") {
            assert_eq!(body["spec"]["replicas"], 0);
            assert!(self.phases.contains(&Phase::HandingOver), "first in the record, then in the cluster");
            self.scaled = true;
        } else if path.contains("/pods/") {
            assert!(path.contains("/pods/cart-1"), "not one of the first pods: {path}");
            // A patch has labels, a deletion has none.
            self.deleted |= body.pointer("/metadata/labels").is_none();
            self.drained = true;
        }
        json!({})
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_waited_for_at_each_step_of_the_handover() {
    for drain in [Drain::Signal, Drain::Labels] {
        let cluster: Arc<Mutex<Cluster>> = Arc::default();
        let server = Arc::clone(&cluster);
        let connection =
            answered(move |method, path, body| server.lock().unwrap().answer(method, path, &body));
        let (progress, mut lines) = mpsc::channel(64);
        let mut swap = Swap::begin(&connection, plan(drain), progress);
        swap.lock = Lock::Held("l-1".into());
        swap.handover().await.unwrap();
        let cluster = cluster.lock().unwrap();
        assert!(
            cluster.scaled
                && (cluster.drained, cluster.deleted) == (drain == Drain::Labels, drain == Drain::Labels)
        );
        assert_eq!(cluster.phases.last(), Some(&Phase::Swapped));
        assert_eq!(swap.record().phase, Phase::Swapped);
        let mut notes = 0;
        while let Ok(line) = lines.try_recv() {
            notes += usize::from(matches!(line, Progress::Note(text) if text.contains("; trying again ")));
        }
        assert!(notes > 0, "it is told");
    }
}
