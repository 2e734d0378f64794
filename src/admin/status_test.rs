use super::*;
use crate::lease::{Attribute, BehindLatest, Item, UnreadableRow};
use crate::types::{ExtendedSequenceNumber, HashKeyRange};

const NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";

fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_545_085_000)
}

/// A lease as `shard owner>next checkpoint`, with `-` for nobody and `SN` for a number of the service.
fn lease(text: &str) -> Lease {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let checkpoint = match parts[2] {
        "SN" => ExtendedSequenceNumber::new(NUMBER.parse().expect("a number"), 3).into(),
        text => Checkpoint::parse(text, 0).expect("a checkpoint"),
    };
    let mut lease = Lease::new(parts[0], checkpoint);
    let (owner, next) =
        parts[1].split_once('>').map_or((parts[1], None), |(owner, next)| (owner, Some(next)));
    let owner = (owner != "-").then(|| WorkerId::from(owner));
    match next {
        Some(next) => (lease.owner, lease.checkpoint_owner) = (Some(next.into()), owner),
        None => lease.owner = owner,
    }
    lease.counter = 7;
    lease.source_stream = Some("orders".to_owned());
    lease
}

fn reading(leases: impl IntoIterator<Item = Lease>) -> Reading {
    Reading {
        application: "analytics".to_owned(),
        scan: LeaseScan::new(leases.into_iter().collect(), Vec::new()),
        failover_time: Duration::from_secs(10),
        ..Reading::default()
    }
}

fn status(leases: &[&str]) -> FleetStatus {
    fleet_status(reading(leases.iter().map(|text| lease(text))), at())
}

fn report(worker: &str, seconds_ago: u64, cpu: Option<&str>) -> Item {
    let number = |number: String| Attribute::N(number);
    let seconds = 1_545_085_000 - seconds_ago;
    let mut row = Item::from([
        ("leaseKey".to_owned(), Attribute::S(worker.to_owned())),
        ("entityType".to_owned(), Attribute::S("WORKER_METRIC_STATS".to_owned())),
        ("lut".to_owned(), number(seconds.to_string())),
    ]);
    if let Some(cpu) = cpu {
        let list = Attribute::L(vec![number(cpu.to_owned())]);
        row.insert("sts".to_owned(), Attribute::M([("C".to_owned(), list)].into()));
    }
    row
}

fn shard(id: &str, parents: &[&str], is_open: bool) -> Shard {
    let mut shard = Shard::new(id, HashKeyRange::FULL, 1.into());
    shard.parents = parents.iter().map(|&parent| parent.into()).collect();
    shard.ending_sequence_number = (!is_open).then(|| 2.into());
    shard
}

#[test]
fn each_lease_has_one_state() {
    let mut child = lease("3 b TRIM_HORIZON");
    child.parents = ["2".into()].into();
    let mut paused = lease("5 a SN");
    paused.paused = Some(Paused::new(1, "eve", "migration"));
    let rows = [lease("0 a SHARD_END"), lease("1 - SN"), lease("2 a SN"), child, lease("4 a>b SN"), paused];
    let status = fleet_status(reading(rows), at());
    let states: Vec<_> = status.leases.iter().map(|lease| (lease.shard.as_str(), lease.state)).collect();
    assert_eq!(
        states,
        [
            ("1", LeaseState::Free),
            ("2", LeaseState::Held),
            ("3", LeaseState::WaitingOnParents),
            ("4", LeaseState::HandingOver),
            ("5", LeaseState::Paused),
        ]
    );
    assert_eq!(status.ended, 1);
    assert_eq!(
        (status.leases[3].owner.clone(), status.leases[3].next_owner.clone()),
        (Some("a".into()), Some("b".into()))
    );
    let workers: Vec<_> =
        status.workers.iter().map(|worker| (worker.worker.as_str(), worker.leases)).collect();
    assert_eq!(
        workers,
        [("a", 3), ("b", 1)],
        "an ended lease is no work, and a handoff is still the old owner's"
    );
}

#[test]
fn what_an_owner_wrote_about_its_lag_counts_until_somebody_else_writes() {
    let with = |counter| {
        let mut lease = lease("0 a SN");
        lease.behind_latest = Some(BehindLatest { millis: 1200, counter });
        lease
    };
    let current = fleet_status(reading([with(7)]), at());
    assert_eq!(current.behind_latest_max, Some(Duration::from_millis(1200)));
    assert_eq!(current.workers[0].is_of_this_crate, Some(true));
    let old = fleet_status(reading([with(6)]), at());
    assert_eq!(
        (old.behind_latest_max, old.workers[0].is_of_this_crate),
        (None, None),
        "a Java worker renewed it"
    );
}

