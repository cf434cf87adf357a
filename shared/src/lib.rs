//! The wire types of hyperhive: what the daemon, the harness and the command line say to each other.
//!
//! Everything here is plain data. Documents an operator writes ([`spec`]) reject unknown fields; documents the
//! programs exchange ([`agent_api`], [`admin_api`], [`event`], [`status`]) tolerate them, so that a daemon and a
//! harness of neighbouring versions understand each other (see [`version`]).
//!
//! This crate is the only thing the daemon and the harness have in common, and it depends on little besides serde.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admin_api;
pub mod agent_api;
pub mod agent_event;
pub mod budget;
pub mod canonical;
pub mod config;
pub mod draft;
pub mod egress;
pub mod event;
pub mod gate;
pub mod id;
pub mod instruction;
pub mod login;
pub mod look;
pub mod loose_end;
pub mod name;
pub mod order;
pub mod plan;
pub mod question;
pub mod reminder;
pub mod secret;
pub mod spec;
pub mod status;
pub mod topic;
pub mod turn;
pub mod version;
pub mod wire_error;

pub use id::{AgentUid, CommitOid, Digest, GateId, HiveId, LoginId, ProposalNumber, TurnId};
pub use name::{Address, AgentName, InvalidName, ServerName};
