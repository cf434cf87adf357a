//! The nix builder: an agent's own NixOS module, composed with the operator's into a system of its own.
//!
//! ```text
//! commit --raw blobs--> <store>/…-source --+
//! nixpkgs, guest module, operator's ------ +--> meta flake --limited evaluator--> answer --checked--> realised, rooted
//! modules and inputs, each a store path ---+       (flake)       (evaluate)       (answer)             (builder)
//! ```
//!
//! Evaluators see the store and nothing else: no repository, no git, no folder of the host. An agent's tree is never a
//! flake, because a flake's own inputs would be fetched by whoever evaluates. What the evaluation says is data to be
//! checked: values that must hold are compared here, where no module can reach.

mod answer;
mod builder;
mod derivation;
pub mod evaluate;
mod fault;
mod flake;
mod generations;
mod program;
mod store;
mod surface;

pub use builder::{NixBuilder, NixOptions};
pub(super) use program::find;
pub use store::{Store, StorePath};

/// Where agents' profiles lie: the collector looks there.
pub const PROFILES: &str = "/nix/var/nix/profiles/hyperhive";
