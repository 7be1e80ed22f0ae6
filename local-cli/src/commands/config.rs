//! `devproxy config`: each setting's value and where it comes from.

use console::Term;
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
    if wanted.output != Output::Text {
        let document = Document { files: &read.files, settings: &read.effective };
        super::print(&document, wanted.output)?;
        return Ok(0);
    }
    let place = Place::of_process();
    let rows: Vec<_> = read.effective.iter().map(|value| row(value, &place)).collect();
    let text = table(["KEY", "VALUE", "FROM"], &rows, crate::ui::width_of(&Term::stdout()), 0);
    super::write_stdout(&text);
    let progress = Progress::new();
    for notice in &read.cli.global.notices {
        progress.notice(notice);
    }
    Ok(0)
}

fn row(value: &Value, place: &Place) -> [String; 3] {
    let from = match &value.from {
        Source::Flag => "flag".to_owned(),
        Source::Variable { name } => name.clone(),
        Source::Project { path, line } | Source::User { path, line } => {
            format!("{}:{line}", place.shown(path.as_ref()))
        }
        Source::Default => "default".to_owned(),
    };
    let shown = if value.values.is_empty() { "-".to_owned() } else { value.values.join(", ") };
    [value.key.to_owned(), shown, from]
}
