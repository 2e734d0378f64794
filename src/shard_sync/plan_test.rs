use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A stream in a line: `0 1 4* 6<0+1` is shards 0 and 1, the open shard 4, and 6 merged from 0 and 1.
/// Starting sequence numbers are in the order of the line; every shard covers everything, which only
/// the empty table looks at.
fn stream(line: &str) -> Vec<Shard> {
    line.split_whitespace()
        .enumerate()
        .map(|(index, word)| {
            let (name, parents) = word.split_once('<').unwrap_or((word, ""));
            let mut shard =
                Shard::new(name.trim_end_matches('*'), HashKeyRange::FULL, (index as u128).into());
            shard.ending_sequence_number = (!name.ends_with('*')).then(|| (index as u128 + 1).into());
            shard.parents = parents.split('+').filter(|id| !id.is_empty()).map(ShardId::from).collect();
            shard
        })
        .collect()
}

/// Leases of an application that started at the instant 7 and has processed nothing yet.
fn leases(line: &str) -> Vec<Lease> {
    leases_at(line, StartStrategy::Latest)
}

fn leases_at(line: &str, strategy: StartStrategy) -> Vec<Lease> {
    let lease = |id| {
        let mut lease = Lease::new(id, initial_checkpoint(strategy));
        lease.latest_since = (strategy == StartStrategy::Latest).then_some(7);
        lease
    };
    line.split_whitespace().map(lease).collect()
}

const ALL: [StartStrategy; 3] = [StartStrategy::Latest, StartStrategy::Oldest, StartStrategy::Timestamp(5)];

/// The plans for Latest, Oldest and Timestamp, as `id@CHECKPOINT`.
fn plans(shards: &str, leased: &str) -> [String; 3] {
    ALL.map(|strategy| {
        let leases = leases_at(leased, strategy);
        let plan = plan_shard_sync(&stream(shards), &leases, strategy, false).expect("consistent");
        let words = plan.new_leases.iter().map(|new| format!("{}@{}", new.lease.key, new.lease.checkpoint));
        words.collect::<Vec<_>>().join(" ")
    })
}

/// The example in the documentation of KCL's `HierarchicalShardSyncer`. With `LATEST`, KCL creates only 6,
/// and so skips what 0 and 1 got since the application started.
#[test]
fn the_worked_example() {
    let shards = "0 1 2 3 4* 5 6<0+1 7<2+3 8*<6+7 9*<5 10*<5";
    assert_eq!(
        plans(shards, "4 5 7"),
        ["0@LATEST 1@LATEST", "0@TRIM_HORIZON 1@TRIM_HORIZON", "0@AT_TIMESTAMP 1@AT_TIMESTAMP"]
    );
}

/// The same for an application that has processed something, or that says nothing of its start.
#[test]
fn an_application_that_is_not_new_reads_what_it_cannot_trace_from_the_oldest_record() {
    let shards = stream("0 1 2 3 4* 5 6<0+1 7<2+3 8*<6+7 9*<5 10*<5");
    for strategy in ALL {
        let mut leases = leases_at("4 5 7", strategy);
        if strategy == StartStrategy::Latest {
            leases.iter_mut().for_each(|lease| lease.latest_since = None);
        } else {
            leases[1].checkpoint = crate::types::ExtendedSequenceNumber::new(9_u128.into(), 0).into();
        }
        let plan = plan_shard_sync(&shards, &leases, strategy, false).expect("consistent");
        let planned: Vec<_> = plan.new_leases.iter().map(|new| new.to_string()).collect();
        assert_eq!(
            planned,
            [
                "create 0 at TRIM_HORIZON (6 has to wait for it)",
                "create 1 at TRIM_HORIZON (6 has to wait for it)"
            ]
        );
    }
}

#[test]
fn all_first_leases_of_an_application_start_at_one_instant() {
    let orders = "orders".parse().expect("a name");
    let since = |leases: &[Lease]| {
        let plan =
            plan_shard_sync(&stream("0* 1*"), leases, StartStrategy::Latest, false).expect("consistent");
        let leases = plan.in_stream(&orders, 9).new_leases.into_iter().map(|new| new.lease.latest_since);
        leases.collect::<Vec<_>>()
    };
    assert_eq!(since(&[]), [Some(9), Some(9)]);
    assert_eq!(since(&leases("0")), [Some(7)], "the rest of them were created by another worker");
}

#[test]
fn an_empty_table_gets_every_listed_shard_open_or_closed() {
    assert_eq!(
        plans("0 1*<0 2*", ""),
        [
            "0@LATEST 1@LATEST 2@LATEST",
            "0@TRIM_HORIZON 1@TRIM_HORIZON 2@TRIM_HORIZON",
            "0@AT_TIMESTAMP 1@AT_TIMESTAMP 2@AT_TIMESTAMP",
        ]
    );
}

