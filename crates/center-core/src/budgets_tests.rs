use super::*;
use proptest::prelude::*;

const HEARTBEAT: Micros = Micros::from_secs(2);
const TOTAL: u64 = 1_600_000;

fn id(n: u8) -> ContentId {
    ContentId([n; 32])
}

fn says(wants: bool, used: Rate, priority: Priority) -> Use {
    Use { wants, used: Some(used), priority, live: false }
}

/// Runs a story and says what each of its contents has at the end, in thousandths of the uplink. A line is a heartbeat: for
/// each content `-` (not named), `.` (wants nothing), or what it could use in thousandths, with `h` or `l` for its priority;
/// it uses that or its grant. `join N`, `leave N` and `up N` (thousandths) are lines of their own.
fn story(story: &str) -> Vec<u64> {
    let mut budget = Budget::new(Rate(TOTAL), HEARTBEAT);
    let mut now = Time(0);
    let mut changed = Vec::new();
    for line in story.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |w: &str| w.parse::<u64>().unwrap();
        match words[..] {
            ["join", n] => budget.join(now, id(number(n) as u8), false, &mut changed),
            ["leave", n] => budget.leave(now, &id(number(n) as u8), &mut changed),
            ["up", n] => budget.set_total(now, Rate(TOTAL * number(n) / 1000), &mut changed),
            _ => {
                now = now + HEARTBEAT;
                for (n, word) in words.iter().enumerate() {
                    let content = id(n as u8);
                    let priority = match word.chars().last() {
                        Some('h') => Priority::High,
                        Some('l') => Priority::Low,
                        _ => Priority::Normal,
                    };
                    let could = word.trim_end_matches(['h', 'l']).parse::<u64>().ok();
                    let used = could.map_or(0, |c| (TOTAL * c / 1000).min(budget.grant(&content).0));
                    if *word != "-" {
                        budget.refresh(now, &content, says(could.is_some(), Rate(used), priority));
                    }
                }
                budget.split(now, &mut changed);
            }
        }
        assert_eq!(budget.check(), Vec::<String>::new(), "after {line:?}");
    }
    budget.grants.values().map(|g| g.rate.0 * 1000 / TOTAL).collect()
}

/// (what the children of the stream take, what it has at least, what a file has at least that wants all), in thousandths
#[test]
fn a_live_stream_goes_before_files() {
    for (used, live, file) in [(0, 250, 700), (300, 450, 500), (500, 750, 200), (900, 960, 30), (1000, 960, 30)] {
        let mut budget = Budget::new(Rate(TOTAL), HEARTBEAT);
        let (mut now, mut changed) = (Time(0), Vec::new());
        budget.join(now, id(0), false, &mut changed);
        budget.join(now, id(1), true, &mut changed);
        assert!(budget.grant(&id(1)).0 * 1000 / TOTAL >= 960, "at first all of it may be needed");
        for _ in 0..8 {
            now = now + HEARTBEAT;
            budget.refresh(now, &id(0), says(true, budget.grant(&id(0)), Priority::High));
            let taken = Rate(TOTAL * used / 1000).min(budget.grant(&id(1)));
            budget.refresh(now, &id(1), Use { live: true, ..says(true, taken, Priority::Normal) });
            budget.split(now, &mut changed);
            assert_eq!(budget.check(), Vec::<String>::new());
        }
        let has = |n: u8| budget.grant(&id(n)).0 * 1000 / TOTAL;
        assert!(has(1) >= live && has(0) >= file, "{used}: {} and {}", has(1), has(0));
    }
}

