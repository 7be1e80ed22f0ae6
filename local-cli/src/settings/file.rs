//! One configuration file: flat TOML, a key for each flag.

use std::{fs::File, io::Read as _, ops::Range, path::Path};

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

use crate::Failure;

/// Longest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// One line of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    /// As it is written.
    pub(super) source: String,
    kind: &'static str,
    /// `None` for what is neither text, number nor truth value, nor a list of these.
    values: Option<Vec<String>>,
}

impl Entry {
    /// The words that the flag would get.
    pub(super) fn values(&self, flag: &Arg, file: &str) -> Result<Vec<String>, Failure> {
        let (wanted, fits) = match flag.get_action() {
            ArgAction::Append => ("text, a number, or a list of these", self.kind != "a truth value"),
            ArgAction::Count => ("a number", self.kind == "a number"),
            _ if is_switch(flag) => ("true or false", self.kind == "a truth value"),
            _ => ("text or a number", matches!(self.kind, "text" | "a number")),
        };
        match &self.values {
            Some(values) if fits => Ok(values.clone()),
            _ => Err(Failure::new(
                "DP-CONFIG",
                format!("{file}:{}: `{}` is {}, not {wanted}", self.line, self.key, self.kind),
            )
            .hint(super::meaning(flag))),
        }
    }
}

/// Whether the flag alone means `true`.
fn is_switch(flag: &Arg) -> bool {
    flag.get_num_args().is_some_and(|count| count.min_values() == 0 && !flag.is_positional())
}

/// The file's text; `None` when there is no such file.
pub(super) fn read(path: &Path, shown: &str) -> Result<Option<String>, Failure> {
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::new("DP-CONFIG", format!("{shown}: {cause}")).hint("mend it, or move it away")
    };
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
        // A pipe would be waited for.
        Ok(metadata) if !metadata.is_file() => return Err(failed(&"not a regular file")),
        Ok(_) => {}
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > LONGEST {
        return Err(failed(&format_args!("longer than {LONGEST} bytes")));
    }
    String::from_utf8(text).map(Some).map_err(|_| failed(&"not UTF-8 text"))
}

/// Its entries, in the order of the file.
pub(super) fn entries(text: &str, file: &str) -> Result<Vec<Entry>, Failure> {
    let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map(|span: Range<usize>| line(span.start));
        let said = at.and_then(|at| text.lines().nth(at - 1)).unwrap_or_default().trim();
        let at = at.map_or(String::new(), |at| format!(":{at}"));
        let cause = match said.strip_suffix('=') {
            Some(key) => format!("`{}` has no value", key.trim()),
            None => error.message().replace('\n', ", "),
        };
        Failure::new("DP-CONFIG", format!("{file}{at}: {cause}"))
            .hint("the file is TOML: a `key = value` a line, text in quotes")
    })?;
    let mut entries: Vec<Entry> = table
        .get_ref()
        .iter()
        .map(|(key, value)| {
            let (start, end) = (key.span().start, value.span().end);
            let source = text.get(start..end).unwrap_or_default();
            Entry {
                key: key.get_ref().to_string(),
                line: line(start),
                source: source.split_whitespace().collect::<Vec<_>>().join(" "),
                kind: kind(value.get_ref()),
                values: values(value.get_ref()),
            }
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn values(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Array(list) => list.iter().map(|value| scalar(value.get_ref())).collect(),
        one => scalar(one).map(|value| vec![value]),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            Some(i128::from_str_radix(number.as_str(), number.radix()).ok()?.to_string())
        }
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}
