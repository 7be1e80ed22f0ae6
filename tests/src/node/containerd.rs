//! The container runtime: its configuration, its readiness, its images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Place;
use crate::host::program::output;
use crate::images::Image;

pub(super) fn write_configuration(state: &Path) -> Result<()> {
    let folder = state.display();
    fs::write(
        state.join("containerd.toml"),
        format!(
            r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Some virtual machines and containers lack CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  # Pod namespaces under the state folder are ours to remove; those in /run/netns might be anybody's.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        # The default is one folder for all containerds of the machine.
        Root = "{folder}/containerd/runc"
"#
        ),
    )?;
    let cni = state.join("cni");
    fs::create_dir_all(&cni)?;
    let network = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "devproxy-bed",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    // The default keeps the leases of killed runs.
                    "dataDir": state.join("leases"),
                    "ranges": [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:10:244::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    fs::write(cni.join("10-bridge.conflist"), network.to_string())?;
    Ok(())
}

/// Waits until containerd answers.
pub(super) fn wait(place: Place) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(30);
    while let Err(error) = ctr(place, &["version"]) {
        if Instant::now() > limit {
            bail!("containerd does not answer: {error}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(super) fn import(place: Place, image: Image) -> Result<()> {
    let archive = image.archive()?;
    let imported = marker(&place.state(), image);
    let content = archive.display().to_string();
    if fs::read_to_string(&imported).is_ok_and(|known| known == content) {
        return Ok(());
    }
    ctr(place, &["--namespace", "k8s.io", "images", "import", &content])?;
    if let Some(folder) = imported.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(imported, content)?;
    Ok(())
}

fn marker(state: &Path, image: Image) -> PathBuf {
    state.join("images").join(image.name())
}

fn ctr(place: Place, args: &[&str]) -> Result<String> {
    let socket = place.state().join("containerd.sock");
    place.network().enter(|| output(Command::new("ctr").arg("--address").arg(&socket).args(args)))
}
