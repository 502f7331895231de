//! Changes of the Canary's status: phases, conditions, the outcome of a run.

pub mod change;
pub mod compared;
pub mod draining;
pub mod outcome;
pub mod pods_lost;
pub mod refused;
pub mod transitions;
pub mod verdict;

pub use change::StatusChange;
pub use outcome::Outcome;
pub use pods_lost::PodsLost;
pub use verdict::FailedCheck;
