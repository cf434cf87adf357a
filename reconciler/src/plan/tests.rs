//! Tests of the planner, against a small world of plain values. A test says only what differs from a hive at rest.

mod agent;
mod base;
mod convergence;
mod digests;
mod draft;
mod fetch;
mod gates;
mod hive;
mod invariants;
mod laws;
mod order;
mod refs;
mod run;
mod schedule;
mod status;
mod trial;
mod world;
