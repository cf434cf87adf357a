//! An agent's door: real routes on a real socket, before a fake world.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

#[path = "agent_door/bad_input.rs"]
mod bad_input;
#[path = "agent_door/budget.rs"]
mod budget;
#[path = "agent_door/hostile.rs"]
mod hostile;
#[path = "agent_door/instructions.rs"]
mod instructions;
#[path = "agent_door/look.rs"]
mod look;
#[path = "agent_door/mail.rs"]
mod mail;
#[path = "agent_door/orders.rs"]
mod orders;
#[path = "agent_door/protocol.rs"]
mod protocol;
#[path = "agent_door/wire.rs"]
mod wire;
#[path = "agent_door/world.rs"]
mod world;
