//! Where the product runs.

use anyhow::Result;

/// The addresses at which laptops see the API server, for its certificate.
pub fn wire_addresses() -> impl Iterator<Item = String> {
    (0..16).map(|index| format!("100.64.8.{}", index * 4 + 1))
}

/// Removes what laptops of killed runs left.
pub fn remove_leftovers() -> Result<()> {
    Ok(())
}
