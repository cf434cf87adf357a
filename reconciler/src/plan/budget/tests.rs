use super::*;

fn spent(tokens: u64, usd: f64) -> Spent {
    Spent {
        turns: 1,
        tokens,
        usd,
        most_tokens: tokens,
        most_usd: usd,
    }
}

fn by_day(tokens: Option<u64>, usd: Option<f64>) -> BudgetSpec {
    BudgetSpec {
        tokens_per_day: tokens,
        usd_per_day: usd,
        ..BudgetSpec::default()
    }
}

fn agents(agent: BudgetSpec) -> Budgets {
    Budgets {
        agent,
        hive: BudgetSpec::default(),
    }
}

fn account(agent: Spent, hive: Spent) -> Account {
    Account {
        agent,
        hive,
        ..Account::default()
    }
}

fn why(budgets: &Budgets, account: &Account) -> Option<String> {
    budgets.exhausted(account).map(|(_, why)| why)
}

#[test]
fn either_limit_is_enough_and_without_one_nothing_is_too_much() {
    let free = Budgets::default();
    let all = spent(u64::MAX, 1e9);
    assert!(!free.are_limits());
    assert_eq!(free.exhausted(&account(all, all)), None);
    let budgets = agents(by_day(Some(100), Some(2.0)));
    assert!(budgets.are_limits());
    assert_eq!(why(&budgets, &account(spent(99, 1.99), all)), None);
    let tokens = why(&budgets, &account(spent(100, 0.0), all)).expect("too many tokens");
    assert!(
        tokens.contains("100 tokens") && tokens.contains("tokensPerDay"),
        "{tokens}"
    );
    let money = why(&budgets, &account(spent(0, 2.0), all)).expect("too much money");
    assert!(money.contains("$2.00") && money.contains("usdPerDay"), "{money}");
}

#[test]
fn turns_that_began_are_counted_whatever_they_used() {
    let budgets = agents(BudgetSpec {
        turns_per_day: Some(3),
        ..BudgetSpec::default()
    });
    let of = |turns| Spent {
        turns,
        ..Spent::default()
    };
    assert_eq!(why(&budgets, &account(of(2), of(9))), None);
    assert!(why(&budgets, &account(of(3), of(9))).is_some_and(|why| why.contains("3 turns")));
}

#[test]
fn one_turn_that_used_too_much_is_enough_but_no_turn_at_all_is_not() {
    let by_turn = |tokens| {
        agents(BudgetSpec {
            tokens_per_turn: Some(tokens),
            ..BudgetSpec::default()
        })
    };
    let none = Spent::default();
    assert_eq!(why(&by_turn(10), &account(spent(9, 0.0), none)), None);
    assert!(why(&by_turn(10), &account(spent(10, 0.0), none)).is_some());
    assert_eq!(why(&by_turn(0), &account(none, none)), None);
}

#[test]
fn what_all_agents_used_together_stops_each_of_them() {
    let budgets = Budgets {
        agent: by_day(Some(100), None),
        hive: by_day(Some(1000), None),
    };
    let of = |agent, hive| {
        let whose = budgets.exhausted(&account(spent(agent, 0.0), spent(hive, 0.0)));
        whose.map(|(whose, _)| whose)
    };
    assert_eq!(of(99, 999), None);
    assert_eq!(of(1, 1000), Some(Whose::Hives));
    assert_eq!(of(100, 1000), Some(Whose::Agents), "its own comes first");
}

#[test]
fn what_the_operator_allows_multiplies_the_budget_or_lifts_it() {
    let budgets = agents(by_day(Some(100), None));
    let of = |may, tokens| {
        let account = Account {
            agent_may: may,
            ..account(spent(tokens, 0.0), Spent::default())
        };
        (
            budgets.exhausted(&account).is_some(),
            budgets.limits(&account, &Spent::default()).tokens,
        )
    };
    let more = Allowed::default().after(" More\n").expect("it is allowed");
    assert_eq!(more, Allowed::Times(2));
    assert_eq!(of(Allowed::default(), 100), (true, Some(0)));
    assert_eq!(of(more, 199), (false, Some(1)));
    assert_eq!(of(more, 200), (true, Some(0)));
    let lifted = more.after("lift").expect("it is allowed");
    assert_eq!(of(lifted, u64::MAX), (false, None));
    for no in ["", "no", "no more", "nothing more today"] {
        assert_eq!(Allowed::default().after(no), None, "{no:?}");
    }
}

#[test]
fn a_turn_may_use_what_is_left_of_the_tightest_budget_besides_what_it_used_itself() {
    let budgets = Budgets {
        agent: BudgetSpec {
            tokens_per_turn: Some(500),
            ..by_day(Some(1000), Some(3.0))
        },
        hive: by_day(Some(5000), Some(4.0)),
    };
    let of = |agent, hive, own| {
        let limits = budgets.limits(&account(agent, hive), &own);
        (limits.tokens, limits.cost_usd)
    };
    let none = Spent::default();
    assert_eq!(of(none, none, none), (Some(500), Some(3.0)), "by the turn");
    assert_eq!(
        of(spent(800, 1.0), none, none),
        (Some(200), Some(2.0)),
        "the rest of the day"
    );
    let own = spent(150, 0.5);
    assert_eq!(
        of(spent(800, 1.0), none, own),
        (Some(350), Some(2.5)),
        "its own is no other's"
    );
    assert_eq!(
        of(none, spent(4900, 3.5), none),
        (Some(100), Some(0.5)),
        "the hive's rest"
    );
    assert_eq!(of(none, spent(9000, 9.0), none), (Some(0), Some(0.0)));
    let free = Budgets::default().limits(&account(spent(1, 1.0), none), &none);
    assert_eq!(free, TurnLimits::default());
}

#[test]
fn a_day_is_one_of_utc() {
    let at = |text: &str| text.parse::<Timestamp>().expect("a time");
    let day = at("2026-11-21T00:00:00Z");
    assert_eq!(day_of(at("2026-11-21T23:59:59Z")), day);
    assert_eq!(day_of(day), day);
    assert_eq!(end_of(day), at("2026-11-22T00:00:00Z"));
}
