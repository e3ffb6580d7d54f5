//! How a long operation tells its caller how far it is, and learns that it should stop.

use crate::error::Result;

/// The ear of a long operation. The library never prints: it calls this.
pub trait Monitor: Sync {
    /// A phase begins: what is being done ("reading", "compressing") and how many bytes it will take.
    fn begin(&self, phase: &str, bytes: u64);

    /// So many more bytes of the phase are done.
    fn advance(&self, bytes: u64);

    /// The phase is over.
    fn end(&self);

    /// Something a user should hear at once, such as who is being waited for.
    fn notice(&self, text: &str);

    /// Fails with [`crate::error::Kind::Interrupted`] if the operation should stop now.
    /// Called often, only where stopping leaves nothing half-done.
    fn check(&self) -> Result<()>;
}

/// Hears nothing and never stops anything.
pub struct Silent;

impl Monitor for Silent {
    fn begin(&self, _phase: &str, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn notice(&self, _text: &str) {}
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