#[test]
fn a_healthy_fleet_has_no_problems() {
    let mut reading = reading([lease("0 a SN"), lease("1 b SN")]);
    reading.scan.entities = vec![report("a", 20, Some("41.5")), report("b", 3, None)];
    reading.leader = LockRow::from_item(&Item::from([
        ("ownerName".to_owned(), Attribute::S("a".to_owned())),
        ("recordVersionNumber".to_owned(), Attribute::S("v".to_owned())),
    ]));
    reading.shards =
        vec![("orders".parse().expect("a name"), vec![shard("0", &[], true), shard("1", &[], true)])];
    let status = fleet_status(reading, at());
    assert_eq!(status.problems, Vec::<String>::new());
    assert_eq!((status.workers[0].cpu_percent, status.workers[1].cpu_percent), (Some(41.5), None));
    assert_eq!(status.workers[0].reported_ago, Some(Duration::from_secs(20)));
    assert_eq!(status.leader, Some("a".into()));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let problem = |status: FleetStatus| {
        assert_eq!(status.problems.len(), 1, "{:?}", status.problems);
        status.problems.into_iter().next().expect("one")
    };
    assert!(problem(status(&["0 - SN"])).starts_with("1 lease(s) have no owner. Start workers"));

    let mut dead = reading([lease("0 a SN"), lease("1 b SN")]);
    dead.still = [("0".into(), Duration::from_secs(11)), ("1".into(), Duration::from_secs(4))].into();
    let text = problem(fleet_status(dead, at()));
    assert!(text.starts_with("1 lease(s) are not renewed") && text.ends_with(": 0"), "{text}");

    let mut looping = lease("0 a SN");
    looping.owner_switches = 3;
    assert!(problem(fleet_status(reading([looping]), at())).contains("A record may crash its workers"));

    let mut silent = reading([lease("0 a SN")]);
    silent.scan.entities = vec![report("a", 61, None)];
    assert!(
        problem(fleet_status(silent, at()))
            .starts_with("worker a owns 1 lease(s) and last reported metrics 61 s ago")
    );

    let mut leaderless = reading([lease("0 a SN")]);
    leaderless.scan.entities = vec![report("a", 1, None)];
    assert!(problem(fleet_status(leaderless, at())).starts_with("no worker leads"));

    let mut two_streams = reading([lease("0 a SN"), lease("1 a SN")]);
    two_streams.scan.leases[1].source_stream = Some("payments".to_owned());
    assert!(problem(fleet_status(two_streams, at())).contains("orders, payments"));

    let mut unreadable = reading([lease("0 a SN")]);
    unreadable.scan.unreadable =
        vec![UnreadableRow { key: Some("1".into()), reason: "attribute checkpoint: missing".to_owned() }];
    assert!(
        problem(fleet_status(unreadable, at())).starts_with("lease row 1: attribute checkpoint: missing")
    );

    let mut sought = lease("0 a SN");
    (sought.seek_id, sought.seek_under_way) = (Some("s1".to_owned()), Some("2018-12-17".to_owned()));
    let text = problem(fleet_status(reading([sought]), at()));
    assert!(text.starts_with("seek s1 to 2018-12-17 was begun and is not finished"), "{text}");
}

#[test]
fn shards_are_unread_if_no_lease_leads_to_them() {
    let mut reading = reading([lease("0 a SN")]);
    reading.shards = vec![(
        "orders".parse().expect("a name"),
        vec![
            shard("0", &[], false),
            shard("1", &["0"], false),
            shard("2", &["1"], true),
            shard("8", &["7"], true),
            shard("9", &[], false),
        ],
    )];
    let status = fleet_status(reading, at());
    let unread: Vec<_> = status.unread.iter().map(|unread| unread.shard.as_str()).collect();
    assert_eq!(unread, ["8"], "2 comes after 0; of a closed shard nobody knows");
    assert!(status.problems[0].contains("orders/8"));
}

#[test]
fn it_is_shown_as_a_table() {
    let mut reading =
        reading([lease("shardId-0 wA SN"), lease("shardId-1 - LATEST"), lease("shardId-2 wA SHARD_END")]);
    reading.scan.leases[0].behind_latest = Some(BehindLatest { millis: 14 * 60_000, counter: 7 });
    reading.scan.leases[0].paused = Some(Paused::new(1, "eve", "db migration"));
    let status = fleet_status(reading, at());
    let expected = "\
analytics on orders   2 lease(s), 1 ended, 1 worker(s)   behind 14 min at most

LEASE      OWNER  STATE   BEHIND  RATE  CHECKPOINT                     AGE    NOTE
shardId-0  wA     paused  14 min  -     …588898/3 2018-12-17 22:10:50  5 min  paused by eve: \"db migration\"
shardId-1  -      free    -       -     LATEST                         -

WORKER  LEASES  RATE       CPU  REPORTED  ROLE
wA      1       0.0 KiB/s  -    -         -
";
    assert_eq!(status.to_string(), expected);
}
