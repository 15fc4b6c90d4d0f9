//! What the micro-benchmarks and the load generator measure alike: parts of the engine in this very process.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod resolution;
pub mod statistics;
pub mod timing;
