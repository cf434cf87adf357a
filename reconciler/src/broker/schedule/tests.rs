use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-03-01T12:00:00Z")
}

fn cron(expression: &str, time_zone: Option<&str>) -> Schedule {
    Schedule::Cron(CronSchedule {
        expression: expression.to_owned(),
        time_zone: time_zone.map(str::to_owned),
    })
}

/// The first times of a cron expression.
fn times(expression: &str, time_zone: Option<&str>, from: &str, count: usize) -> Vec<String> {
    let schedule = cron(expression, time_zone);
    let mut times = Vec::new();
    let mut last = at(from);
    for _ in 0..count {
        last = next_due(&schedule, last, last).expect("a time").expect("another");
        times.push(last.to_string());
    }
    times
}

#[test]
fn a_length_of_time_becomes_a_point_in_time() {
    let (due, schedule) = first_due(&Schedule::AfterSecs(90), now()).expect("a time");
    assert_eq!(due, at("2026-03-01T12:01:30Z"));
    assert_eq!(schedule, Schedule::At(due));
    assert_eq!(next_due(&schedule, due, due), Ok(None), "once is once");
}

#[test]
fn what_never_comes_is_refused_with_the_reason() {
    let refused = |schedule: Schedule| first_due(&schedule, now()).expect_err("refused");
    assert_eq!(refused(Schedule::AfterSecs(0)), ScheduleError::AtOnce);
    assert_eq!(refused(Schedule::AfterSecs(u64::MAX)), ScheduleError::TooFar);
    assert_eq!(
        refused(Schedule::AfterSecs(MAX_AHEAD_SECS + 1)),
        ScheduleError::TooFar
    );
    assert_eq!(refused(Schedule::At(now())), ScheduleError::Past(now()));
    assert_eq!(refused(Schedule::At(Timestamp::MAX)), ScheduleError::TooFar);
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        assert_eq!(refused(cron(never, None)), ScheduleError::Never(never.to_owned()));
    }
    for bad in [
        "",
        "* * * *",
        "* * * * * *",
        "0 0 * * * * 2026",
        "@daily",
        "60 * * * *",
        "* 25 * * *",
        "a b c d e",
        "*/0 * * * *",
        "- - - - -",
        &"1,".repeat(400),
        "\u{202e} * * * *",
    ] {
        let error = refused(cron(bad, None));
        assert!(
            matches!(error, ScheduleError::BadExpression { .. }),
            "{bad:?}: {error}"
        );
        assert!(error.to_string().len() < 500, "{error}");
    }
    for zone in ["Mars/Olympus", "../../etc/passwd", "", &"x".repeat(10_000)] {
        let error = refused(cron("0 9 * * *", Some(zone)));
        assert!(matches!(error, ScheduleError::NoTimeZone(_)), "{zone:?}: {error}");
    }
}

#[test]
fn a_cron_expression_means_what_it_means_to_cron() {
    assert_eq!(
        times("0 9 * * 1-5", None, "2026-03-06T09:00:00Z", 2),
        ["2026-03-09T09:00:00Z", "2026-03-10T09:00:00Z"],
        "a Friday, then a Monday"
    );
    assert_eq!(
        times("*/20 * * * *", None, "2026-03-01T12:00:30Z", 3),
        [
            "2026-03-01T12:20:00Z",
            "2026-03-01T12:40:00Z",
            "2026-03-01T13:00:00Z"
        ]
    );
    assert_eq!(
        times("0 0 29 2 *", None, "2026-03-01T00:00:00Z", 2),
        ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
    );
    assert_eq!(
        times("0 0 L * *", None, "2026-11-15T00:00:00Z", 2),
        ["2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"]
    );
}

#[test]
fn a_time_zone_keeps_its_wall_clock_through_the_year() {
    assert_eq!(
        times("0 9 * * *", Some("Europe/Berlin"), "2026-03-28T00:00:00Z", 2),
        ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"]
    );
    let in_the_gap = times("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T12:00:00Z", 2);
    assert_eq!(in_the_gap[1], "2026-03-30T00:30:00Z");
    assert!(
        in_the_gap[0].starts_with("2026-03-29T01:"),
        "as soon as there is such a time: {in_the_gap:?}"
    );
    assert_eq!(
        times("30 2 * * *", Some("Europe/Berlin"), "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        "the hour that comes twice counts once"
    );
}

#[test]
fn after_a_break_the_next_time_is_one_to_come() {
    let hourly = cron("0 * * * *", None);
    let (due, now) = (at("2026-03-01T13:00:00Z"), at("2026-03-04T08:30:00Z"));
    assert_eq!(next_due(&hourly, due, now), Ok(Some(at("2026-03-04T09:00:00Z"))));
    let before = at("2026-03-01T10:00:00Z");
    assert_eq!(
        next_due(&hourly, due, before),
        Ok(Some(at("2026-03-01T14:00:00Z"))),
        "a clock that was set back does not bring a time again"
    );
}

#[test]
fn what_was_missed_comes_late_or_not_at_all_as_its_policy_says() {
    let due = now();
    let late = due + SignedDuration::from_secs(61);
    for missed in [Missed::Run, Missed::Skip, Missed::Notify] {
        for now in [due, due + GRACE, due - SignedDuration::from_hours(1)] {
            assert_eq!(delivery(missed, due, false, now), Delivery::Give);
        }
        assert_eq!(
            delivery(missed, due, true, late),
            Delivery::GiveLate,
            "what failed on time was not missed"
        );
    }
    assert_eq!(delivery(Missed::Run, due, false, late), Delivery::GiveLate);
    assert_eq!(delivery(Missed::Skip, due, false, late), Delivery::Skip);
    assert_eq!(delivery(Missed::Notify, due, false, late), Delivery::TellMissed);
}

#[test]
fn a_failure_is_tried_again_after_a_minute_and_at_least_every_hour() {
    let due = now();
    let wait = |secs| {
        try_again(due, due + SignedDuration::from_secs(secs))
            .duration_since(due)
            .as_secs()
            - secs
    };
    assert_eq!([0, 60, 600, 100_000].map(wait), [60, 60, 600, 3600]);
}
