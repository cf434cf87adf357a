//! The way out of the agents: `hive egress`.
//!
//! Agents on the networks `model` and `hosts` have loopback only, and a folder with two sockets. Behind one is the model
//! gateway: it forwards to the provider that the operator named, and puts the provider's key in. Behind the other is a
//! proxy that knows CONNECT alone, for the hosts in the agent's list. Whatever comes through these sockets is hostile.
//!
//! Decisions are pure: [`rule`] says which hosts are listed, [`address`] which addresses may be connected to, [`request`]
//! what of the provider's API is forwarded and with which headers, [`book`] what is told to the daemon. The edges carry
//! them out: [`proxy`], [`gateway`], [`resolve`], [`provider`], [`key`].
//!
//! What is allowed stands in one file, which the daemon writes ([`policy`]). The service needs nothing else of the daemon,
//! and goes on while that is away.

pub mod address;
pub mod book;
mod count;
pub mod door;
pub mod gateway;
pub mod key;
pub mod policy;
pub mod provider;
pub mod proxy;
pub mod report;
pub mod request;
pub mod resolve;
pub mod rule;
pub mod service;

pub mod tally;
#[cfg(test)]
mod testing;

/// The name of the model gateway's socket in an agent's folder.
pub const MODEL_SOCKET: &str = "model.sock";
/// The name of the proxy's socket in an agent's folder.
pub const PROXY_SOCKET: &str = "proxy.sock";
