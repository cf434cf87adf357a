//! The meta flake: the text that composes one agent's system. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use shared::AgentName;

use super::answer::HELD;
use super::store::StorePath;

/// The file in a config repo that holds the agent's own module.
pub(super) const MODULE_FILE: &str = "agent.nix";

/// A further input that the operator declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) path: StorePath,
    /// Whether it has a `flake.nix`. Its own inputs can only be what its lock file and the store give.
    pub(super) is_flake: bool,
}

/// What a system is composed of, all of it in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) agent: AgentName,
    /// As in `x86_64-linux`.
    pub(super) platform: &'static str,
    pub(super) nixpkgs: StorePath,
    pub(super) guest: StorePath,
    /// The operator's modules.
    pub(super) modules: Vec<StorePath>,
    /// By the name under which modules find them in `inputs`.
    pub(super) inputs: BTreeMap<String, Input>,
    /// The agent's tree, if it has a module.
    pub(super) tree: Option<StorePath>,
}

/// The text of `flake.nix`.
pub(super) fn text(sources: &Sources) -> String {
    let Sources {
        agent,
        platform,
        nixpkgs,
        guest,
        modules,
        inputs,
        tree,
    } = sources;
    let mut declared = String::new();
    let mut declare = |name: &str, path: &StorePath, is_flake: bool| {
        let name = quoted(name);
        let url = quoted(&address(path, is_flake));
        let flag = if is_flake { "" } else { "flake = false; " };
        // Writing to a string cannot fail.
        writeln!(declared, "    {name} = {{ url = {url}; {flag}}};").unwrap_or_default();
    };
    declare("nixpkgs", nixpkgs, true);
    declare("guest", guest, false);
    let mut composed = vec![module("guest", guest.below())];
    for (number, path) in modules.iter().enumerate() {
        let name = format!("module-{number}");
        declare(&name, path, false);
        composed.push(module(&name, path.below()));
    }
    let mut extra = String::new();
    for (name, input) in inputs {
        let inner = format!("input-{name}");
        declare(&inner, &input.path, input.is_flake);
        let value = if input.is_flake || input.path.below().is_empty() {
            format!("all.{}", quoted(&inner))
        } else {
            module(&inner, input.path.below())
        };
        write!(extra, "{} = {value}; ", quoted(name)).unwrap_or_default();
    }
    if let Some(tree) = tree {
        // Never a flake: whoever evaluates would fetch what its inputs name.
        declare("tree", tree, false);
        composed.push(module("tree", MODULE_FILE));
    }
    let composed = composed.join("\n          ");
    let guard: String = HELD
        .iter()
        .map(|held| {
            let path: Vec<_> = held.option.split('.').map(quoted).collect();
            format!("        {} = read [ {} ];\n", quoted(held.option), path.join(" "))
        })
        .collect();
    let (agent, platform) = (quoted(agent.as_str()), quoted(platform));
    format!(
        r#"# Written by hyperhive's daemon for one evaluation.
{{
  inputs = {{
{declared}  }};

  outputs =
    {{ self, nixpkgs, ... }}@all:
    let
      evaluated = nixpkgs.lib.nixosSystem {{
        system = {platform};
        specialArgs.inputs = {{ {extra}}};
        modules = [
          # Of ordinary priority: who wants another value is told so, and not overruled in silence.
          {{
            boot.isContainer = true;
            networking.hostName = {agent};
          }}
          {composed}
        ];
      }};
      inherit (evaluated) config;
      read = path: nixpkgs.lib.attrByPath path null config;
      toplevel = config.system.build.toplevel;
      given = set: removeAttrs set (builtins.filter (name: set.${{name}} == null) (builtins.attrNames set));
      fields = given (builtins.intersectAttrs {{
        prompt = null;
        driver = null;
        mcpServers = null;
        tools = null;
        recipients = null;
        network = null;
      }} (config.hyperhive or {{ }}));
      inner = value: if builtins.isAttrs value then given value else value;
      answer = fields // (if fields ? driver then {{ driver = inner fields.driver; }} else {{ }})
        // (if builtins.isAttrs (fields.mcpServers or null) then {{ mcpServers = builtins.mapAttrs (_: inner) fields.mcpServers; }} else {{ }});
    in
    {{
      hyperhive = {{
        guard = {{
{guard}        }};
        config = answer;
        configPaths = builtins.getContext (builtins.toJSON answer);
        toplevel = {{
          drv = builtins.unsafeDiscardStringContext toplevel.drvPath;
          out = builtins.unsafeDiscardStringContext toplevel.outPath;
        }};
      }};
    }};
}}
"#
    )
}

/// A store path as the address of a flake input.
fn address(path: &StorePath, is_flake: bool) -> String {
    if is_flake && !path.below().is_empty() {
        format!("path:{}?dir={}", path.root(), path.below())
    } else {
        format!("path:{}", path.root())
    }
}

/// A file of an input, as a Nix expression.
fn module(input: &str, below: &str) -> String {
    let below = if below.is_empty() {
        String::new()
    } else {
        format!("/{below}")
    };
    format!("\"${{all.{}}}{below}\"", quoted(input))
}

/// A text as a Nix string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            // Of `${` it is enough to take the sense from the first.
            '"' | '\\' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::store::Store;
    use super::*;

    fn path(name: &str) -> StorePath {
        let text = format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{name}");
        Store::of_machine().path(&text).expect("a store path")
    }

    fn sources() -> Sources {
        Sources {
            agent: "alice".parse().expect("a name"),
            platform: "x86_64-linux",
            nixpkgs: path("source"),
            guest: path("source/modules/guest"),
            modules: vec![path("wiki"), path("more.nix")],
            inputs: BTreeMap::from([
                (
                    "tools".to_owned(),
                    Input {
                        path: path("source/flakes/tools"),
                        is_flake: true,
                    },
                ),
                (
                    "data".to_owned(),
                    Input {
                        path: path("data"),
                        is_flake: false,
                    },
                ),
            ]),
            tree: Some(path("source")),
        }
    }

    #[test]
    fn the_meta_flake_is_the_same_text_for_the_same_inputs() {
        insta::assert_snapshot!(text(&sources()));
    }

    #[test]
    fn the_agents_tree_is_never_a_flake() {
        let text = text(&sources());
        let tree = text
            .lines()
            .find(|line| line.trim_start().starts_with("\"tree\" ="))
            .expect("a tree");
        assert!(tree.contains("flake = false;"), "{tree}");
    }

    #[test]
    fn without_a_module_of_its_own_the_agents_tree_is_no_input() {
        let text = text(&Sources {
            tree: None,
            ..sources()
        });
        assert!(!text.contains("tree"), "{text}");
    }

    #[test]
    fn a_string_stays_a_string() {
        assert_eq!(
            quoted("a\"; x = ${y} \\ \n$$"),
            "\"a\\\"; x = \\${y} \\\\ \\n\\$\\$\""
        );
    }
}
