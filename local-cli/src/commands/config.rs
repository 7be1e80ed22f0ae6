//! `devproxy config`: each setting's value and where it comes from.

use std::path::PathBuf;

use console::Term;
use devproxy_cluster::kubeconfig::{Said, said};
use serde::Serialize;

use crate::{
    Failure,
    cli::{Config, Output, Read},
    settings::{Place, Source, Value},
    ui::{Progress, table::table},
};

/// `-o json`, documented in docs/OUTPUT.md.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// The files that were read.
    files: &'a [String],
    settings: &'a [Value],
}

pub(super) fn run(wanted: &Config, read: &Read) -> Result<u8, Failure> {
    let said = said(&super::api_settings(&read.cli.global));
    let settings: Vec<_> = read.effective.iter().map(|value| filled(value, &said)).collect();
    if wanted.output != Output::Text {
        let document = Document { files: &read.files, settings: &settings };
        super::print(&document, wanted.output)?;
        return Ok(0);
    }
    let place = Place::of_process();
    let rows: Vec<_> = settings.iter().map(|value| row(value, &place)).collect();
    let text = table(["KEY", "VALUE", "FROM"], &rows, crate::ui::width_of(&Term::stdout()), 0);
    super::write_stdout(&text);
    let progress = Progress::new();
    for notice in &read.cli.global.notices {
        progress.notice(notice);
    }
    Ok(0)
}

/// What nobody said is as the kubeconfig has it, and that where kubectl looks for it.
fn filled(value: &Value, said: &Said) -> Value {
    if value.from != Source::Default {
        return value.clone();
    }
    let of_file = |(text, path): &(String, PathBuf)| {
        (vec![text.clone()], Source::Kubeconfig { path: path.display().to_string() })
    };
    let found = match value.key {
        "kubeconfig" => {
            let files = said.files.iter().map(|path| path.display().to_string()).collect();
            let variable = said.variable.map(|name| Source::Variable { name: name.to_owned() });
            Some((files, variable.unwrap_or(Source::Default)))
        }
        "context" => said.context.as_ref().map(of_file),
        "namespace" if said.files.is_empty() => None,
        // As kubectl: where the context names none, too.
        "namespace" => {
            Some(said.namespace.as_ref().map_or((vec!["default".to_owned()], Source::Default), of_file))
        }
        _ => None,
    };
    let (values, from) = found.unwrap_or_else(|| (value.values.clone(), Source::Default));
    Value { key: value.key, values, from }
}

fn row(value: &Value, place: &Place) -> [String; 3] {
    let from = match &value.from {
        Source::Flag => "flag".to_owned(),
        Source::Variable { name } => name.clone(),
        Source::Project { path, line } | Source::User { path, line } => {
            format!("{}:{line}", place.shown(path.as_ref()))
        }
        Source::Kubeconfig { path } => place.shown(path.as_ref()),
        Source::Default => "default".to_owned(),
    };
    let values: Vec<_> = match value.key {
        "kubeconfig" => value.values.iter().map(|path| place.shown(path.as_ref())).collect(),
        _ => value.values.clone(),
    };
    let shown = if values.is_empty() { "-".to_owned() } else { values.join(", ") };
    [value.key.to_owned(), shown, from]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_said_is_what_kubectl_would_take() {
        let file = PathBuf::from("/home/ann/.kube/config");
        let said = |namespace: Option<&str>| Said {
            files: vec![file.clone()],
            variable: Some("KUBECONFIG"),
            context: Some(("staging".to_owned(), file.clone())),
            namespace: namespace.map(|name| (name.to_owned(), file.clone())),
        };
        let shown = |key, values: &[&str], from, said: &Said| {
            let values = values.iter().map(ToString::to_string).collect();
            row(&filled(&Value { key, values, from }, said), &Place::default()).join(" ")
        };
        let kubeconfig = shown("kubeconfig", &[], Source::Default, &said(None));
        assert_eq!(kubeconfig, "kubeconfig /home/ann/.kube/config KUBECONFIG");
        let context = |from| shown("context", &[], from, &said(None));
        assert_eq!(context(Source::Default), "context staging /home/ann/.kube/config");
        let namespace = |values: &[&str], from, said: &Said| shown("namespace", values, from, said);
        assert_eq!(
            namespace(&[], Source::Default, &said(Some("shop"))),
            "namespace shop /home/ann/.kube/config"
        );
        assert_eq!(namespace(&[], Source::Default, &said(None)), "namespace default default");
        assert_eq!(namespace(&["till"], Source::Flag, &said(Some("shop"))), "namespace till flag");
        assert_eq!(namespace(&[], Source::Default, &Said::default()), "namespace - default");
    }
}
