//! Strategies for specs that [`super::validate`] finds nothing wrong with.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use shared::gate::{GateClass, Verdict};
use shared::spec::{
    AgentSpec, BindSpec, BudgetSpec, BuilderKind, BuilderSpec, ConfigField, Drain, DriverKind, DriverSpec,
    EgressSpec, ForgeKind, ForgeSpec, HiveSpec, LimitsSpec, McpServerSpec, Network, OperatorSpec, PolicySpec,
    ProgramsSpec, ProxyAuthSpec, Role, RunState, RuntimeKind, RuntimeSpec, ScriptAction, ScriptPropose,
    ScriptRule, ScriptSend, SecretSpec, Spec, ToolsSpec, WebSpec,
};
use shared::{Address, AgentName, ServerName};

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(values.to_vec())
}

fn agent_name() -> impl Strategy<Value = AgentName> {
    "[a-z][a-z0-9-]{0,5}".prop_filter_map("reserved", |text| text.parse().ok())
}

fn server_name() -> impl Strategy<Value = ServerName> {
    "[A-Za-z0-9](_?[A-Za-z0-9-]){0,4}"
        .prop_filter("reserved", |text| text != "hive")
        .prop_map(|text| text.parse().expect("a server name"))
}

fn path() -> impl Strategy<Value = String> {
    "/srv(/[a-zA-Z0-9 é_-]{1,8}){1,3}"
}

fn host() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,8}(\\.[a-z]{2,5}){1,2}"
}

fn dollars() -> impl Strategy<Value = Option<f64>> {
    option::of(prop_oneof![0.0..1e6_f64, Just(0.1), Just(5.0)])
}

fn mcp_server(secrets: Vec<String>) -> BoxedStrategy<McpServerSpec> {
    let tools = || btree_set("[a-z*]{1,5}", 0..3);
    let program = (
        path(),
        vec(any_text(), 0..3),
        btree_map("[A-Z_]{1,5}", any_text(), 0..3),
        tools(),
    )
        .prop_map(|(command, args, env, allowed_tools)| McpServerSpec {
            command: Some(command),
            args,
            env,
            allowed_tools,
            ..McpServerSpec::default()
        });
    let headers = named(&secrets, "[A-Za-z-]{1,8}");
    let http = (host(), headers, tools()).prop_map(|(host, secret_headers, allowed_tools)| McpServerSpec {
        url: Some(format!("https://{host}/mcp")),
        secret_headers,
        allowed_tools,
        ..McpServerSpec::default()
    });
    prop_oneof![program, http].boxed()
}

/// Keys of this form, each with the name of a secret.
fn named(secrets: &[String], keys: &'static str) -> BoxedStrategy<BTreeMap<String, String>> {
    if secrets.is_empty() {
        Just(BTreeMap::new()).boxed()
    } else {
        btree_map(keys, one_of(secrets), 0..3).boxed()
    }
}

fn any_text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.replace('\0', ""))
}

fn driver() -> BoxedStrategy<DriverSpec> {
    let action = prop_oneof![
        any_text().prop_map(ScriptAction::Reply),
        any_text().prop_map(|body| ScriptAction::Send(ScriptSend {
            to: Address::Operator,
            body
        })),
        any_text().prop_map(ScriptAction::Ask),
        any_text().prop_map(|title| ScriptAction::Propose(ScriptPropose {
            title,
            reason: String::new(),
            set: BTreeMap::from([("prompt".to_owned(), serde_json::json!([1, { "a": null }]))]),
        })),
        any::<u64>().prop_map(ScriptAction::Sleep),
        any::<u64>().prop_map(ScriptAction::Use),
        any::<u8>().prop_map(ScriptAction::Crash),
        any::<bool>().prop_map(ScriptAction::Hang),
    ];
    let rule = (any_text(), vec(action, 0..3)).prop_map(|(on, actions)| ScriptRule { on, actions });
    let scripted = vec(rule, 0..3).prop_map(|script| DriverSpec {
        kind: DriverKind::Scripted,
        script,
        ..DriverSpec::default()
    });
    let claude = option::of("[a-z][a-z0-9.-]{0,8}").prop_map(|model| DriverSpec {
        kind: DriverKind::Claude,
        model,
        ..DriverSpec::default()
    });
    let acp = (path(), vec(any_text(), 0..3)).prop_map(|(command, args)| DriverSpec {
        kind: DriverKind::Acp,
        command: Some(command),
        args,
        ..DriverSpec::default()
    });
    prop_oneof![scripted, claude, acp].boxed()
}

