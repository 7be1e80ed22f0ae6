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
        "namespace" => said.namespace.as_ref().map(of_file),
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
