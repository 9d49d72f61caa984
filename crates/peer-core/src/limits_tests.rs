use super::*;

const KB: u64 = 1000;
const OFFICE: Hours = Hours {
    days: 0b001_1111,
    from: 8 * 60,
    until: 18 * 60,
    up: Some(Rate(200 * KB)),
    down: None,
    conduct: Conduct::Serve,
};
/// Friday and Saturday, 22:00 to 06:00.
const NIGHTS: Hours =
    Hours { days: 0b011_0000, from: 22 * 60, until: 6 * 60, up: None, down: Some(Rate(KB)), conduct: Conduct::Fetch };
/// All of Sunday.
const SUNDAY: Hours = Hours { days: 0b100_0000, from: 0, until: 0, up: None, down: None, conduct: Conduct::Pause };

fn limits() -> Limits {
    Limits {
        up: Some(Rate(2000 * KB)),
        down: None,
        hours: vec![OFFICE, NIGHTS, SUNDAY],
        monthly_bytes: Some(100),
        on_metered: Conduct::Pause,
        on_battery: Conduct::Fetch,
    }
}

fn at(weekday: u8, hour: u16, minute: u16) -> Circumstances {
    Circumstances {
        moment: Moment { weekday, minute: hour * 60 + minute },
        sent_this_month: 99,
        metered: None,
        on_battery: Some(false),
        paused: Conduct::Serve,
    }
}

/// `up` in KB/s, `down` in KB/s, conduct, why.
#[track_caller]
fn check(now: Circumstances, expected: (Option<u64>, Option<u64>, Conduct, Option<Reason>)) {
    let p = limits().permit(&now);
    let kb = |rate: Option<Rate>| rate.map(|r| r.0 / KB);
    assert_eq!((kb(p.up), kb(p.down), p.conduct, p.why), expected, "{now:?}");
}

#[test]
fn the_hour_counts_also_past_midnight() {
    let serves = (Some(2000), None, Conduct::Serve, None);
    let office = (Some(200), None, Conduct::Serve, None);
    let night = (Some(2000), Some(1), Conduct::Fetch, Some(Reason::Hours));
    let sunday = (Some(2000), None, Conduct::Pause, Some(Reason::Hours));
    for (now, expected) in [
        (at(0, 7, 59), serves),
        (at(0, 8, 0), office),
        (at(4, 17, 59), office),
        (at(4, 18, 0), serves),
        (at(4, 21, 59), serves),
        (at(4, 22, 0), night),
        (at(5, 5, 59), night),
        (at(5, 6, 0), serves),
        // The first rule that covers a moment counts: Saturday's night goes on into Sunday.
        (at(6, 5, 59), night),
        (at(6, 6, 0), sunday),
        (at(6, 23, 59), sunday),
        (at(0, 0, 0), serves),
    ] {
        check(now, expected);
    }
}

#[test]
fn what_is_strictest_counts_and_unknown_is_nothing() {
    let free = at(0, 20, 0);
    let of = |conduct, why| (Some(2000), None, conduct, why);
    for (now, conduct, why) in [
        (free, Conduct::Serve, None),
        (Circumstances { metered: Some(false), on_battery: None, ..free }, Conduct::Serve, None),
        (Circumstances { sent_this_month: 100, ..free }, Conduct::Fetch, Some(Reason::MonthlyVolume)),
        (Circumstances { on_battery: Some(true), ..free }, Conduct::Fetch, Some(Reason::Battery)),
        (Circumstances { metered: Some(true), on_battery: Some(true), ..free }, Conduct::Pause, Some(Reason::Metered)),
        (
            Circumstances { paused: Conduct::Fetch, on_battery: Some(true), ..free },
            Conduct::Fetch,
            Some(Reason::Paused),
        ),
        (Circumstances { paused: Conduct::Pause, metered: Some(true), ..free }, Conduct::Pause, Some(Reason::Paused)),
        (Circumstances { paused: Conduct::Fetch, metered: Some(true), ..free }, Conduct::Pause, Some(Reason::Metered)),
    ] {
        check(now, of(conduct, why));
    }
}
