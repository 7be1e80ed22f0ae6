//! The licences of the libraries that are linked into the programs: their own files, each text once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use devproxy_tests::host::program::output;
use serde_json::Value;

use super::project::Project;
use super::{Architecture, read};

/// What is linked: the program and the agent in it.
const ROOTS: [&str; 2] = ["devproxy", "devproxy-agent"];

/// How licence files begin.
const FILES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

const HEAD: &str = "\
devproxy is linked statically with the libraries below, with Rust's standard library (MIT or Apache-2.0, the Rust
Project's developers) and with musl. First the list, then each text of a licence with those that come under it.

";

pub(super) fn of_libraries(project: &Project) -> Result<String> {
    let mut list = String::from(HEAD);
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for library in libraries(project)? {
        writeln!(list, "{}  {}  {}", library.name, library.terms, library.source)?;
        for text in library.texts()? {
            texts.entry(text).or_default().insert(library.name.clone());
        }
    }
    let musl = String::from_utf8(read(&project.root().join("packaging/musl-COPYRIGHT"))?)?;
    texts.entry(musl).or_default().insert("musl".to_owned());
    // By the first library that comes under it.
    let mut texts: Vec<_> = texts.into_iter().map(|(text, names)| (names, text)).collect();
    texts.sort();
    for (names, text) in texts {
        let names: Vec<_> = names.into_iter().collect();
        writeln!(list, "\n{}\n{}\n\n{}", "=".repeat(100), names.join(", "), text.trim_end())?;
    }
    Ok(list)
}

struct Library {
    name: String,
    terms: String,
    source: String,
    folder: std::path::PathBuf,
}

impl Library {
    fn of(package: &Value) -> Result<Self> {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let manifest = text("manifest_path");
        let folder = Path::new(&manifest).parent().context("a manifest lies in no folder")?.to_owned();
        Ok(Self {
            name: format!("{} {}", text("name"), text("version")),
            terms: text("license"),
            source: text("repository"),
            folder,
        })
    }

    /// Also those of what a library carries along: C sources come with licences of their own.
    fn texts(&self) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        let mut open = vec![self.folder.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().to_uppercase();
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else if FILES.iter().any(|file| name.starts_with(file)) {
                    texts.push(String::from_utf8_lossy(&fs::read(entry.path())?).replace("\r\n", "\n"));
                }
            }
        }
        Ok(texts)
    }
}

/// Sorted by name; those of the workspace are not among them.
fn libraries(project: &Project) -> Result<Vec<Library>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = output(Command::new(cargo).current_dir(project.root()).args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        Architecture::Amd64.rust_target(),
    ]))?;
    let metadata: Value = serde_json::from_str(&told)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
    let packages: HashMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (id(&package), package)).collect();
    let nodes: HashMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (id(&node), node)).collect();

    let is_root = |package: &Value| ROOTS.iter().any(|root| package["name"] == *root);
    let mut open: Vec<String> =
        packages.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| id.clone()).collect();
    let mut linked = BTreeSet::new();
    while let Some(next) = open.pop() {
        let node = nodes.get(&next).with_context(|| format!("cargo tells nothing of {next}"))?;
        if linked.insert(next) {
            let normal =
                |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            open.extend(
                list(&node["deps"])
                    .iter()
                    .filter(|dependency| normal(dependency))
                    .filter_map(|dependency| Some(dependency["pkg"].as_str()?.to_owned())),
            );
        }
    }
    let mut libraries = linked
        .iter()
        .filter_map(|id| packages.get(id))
        .filter(|package| !package["source"].is_null())
        .map(Library::of)
        .collect::<Result<Vec<_>>>()?;
    libraries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(libraries)
}