#[test]
fn an_uplink_is_split_by_use() {
    let cases: &[(&str, &str, &[u64])] = &[
        ("the first has all", "join 0", &[1000]),
        ("also when it wants nothing", "join 0\n.\n.\n.\n.", &[1000]),
        ("a second one halves it at once", "join 0\n999\njoin 1", &[500, 500]),
        (
            "who wants nothing gives its share away within three heartbeats",
            "join 0\njoin 1\n999 .\n999 .\n999 .",
            &[968, 31],
        ),
        (
            "who begins to want has its fair share after one",
            "join 0\njoin 1\n999 .\n999 .\n999 .\n999 .\n999 999",
            &[500, 500],
        ),
        ("who uses little keeps half as much again", "join 0\njoin 1\n999 100\n999 100\n999 100\n999 100", &[850, 150]),
        (
            "and has its fair share when it wants more",
            "join 0\njoin 1\n999 100\n999 100\n999 100\n999 100\n999 999",
            &[500, 500],
        ),
        (
            "a use that fits into the fair share changes nothing",
            "join 0\njoin 1\n999 400\n999 350\n999 380\n999 400",
            &[500, 500],
        ),
        ("priorities weigh four times", "join 0\njoin 1\njoin 2\n999h 999 999l\n999h 999 999l", &[735, 199, 65]),
        ("they are heard while they change", "join 0\njoin 1\n999 999\n999h 999\n999h 999\n999l 999", &[218, 781]),
        (
            "who is not named has nothing after three heartbeats",
            "join 0\njoin 1\n999 -\n999 -\n999 -\n999 -",
            &[968, 0],
        ),
        ("and its share again when it is", "join 0\njoin 1\n999 -\n999 -\n999 -\n999 -\n999 999", &[500, 500]),
        ("who leaves gives back", "join 0\njoin 1\nleave 0", &[1000]),
        ("a smaller uplink is split as it is", "join 0\njoin 1\n999 999\nup 100", &[50, 50]),
        ("a larger one too", "join 0\njoin 1\n999 999\nup 2000", &[1000, 1000]),
    ];
    for (what, lines, expected) in cases {
        assert_eq!(story(lines), *expected, "{what}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    /// Time passes, and a heartbeat names some: content, whether it wants, what it used, priority.
    Heartbeat(u64, Vec<(u8, bool, u64, u8)>),
    Up(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let said = (0..12u8, any::<bool>(), 0..3 * TOTAL, 0..3u8);
    prop_oneof![
        2 => (0..12u8).prop_map(Step::Join),
        1 => (0..12u8).prop_map(Step::Leave),
        6 => (0..9_000_000u64, prop::collection::vec(said, 0..12)).prop_map(|(after, said)| Step::Heartbeat(after, said)),
        1 => prop_oneof![Just(0), 0..20u64, 0..3 * TOTAL, Just(u64::MAX / 4)].prop_map(Step::Up),
    ]
}

fn priority(n: u8) -> Priority {
    [Priority::Low, Priority::Normal, Priority::High][usize::from(n % 3)]
}

proptest! {
    /// Whatever happens, no more is granted than there is; what changed is told, and nothing else.
    #[test]
    fn no_more_is_granted_than_there_is(steps in prop::collection::vec(step(), 1..60)) {
        let mut budget = Budget::new(Rate(TOTAL), HEARTBEAT);
        let mut now = Time(0);
        let mut told: BTreeMap<ContentId, Rate> = BTreeMap::new();
        for step in steps {
            let mut changed = Vec::new();
            match step {
                Step::Join(n) => budget.join(now, id(n), false, &mut changed),
                Step::Leave(n) => {
                    told.remove(&id(n));
                    budget.leave(now, &id(n), &mut changed);
                }
                Step::Up(up) => budget.set_total(now, Rate(up), &mut changed),
                Step::Heartbeat(after, said) => {
                    now = now + Micros(after);
                    for (n, wants, used, p) in said {
                        budget.refresh(now, &id(n), says(wants, Rate(used), priority(p)));
                    }
                    budget.split(now, &mut changed);
                }
            }
            told.extend(changed);
            prop_assert_eq!(budget.check(), Vec::<String>::new());
            for (content, rate) in budget.grants() {
                prop_assert_eq!(told.get(content).copied().unwrap_or_default(), rate);
            }
        }
    }

    /// Whoever wants all that it can get has its fair share by priority two heartbeats after it began, whatever was before
    /// and whatever the others do, but for the reserve and the step below which nothing changes.
    #[test]
    fn who_begins_to_want_has_its_fair_share_soon(
        steps in prop::collection::vec(step(), 0..40),
        others in prop::collection::vec((any::<bool>(), 0..TOTAL, 0..3u8), 0..11),
        own in 0..3u8,
    ) {
        let mut budget = Budget::new(Rate(TOTAL), HEARTBEAT);
        let mut now = Time(0);
        let mut changed = Vec::new();
        for step in steps {
            match step {
                Step::Join(n) => budget.join(now, id(n), false, &mut changed),
                Step::Leave(n) => budget.leave(now, &id(n), &mut changed),
                Step::Up(_) => {}
                Step::Heartbeat(after, said) => {
                    now = now + Micros(after);
                    for (n, wants, used, p) in said {
                        budget.refresh(now, &id(n), says(wants, Rate(used), priority(p)));
                    }
                    budget.split(now, &mut changed);
                }
            }
        }
        budget.join(now, id(11), false, &mut changed);
        for (n, _) in others.iter().enumerate() {
            budget.join(now, id(n as u8), false, &mut changed);
        }
        for _ in 0..2 {
            now = now + HEARTBEAT;
            for (n, (wants, used, p)) in others.iter().enumerate() {
                budget.refresh(now, &id(n as u8), says(*wants, Rate(*used), priority(*p)));
            }
            let used = budget.grant(&id(11));
            budget.refresh(now, &id(11), says(true, used, priority(own)));
            budget.split(now, &mut changed);
        }
        let weights: u64 = budget.grants.values().map(|g| g.priority.weight()).sum();
        let fair = TOTAL * priority(own).weight() / weights;
        prop_assert!(budget.grant(&id(11)).0 * 10 >= fair * 8, "{} of {fair}", budget.grant(&id(11)).0);
    }

    /// A steady use is answered by steady grants: they do not change any more after a few heartbeats.
    #[test]
    fn grants_come_to_rest(uses in prop::collection::vec((0..TOTAL, 0..3u8), 1..10)) {
        let mut budget = Budget::new(Rate(TOTAL), HEARTBEAT);
        let mut now = Time(0);
        for (n, _) in uses.iter().enumerate() {
            budget.join(now, id(n as u8), false, &mut Vec::new());
        }
        for beat in 0..60 {
            now = now + HEARTBEAT;
            let mut changed = Vec::new();
            for (n, (could, p)) in uses.iter().enumerate() {
                let used = Rate((*could).min(budget.grant(&id(n as u8)).0));
                budget.refresh(now, &id(n as u8), says(*could > 0, used, priority(*p)));
            }
            budget.split(now, &mut changed);
            prop_assert!(beat < 40 || changed.is_empty(), "beat {}: {:?}", beat, changed);
        }
    }
}