fn binds() -> BoxedStrategy<Vec<BindSpec>> {
    btree_map("/(data|wiki)/[a-z]{1,4}", (path(), any::<bool>()), 0..3)
        .prop_map(|binds| {
            binds
                .into_iter()
                .map(|(target, (source, read_only))| BindSpec {
                    source,
                    target,
                    read_only,
                })
                .collect()
        })
        .boxed()
}

fn limits() -> BoxedStrategy<LimitsSpec> {
    (
        option::of((1..10_000_u32).prop_map(|n| format!("{n}%"))),
        option::of((1..1000_u32, one_of(&["K", "M", "G", "T"])).prop_map(|(n, unit)| format!("{n}{unit}"))),
        option::of(1..u32::MAX),
    )
        .prop_map(|(cpu, memory, tasks)| LimitsSpec { cpu, memory, tasks })
        .boxed()
}

/// An agent that may write to these.
fn agent(known: Vec<AgentName>) -> BoxedStrategy<AgentSpec> {
    let recipients = option::of(
        btree_set(prop::sample::select(known), 0..3)
            .prop_map(|names| -> BTreeSet<_> { names.into_iter().map(Address::Agent).collect() }),
    );
    btree_set("[a-z][a-z0-9_-]{0,5}", 0..3)
        .prop_flat_map(move |secrets| {
            let names: Vec<String> = secrets.into_iter().collect();
            let declared: BTreeMap<String, SecretSpec> = names
                .iter()
                .map(|name| {
                    let secret = SecretSpec {
                        file: format!("/run/secrets/{name}"),
                        version: "1".to_owned(),
                    };
                    (name.clone(), secret)
                })
                .collect();
            let does = (
                one_of(&[Role::Worker, Role::Manager]),
                one_of(&[RunState::Running, RunState::Paused, RunState::Stopped]),
                driver(),
                any_text(),
                btree_map(server_name(), mcp_server(names.clone()), 0..3),
                (
                    btree_set("[A-Z][a-z]{0,5}", 0..3),
                    btree_set("[A-Z][a-z]{0,5}", 0..3),
                ),
                recipients.clone(),
            );
            let has = (
                binds(),
                limits(),
                one_of(&[Network::None, Network::Model, Network::Host]),
                option::of(btree_set(host(), 0..3)),
                one_of(&[Drain::TurnBoundary, Drain::Immediate]),
                (
                    dollars(),
                    option::of(any::<u64>()),
                    dollars(),
                    option::of(any::<u64>()),
                    option::of(any::<u64>()),
                ),
                1..=1440_u32,
                named(&names, "[A-Z_]{1,6}"),
                btree_set(one_of(&ConfigField::ALL), 0..3),
                (option::of(path()), vec(path(), 0..3)),
            );
            (does, has, Just(declared)).prop_map(|(does, has, secrets)| {
                let (role, run, driver, prompt, mcp_servers, (allow, deny), recipients) = does;
                let (
                    binds,
                    limits,
                    network,
                    egress,
                    drain,
                    budget,
                    max_turn_minutes,
                    secret_env,
                    locked,
                    nix,
                ) = has;
                AgentSpec {
                    role,
                    run,
                    driver,
                    prompt,
                    mcp_servers,
                    tools: ToolsSpec { allow, deny },
                    recipients,
                    binds,
                    limits,
                    network: if egress.is_some() { Network::Hosts } else { network },
                    egress: egress.unwrap_or_default(),
                    drain,
                    budget: BudgetSpec {
                        usd_per_day: budget.0,
                        tokens_per_day: budget.1,
                        turns_per_day: budget.4,
                        usd_per_turn: budget.2,
                        tokens_per_turn: budget.3,
                    },
                    max_turn_minutes,
                    secrets,
                    secret_env,
                    locked,
                    system: nix.0,
                    modules: nix.1,
                }
            })
        })
        .boxed()
}

fn verdicts() -> BoxedStrategy<BTreeMap<GateClass, Verdict>> {
    btree_map(
        one_of(&GateClass::ALL),
        one_of(&[Verdict::Auto, Verdict::Ask, Verdict::Never]),
        0..5,
    )
    .prop_map(|verdicts| {
        verdicts
            .into_iter()
            .filter(|(class, verdict)| !(class.always_asks() && *verdict == Verdict::Auto))
            .collect()
    })
    .boxed()
}

fn builder() -> BoxedStrategy<BuilderSpec> {
    (
        one_of(&[BuilderKind::Plain, BuilderKind::Nix]),
        path(),
        1..=64_u32,
        btree_map("in[a-z]{1,5}", self::path(), 0..3),
        btree_set("[a-z]{1,5}\\.example", 0..3),
    )
        .prop_map(|(kind, path, max_builds, inputs, hosts)| BuilderSpec {
            kind,
            nixpkgs: Some(path.clone()),
            guest_module: Some(path),
            max_builds,
            inputs,
            hosts,
        })
        .boxed()
}

