//! The test bed of devproxy, and the words that tests are written in:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use devproxy_tests::{App, Bed};
//! # async fn example() -> anyhow::Result<()> {
//! let bed = Bed::get().await?;
//! let shop = bed.namespace("shop").await?;
//! shop.deploy(App::shop("cart").replicas(2).env("COLOUR", "green")).await?;
//! let laptop = bed.laptop().await?;
//! laptop.login(&shop).await?;
//! let load = shop.load("http://cart:8080/").rate(300).start().await?;
//! let mut swap = laptop.devproxy(["swap", "cart", "--", "shopd"])?.env("VERSION", "mine").spawn()?;
//! swap.wait_for("handover", Duration::from_secs(30)).await?;
//! load.finish().await?.require_no_failure()?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`bed`]: all of it together, shared by the tests of a machine; [`cluster`]: ours or the user's;
//! - [`node`]: a real Kubernetes node on this machine, up in seconds; [`kubectl`]: how the bed speaks to its API;
//! - [`namespace`]: a test's own part of the cluster; [`app`]: what is deployed there; [`images`]: of what;
//! - [`laptop`]: where the product runs; [`relay`]: the wire from there to the API server;
//! - [`load`]: requests inside the cluster, counted; [`objects`]: a namespace before and after; [`snapshots`]: what is
//!   printed, as a whole;
//! - [`host`]: what the bed does to the machine it runs on.
//!
//! Requirements are Linux, root, Go, and Debian's packages, which are installed when missing. What is missing is an
//! error that says so, never a skipped test.

pub mod app;
pub mod bed;
pub mod cluster;
pub mod host;
pub mod images;
pub mod kubectl;
pub mod laptop;
pub mod load;
pub mod namespace;
pub mod node;
pub mod objects;
pub mod relay;
pub mod snapshots;

pub use app::App;
pub use bed::Bed;
pub use cluster::Cluster;
pub use images::Image;
pub use laptop::{Exit, Laptop, LaptopCommand, Run};
pub use load::{Load, Report};
pub use namespace::{Namespace, pod_addresses};
pub use node::Node;
pub use objects::Objects;
pub use relay::Relay;
