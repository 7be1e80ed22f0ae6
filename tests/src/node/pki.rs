//! The cluster's certificate authority and one certificate per component, made with openssl once per node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::host::program::output;

/// The folder of keys and certificates.
#[derive(Debug, Clone)]
pub(super) struct Pki {
    folder: PathBuf,
}

/// Who a certificate speaks for.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    /// File name without extension.
    pub(super) file: &'a str,
    /// As openssl writes it, such as `/O=system:masters/CN=admin`.
    pub(super) name: &'a str,
    /// Alternative names as openssl writes them, such as `DNS:node1,IP:127.0.0.1`.
    pub(super) alternatives: &'a str,
}

impl Pki {
    /// Makes the authority and the key of the service accounts in `folder` unless they are there.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let pki = Self { folder: folder.to_owned() };
        if !pki.certificate("ca").exists() {
            pki.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-keyout",
                "ca.key",
                "-out",
                "ca.crt",
                "-days",
                "365",
                "-subj",
                "/CN=devproxy-bed-ca",
            ])?;
            pki.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key"])?;
            pki.openssl(&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
        }
        Ok(pki)
    }

    /// Signs a certificate for server and client use unless it is there.
    pub(super) fn issue(&self, subject: &Subject<'_>) -> Result<()> {
        let file = subject.file;
        if self.certificate(file).exists() {
            return Ok(());
        }
        let (key, request, certificate) =
            (format!("{file}.key"), format!("{file}.csr"), format!("{file}.crt"));
        let extensions = format!("{file}.ext");
        fs::write(
            self.folder.join(&extensions),
            format!("subjectAltName={}\nextendedKeyUsage=serverAuth,clientAuth\n", subject.alternatives),
        )?;
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            subject.name,
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "365",
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ])?;
        Ok(())
    }

    /// The certificate file of `name`.
    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    /// The key file of `name`.
    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn openssl(&self, args: &[&str]) -> Result<()> {
        output(Command::new("openssl").args(args).current_dir(&self.folder))?;
        Ok(())
    }
}
