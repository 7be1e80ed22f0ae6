//! What users do with the artefacts, on clean Debian systems: install, look, swap a service of a real cluster as an
//! ordinary user, remove.

mod emulated;
mod installed;

use std::time::Duration;

use anyhow::{Result, ensure};
use devproxy_tests::host::packages;
use devproxy_tests::host::root::{CleanRoot, Suite};
use devproxy_tests::{App, Bed};
use nix::sys::signal::Signal;

use super::project::Project;
use crate::set_up;

use installed::{Form, Installed};

/// From Enter to the handover.
const SWAP: Duration = Duration::from_mins(1);
/// From the program's end to ours.
const RESTORE: Duration = Duration::from_mins(2);
/// For what only prints.
const WORD: Duration = Duration::from_secs(20);

/// A web server of what the smallest Debian has: perl without modules of its own.
const SERVER: &str = r#"
    use IO::Socket::INET;
    my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die "listen: $!";
    while (my $client = $server->accept) {
        while (<$client>) { last if /^\r?\n$/ }
        my $words = "$ENV{COLOUR} from a clean root";
        print $client "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " . length($words) . "\r\n\r\n$words";
        close $client;
    }
"#;

pub(super) fn run(project: &Project) -> Result<()> {
    set_up::all()?;
    packages::require_trial()?;
    emulated::arm64_program_speaks(project)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let bed = Bed::get().await?;
        for suite in Suite::ALL {
            for form in [Form::Tarball, Form::Package] {
                works(&bed, project, suite, form).await?;
                println!("{} on Debian {}: installed, swapped, restored, removed", form.name(), suite.name());
            }
        }
        Ok(())
    })
}

async fn works(bed: &Bed, project: &Project, suite: Suite, form: Form) -> Result<()> {
    let shop = bed.namespace("dist").await?;
    shop.deploy(App::shop("cart").env("COLOUR", "green")).await?;
    shop.client().await?;
    let laptop = bed.laptop().await?;
    laptop.login(&shop).await?;

    let root = CleanRoot::of(suite)?;
    if form == Form::Package {
        root.add_user(laptop.uid(), &laptop.user(), laptop.home())?;
    } // Else a user of a directory service, of whom /etc/passwd and so a static program know nothing.
    let files = root.files()?;
    let installed = Installed::install(form, project, &root, &laptop).await?;
    installed.look(suite).await?;

    let before = shop.objects().await?;
    let program = installed.program("devproxy");
    let mut swap =
        laptop.command(&program).args(["swap", "cart", "--", "perl", "-e", SERVER]).root(&root).spawn()?;
    swap.wait_for("handover", SWAP).await?;
    shop.until_swapped("cart").await?;
    let answer = shop.ask("http://cart:8080/").await?;
    ensure!(answer == "green from a clean root", "cart answers `{answer}`");
    let status = laptop.command(&program).arg("status").root(&root).output(WORD).await?.success()?.stdout;
    ensure!(status.contains(&laptop.user()), "`status` does not name {}: {status}", laptop.user());
    swap.signal(Signal::SIGTERM)?;
    let exit = swap.wait(RESTORE).await?;
    ensure!(exit.code() == 128 + Signal::SIGTERM as i32, "perl ends by the signal, and so do we: {exit:?}");
    shop.ready("cart").await?;
    before.require_same(&shop.objects().await?)?;

    installed.remove().await?;
    let left: Vec<_> = root.files()?.into_iter().filter(|file| !files.contains(file)).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}