#[test]
fn an_empty_table_waits_for_a_list_without_holes() {
    let mut shards = stream("0*");
    shards[0].hash_key_range = HashKeyRange::new(1, u128::MAX).expect("in order");
    assert_eq!(
        plan_shard_sync(&shards, &leases(""), StartStrategy::Latest, false),
        Err(SyncError::Incomplete)
    );
    assert_eq!(plan_shard_sync(&[], &leases(""), StartStrategy::Latest, false), Err(SyncError::Incomplete));
}

#[test]
fn open_shards_without_ancestors_start_where_configured() {
    assert_eq!(plans("0* 1*", "0"), ["1@LATEST", "1@TRIM_HORIZON", "1@AT_TIMESTAMP"]);
}

#[test]
fn the_oldest_ancestor_comes_first() {
    assert_eq!(plans("x* 0 1*<0 2*<0", "x"), ["0@LATEST", "0@TRIM_HORIZON", "0@AT_TIMESTAMP"]);
}

#[test]
fn what_had_ended_before_is_not_read_again() {
    let shards = "0 1<0 2<0 3*<1 4<2 5*<4";
    assert_eq!(plans(shards, "3"), ["2@LATEST", "2@TRIM_HORIZON", "2@AT_TIMESTAMP"], "0 has ended: 1 did");
    assert_eq!(
        plans(shards, "1"),
        ["0@LATEST", "0@TRIM_HORIZON", "0@AT_TIMESTAMP"],
        "1 may still wait for 0"
    );
}

#[test]
fn descendants_wait_for_the_end_of_their_ancestors() {
    assert_eq!(plans("0 1<0 2<0 3*<1 4*<1 5*<2", "0"), ["", "", ""]);
}

/// Neither happens in KCL, which leaves the first unread and starts the second at the configured
/// position.
#[test]
fn a_child_whose_parent_is_over_is_read_from_its_oldest_record() {
    let mut ended = leases("0 x");
    ended[0].checkpoint = Checkpoint::ShardEnd;
    let expired = leases("gone x");
    for (shards, leases) in [("x* 0 1*<0", ended), ("x* 1*<gone", expired)] {
        let plan =
            plan_shard_sync(&stream(shards), &leases, StartStrategy::Latest, false).expect("consistent");
        let planned: Vec<_> =
            plan.new_leases.iter().map(|new| (new.lease.key.as_str(), &new.lease.checkpoint)).collect();
        assert_eq!(planned, [("1", &Checkpoint::TrimHorizon)], "{shards}");
    }
}

#[test]
fn parents_that_have_expired_do_not_count() {
    assert_eq!(plans("x* 1*<gone", "x"), ["1@LATEST", "1@TRIM_HORIZON", "1@AT_TIMESTAMP"]);
}

#[test]
fn rows_carry_parents_and_range() {
    let plan = plan_shard_sync(&stream("x* 1*<gone"), &leases("x"), StartStrategy::Latest, false);
    let lease = &plan.expect("consistent").new_leases[0].lease;
    assert_eq!(
        (&lease.parents, lease.hash_key_range),
        (&BTreeSet::from(["gone".into()]), Some(HashKeyRange::FULL))
    );
}

#[test]
fn a_child_of_an_open_parent_is_refused_or_ignored() {
    let shards = stream("0* 1*<0 2*");
    let refused = plan_shard_sync(&shards, &leases("0"), StartStrategy::Latest, false);
    assert_eq!(refused, Err(SyncError::OpenParent { child: "1".into(), parent: "0".into() }));
    let plan = plan_shard_sync(&shards, &leases("0"), StartStrategy::Latest, true).expect("ignored");
    assert_eq!(plan.new_leases.iter().map(|new| new.lease.key.as_str()).collect::<Vec<_>>(), ["2"]);
}

#[test]
fn a_plan_reads_well() {
    let plan = plan_shard_sync(&stream("0 1 2*<0+1"), &leases("1"), StartStrategy::Latest, false)
        .expect("consistent");
    assert_eq!(plan.new_leases[0].to_string(), "create 0 at LATEST (2 has to wait for it)");
}

/// A stream of `initial` shards that was split and merged at random: each choice closes the shards it
/// names and opens their children.
fn reshard(initial: u128, choices: &[(usize, bool)]) -> Vec<Shard> {
    let step = u128::MAX / initial;
    let mut shards: Vec<Shard> = (0..initial)
        .map(|index| {
            let end = if index + 1 == initial { u128::MAX } else { (index + 1) * step - 1 };
            let range = HashKeyRange::new(index * step, end).expect("in order");
            Shard::new(format!("{index:04}"), range, index.into())
        })
        .collect();
    for &(choice, split) in choices {
        let mut open: Vec<usize> = (0..shards.len()).filter(|&index| shards[index].is_open()).collect();
        open.sort_by_key(|&index| shards[index].hash_key_range);
        let at = choice % open.len();
        let (parents, ranges) = if split || open.len() == 1 {
            let range = shards[open[at]].hash_key_range;
            let middle = range.start() + (range.end() - range.start()) / 2;
            if middle == range.end() {
                continue;
            }
            let halves =
                [HashKeyRange::new(range.start(), middle), HashKeyRange::new(middle + 1, range.end())];
            (vec![open[at]], halves.map(|half| half.expect("in order")).to_vec())
        } else {
            let at = at.min(open.len() - 2);
            let (left, right) = (open[at], open[at + 1]);
            let (left_range, right_range) = (shards[left].hash_key_range, shards[right].hash_key_range);
            let merged = HashKeyRange::new(left_range.start(), right_range.end()).expect("in order");
            (vec![left, right], vec![merged])
        };
        for range in ranges {
            let number = shards.len() as u128;
            let mut child = Shard::new(format!("{number:04}"), range, number.into());
            child.parents = parents.iter().map(|&parent| shards[parent].id.clone()).collect();
            shards.push(child);
        }
        for parent in parents {
            shards[parent].ending_sequence_number = Some(u128::MAX.into());
        }
    }
    shards
}

