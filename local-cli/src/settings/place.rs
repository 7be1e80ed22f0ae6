//! Where settings are looked for: the variables, the project's file above the working directory, the user's file.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

/// Name of the project's file.
const PROJECT: &str = "devproxy.toml";
/// Folders looked into at most, from the working directory upwards.
const DEEPEST: usize = 64;

/// The working directory, the user's folders and the environment.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The working directory, if there is one.
    pub folder: Option<PathBuf>,
    /// `$HOME`
    pub home: Option<PathBuf>,
    /// The variables whose names begin as ours, and `XDG_CONFIG_HOME`.
    pub variables: BTreeMap<String, String>,
}

impl Place {
    /// Of this process.
    pub fn of_process() -> Self {
        let ours = |name: &String| name.starts_with("DEVPROXY_") || name == "XDG_CONFIG_HOME";
        let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self {
            folder: std::env::current_dir().ok(),
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            variables: std::env::vars_os().filter_map(pair).filter(|(name, _)| ours(name)).collect(),
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// `$XDG_CONFIG_HOME/devproxy/config.toml`, else `~/.config/devproxy/config.toml`.
    pub fn user_file(&self) -> Option<PathBuf> {
        // The standard: a relative path is to be ignored.
        let set = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = set.or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(folder.join("devproxy/config.toml"))
    }

    /// The nearest `devproxy.toml` from the working directory upwards, not above the user's home and not on another
    /// file system; and why one was passed over.
    pub(super) fn project_file(&self) -> (Option<PathBuf>, Option<String>) {
        let Some(start) = &self.folder else { return (None, None) };
        let device = |folder: &Path| fs::metadata(folder).ok().map(|metadata| metadata.dev());
        let home = device(start);
        for folder in start.ancestors().take(DEEPEST) {
            if device(folder) != home {
                break;
            }
            let path = folder.join(PROJECT);
            if let Ok(metadata) = fs::metadata(&path) {
                // As git does since CVE-2022-24765: whoever may write into a folder above (/tmp, a share) must not
                // decide about our cluster.
                let owner = metadata.uid();
                if owner == Uid::current().as_raw() || owner == 0 {
                    return (Some(path), None);
                }
                return (None, Some(format!("{} belongs to somebody else and is not read", path.display())));
            }
            if self.home.as_deref() == Some(folder) {
                break;
            }
        }
        (None, None)
    }

    /// `path` as people write it: from the working directory in a project, else from `~`.
    pub fn shown(&self, path: &Path) -> String {
        let below = |folder: &Option<PathBuf>| Some(path.strip_prefix(folder.as_ref()?).ok()?.to_owned());
        let in_project = self.folder != self.home && self.folder.as_deref() != Some(Path::new("/"));
        match (below(&self.folder), below(&self.home)) {
            (Some(path), _) if in_project => path.display().to_string(),
            (_, Some(path)) => format!("~/{}", path.display()),
            (_, None) => path.display().to_string(),
        }
    }
}
