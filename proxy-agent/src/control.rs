//! The control flow: facts first, then the laptop's orders and their answers.

use std::{net::IpAddr, sync::Arc};

use devproxy_tunnel::{
    Flow,
    control::{self, FromAgent, MessageError, ToAgent},
};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::mpsc,
};

use crate::{facts, log, route::Targets, session::Pod};

/// Answers that wait to be written; the reader of orders waits with them.
const ANSWERS: usize = 16;

/// Serves one control flow to its end.
pub(crate) async fn serve(pod: &Pod, flow: Flow) {
    let (from, to) = tokio::io::split(flow);
    let (answers, queue) = mpsc::channel(ANSWERS);
    // Reading a message is not cancel-safe, so reader and writer are futures of their own; the first end ends both.
    let result = tokio::select! {
        result = obey(pod, from, answers) => result,
        result = tell(pod, to, queue) => result,
    };
    match result {
        Ok(()) | Err(MessageError::Closed | MessageError::Io(_)) => {}
        Err(e) => log::line(format_args!("the control flow ended: {e}")),
    }
}

async fn obey(
    pod: &Pod,
    mut from: ReadHalf<Flow>,
    answers: mpsc::Sender<FromAgent>,
) -> Result<(), MessageError> {
    loop {
        let answer = match control::read(&mut from).await? {
            ToAgent::Listen(table) => {
                FromAgent::Listening { failed: pod.ports.lock().await.set(&table).await }
            }
            ToAgent::Ready => FromAgent::Ready { failed: pod.readiness.lock().await.open().err() },
            ToAgent::Splice(targets) => {
                splice(pod, targets);
                FromAgent::Splicing
            }
        };
        if answers.send(answer).await.is_err() {
            return Ok(());
        }
    }
}

fn splice(pod: &Pod, targets: Vec<IpAddr>) {
    log::line(format_args!("late connections go to {} restored pods", targets.len()));
    pod.routes.send_modify(|route| route.splice = Some(Arc::new(Targets::new(targets))));
}

async fn tell(
    pod: &Pod,
    mut to: WriteHalf<Flow>,
    mut answers: mpsc::Receiver<FromAgent>,
) -> Result<(), MessageError> {
    control::write(&mut to, &FromAgent::Facts(Box::new(facts::collect()))).await?;
    let mut terminating = pod.terminating.clone();
    let mut told = false;
    loop {
        let message = tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => answer,
                None => return Ok(()),
            },
            Ok(_) = terminating.wait_for(|terminating| *terminating), if !told => {
                told = true;
                FromAgent::Terminating
            }
        };
        control::write(&mut to, &message).await?;
    }
}