fn strategy() -> impl Strategy<Value = StartStrategy> {
    prop::sample::select(&ALL)
}

proptest! {
    /// Whatever leases there are, after the plan every open shard has a lease or descends from one
    /// that has not ended, nothing is created twice, and a crash half-way changes nothing.
    #[test]
    fn a_plan_covers_every_open_shard_and_can_be_cut_short(
        initial in 1_u128..5,
        choices in prop::collection::vec((0_usize..20, any::<bool>()), 0..12),
        leased in prop::collection::vec(any::<bool>(), 40),
        cut in 0_usize..10,
        strategy in strategy(),
    ) {
        let shards = reshard(initial, &choices);
        let mut table: Vec<Lease> = shards
            .iter()
            .zip(&leased)
            .filter(|(_, leased)| **leased)
            .map(|(shard, _)| lease_of(shard, Checkpoint::TrimHorizon))
            .collect();
        prop_assume!(!table.is_empty());
        let plan = plan_shard_sync(&shards, &table, strategy, false).expect("consistent");
        let keys: BTreeSet<_> = table.iter().map(|lease| lease.key.clone()).collect();
        prop_assert!(plan.new_leases.iter().all(|new| !keys.contains(&new.lease.key)));

        table.extend(plan.new_leases.iter().take(cut).map(|new| new.lease.clone()));
        let rest = plan_shard_sync(&shards, &table, strategy, false).expect("consistent");
        table.extend(rest.new_leases.into_iter().map(|new| new.lease));
        let again = plan_shard_sync(&shards, &table, strategy, false).expect("consistent");
        prop_assert!(again.new_leases.is_empty(), "{:?}", again.new_leases);

        let leased: BTreeSet<&ShardId> = table.iter().map(|lease| &lease.shard_id).collect();
        let mut reached = leased.clone();
        for shard in &shards {
            if shard.parents.iter().any(|parent| reached.contains(parent)) {
                reached.insert(&shard.id);
            }
        }
        for shard in shards.iter().filter(|shard| shard.is_open()) {
            prop_assert!(reached.contains(&shard.id), "{} is never read", shard.id);
        }
    }
}

/// What becomes of the rows `vanished`, if the leases of `line` are there: those in brackets are processed.
fn put_back(shards: &str, line: &str, vanished: &str) -> Vec<String> {
    let at = |number: u128| crate::types::ExtendedSequenceNumber::new(number.into(), 0).into();
    let mut leases = leases(&line.replace(['(', ')'], ""));
    for (lease, word) in leases.iter_mut().zip(line.split_whitespace()) {
        lease.checkpoint = if word.starts_with('(') { at(9) } else { Checkpoint::TrimHorizon };
    }
    let gone: Vec<Lease> =
        vanished.split_whitespace().map(|id| Lease { counter: 4, ..Lease::new(id, at(5)) }).collect();
    let mut plan = ShardSyncPlan { new_leases: Vec::new() };
    plan.put_back(gone.iter(), &leases, &stream(shards));
    for new in &plan.new_leases {
        assert_eq!((new.lease.counter, &new.lease.owner, &new.lease.checkpoint), (5, &None, &at(5)));
    }
    plan.new_leases.iter().map(|new| new.lease.key.to_string()).collect()
}

#[test]
fn a_row_that_was_deleted_is_put_back_unless_its_shard_had_ended() {
    assert_eq!(put_back("0* 1*", "(0)", "1"), ["1"], "an open shard");
    assert_eq!(put_back("0 1*<0 2*<0", "1 2", "0"), ["0"], "its children wait for it");
    assert!(put_back("0 1*<0 2*<0", "(1) 2", "0").is_empty(), "a child is being processed");
    assert!(put_back("0 1<0 2*<1", "2", "0").is_empty(), "its child has ended");
    assert!(put_back("0 1<0 2<1 3*<2", "(3)", "0 1 2").is_empty(), "long ago");
    assert!(put_back("1*", "(1)", "0").is_empty(), "it has expired");
    assert_eq!(put_back("0 1 2<0+1 3 4*<2+3", "2 4", "0"), ["0"], "only the other parent of 4 has ended");
}