fn web() -> BoxedStrategy<WebSpec> {
    let proxy = (
        btree_set("10\\.0\\.0\\.[1-9]", 0..3),
        btree_set("[a-z]{1,5}", 0..3),
    )
        .prop_map(|(trusted, users)| ProxyAuthSpec {
            header: "X-Remote-User".to_owned(),
            trusted,
            users,
        });
    (
        option::of(any::<std::net::SocketAddr>().prop_map(|address| without_scope(address).to_string())),
        btree_set(host(), 0..3),
        option::of(proxy),
    )
        .prop_map(|(listen, hosts, proxy_auth)| WebSpec {
            listen,
            hosts,
            proxy_auth,
        })
        .boxed()
}

fn without_scope(address: std::net::SocketAddr) -> std::net::SocketAddr {
    (address.ip(), address.port()).into()
}

/// A spec without faults.
pub(crate) fn spec() -> BoxedStrategy<Spec> {
    btree_set(agent_name(), 1..4)
        .prop_flat_map(|names| {
            let names: Vec<AgentName> = names.into_iter().collect();
            let agents: Vec<_> = names
                .iter()
                .map(|name| (Just(name.clone()), agent(names.clone())))
                .collect();
            let hive = (
                "[a-zA-Zäöü ]{1,20}",
                option::of("[a-z]{1,9}"),
                one_of(&[RuntimeKind::Process, RuntimeKind::Nspawn]),
                any::<bool>(),
                option::of(path()),
                option::of(path()),
                option::of((host(), path())),
                10..1000_u32,
            );
            let forge = option::of(one_of(&[ForgeKind::Git, ForgeKind::Forgejo]));
            (
                hive,
                builder(),
                verdicts(),
                verdicts(),
                web(),
                forge,
                agents,
                agent(names),
            )
                .prop_map(
                    |(hive, builder, by_spec, by_agent, web, forge, agents, spawn_defaults)| {
                        let (name, operator, kind, unsafe_no_sandbox, harness, claude, model, max_agents) =
                            hive;
                        let (model_host, api_key_file) = model.unzip();
                        Spec {
                            version: 1,
                            hive: HiveSpec {
                                name,
                                budget: Default::default(),
                            },
                            operator: OperatorSpec {
                                name: operator,
                                pronouns: Some("they/them".to_owned()),
                            },
                            runtime: RuntimeSpec {
                                kind,
                                unsafe_no_sandbox,
                            },
                            builder,
                            policy: PolicySpec {
                                spec: by_spec,
                                agent: by_agent,
                            },
                            web,
                            forge: forge.map(|kind| ForgeSpec {
                                kind,
                                url: "https://git.example.com/hive/{agent}.git".to_owned(),
                                token_file: Some("/run/secrets/forge".to_owned()),
                            }),
                            egress: EgressSpec {
                                model_url: model_host.map(|host| format!("https://{host}")),
                                api_key_file,
                            },
                            harness,
                            programs: ProgramsSpec { claude },
                            spawn_defaults,
                            max_agents,
                            agents: agents.into_iter().collect(),
                        }
                    },
                )
        })
        .boxed()
}

/// Any JSON.
pub(crate) fn json() -> BoxedStrategy<serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        one_of(&["all", "system", "operator", "/", "..", "x", "100%", "4G"]).prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
            btree_map("[a-zA-Z_.\\[ ]{0,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

/// Replaces a part of a document, picked by `pick`, by `with`; or, without `with`, takes it out.
pub(crate) fn damage(value: &mut serde_json::Value, pick: &mut u64, with: Option<serde_json::Value>) {
    use serde_json::Value;
    let (turn, children) = match value {
        Value::Array(items) => (*pick, items.len()),
        Value::Object(map) => (*pick, map.len()),
        _ => (0, 0),
    };
    if children == 0 {
        *value = with.unwrap_or_default();
        return;
    }
    let children = u64::try_from(children).unwrap_or(1);
    let index = usize::try_from(turn % children).unwrap_or(0);
    *pick /= children;
    // One time in four here, else further down.
    let here = pick.is_multiple_of(4);
    *pick /= 4;
    match (value, here, with) {
        (Value::Array(items), true, None) => drop(items.remove(index)),
        (Value::Array(items), true, Some(with)) => items[index] = with,
        (Value::Array(items), false, with) => damage(&mut items[index], pick, with),
        (Value::Object(map), here, with) => {
            let Some(key) = map.keys().nth(index).cloned() else {
                return;
            };
            match (here, with) {
                (true, None) => drop(map.remove(&key)),
                (true, Some(with)) => drop(map.insert(key, with)),
                (false, with) => damage(&mut map[&key], pick, with),
            }
        }
        _ => {}
    }
}
