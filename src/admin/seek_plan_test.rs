use proptest::prelude::*;

use super::*;

/// A shard that had records from `began` until `ended`, one at each instant.
#[derive(Debug, Clone)]
struct Life {
    shard: Shard,
    began: u64,
    ended: Option<u64>,
}

impl Life {
    fn was_open_at(&self, time: u64) -> bool {
        self.began <= time && self.ended.is_none_or(|ended| time < ended)
    }
}

/// `0:0-10 1:10-20<0 3:20-<1,2`: name, when it began and ended, its parents.
fn lives(text: &str) -> Vec<Life> {
    let life = |text: &str| {
        let (text, parents) = text.split_once('<').unwrap_or((text, ""));
        let (id, time) = text.split_once(':').expect("a time");
        let (began, ended) = time.split_once('-').expect("two times");
        life(
            id,
            began.parse().expect("a number"),
            ended.parse().ok(),
            parents.split(',').filter(|id| !id.is_empty()),
        )
    };
    text.split_whitespace().map(life).collect()
}

fn life<'a>(id: &str, began: u64, ended: Option<u64>, parents: impl IntoIterator<Item = &'a str>) -> Life {
    let mut shard = Shard::new(id, HashKeyRange::FULL, u128::from(began).into());
    shard.parents = parents.into_iter().map(ShardId::from).collect();
    shard.ending_sequence_number = ended.map(|ended| u128::from(ended).into());
    Life { shard, began, ended }
}

fn at(time: u64) -> Checkpoint {
    ExtendedSequenceNumber::new(u128::from(time).into(), 0).into()
}

/// `2=END 3=25 4=TRIM`: shards and their checkpoints, where a number is that of a record.
fn leases(text: &str) -> Vec<Lease> {
    let lease = |text: &str| {
        let (id, checkpoint) = text.split_once('=').expect("a checkpoint");
        let checkpoint = match checkpoint {
            "END" => Checkpoint::ShardEnd,
            "TRIM" => Checkpoint::TrimHorizon,
            time => at(time.parse().expect("a number")),
        };
        Lease::new(id, checkpoint)
    };
    text.split_whitespace().map(lease).collect()
}

fn stream() -> StreamId {
    "orders".parse().expect("a name")
}

/// A seek to `time`: the last record before it is the one at the instant before.
fn plan(lives: &[Life], leases: &[Lease], time: u64, scope: Option<&BTreeSet<ShardId>>) -> SeekPlan {
    let shards: Vec<Shard> = lives.iter().map(|life| life.shard.clone()).collect();
    let open = lives.iter().filter(|life| life.was_open_at(time));
    let position = |life: &Life| if life.began < time { at(time - 1) } else { Checkpoint::TrimHorizon };
    let positions = open.map(|life| (life.shard.id.clone(), position(life))).collect();
    let begun_after =
        lives.iter().filter(|life| life.began > time).map(|life| life.shard.id.clone()).collect();
    let facts = StreamFacts {
        stream: &stream(),
        shards: &shards,
        positions: &positions,
        begun_after: &begun_after,
        others_ended: true,
        leases,
        scope,
        reason: SeekReason::OpenThen,
    };
    let (steps, left) = plan_stream(&facts);
    SeekPlan {
        id: "1-a".to_owned(),
        application: "analytics".to_owned(),
        target: time.to_string(),
        steps,
        left,
        warnings: Vec::new(),
        streams: vec![SoughtStream {
            stream: stream(),
            shards: shards.into_iter().map(|shard| shard.id).collect(),
        }],
    }
}

/// The steps in words, and what is left in brackets.
fn text(plan: &SeekPlan) -> String {
    let name = |checkpoint: &Checkpoint| match checkpoint {
        Checkpoint::ShardEnd => "END".to_owned(),
        Checkpoint::TrimHorizon => "TRIM".to_owned(),
        other => other.text(),
    };
    let step = |step: &SeekStep| {
        let from = step.from.as_ref().map_or("-".to_owned(), name);
        format!("{} {} {from}>{}", step.kind(), step.shard, name(&step.to))
    };
    let left: Vec<_> = plan.left.iter().map(|left| left.lease.to_string()).collect();
    let steps = plan.steps.iter().map(step).collect::<Vec<_>>().join(", ");
    if left.is_empty() { steps } else { format!("{steps} [{}]", left.join(" ")) }
}

/// 0 ends before; 1 and 2 are merged into 3.
const DESIGN: &str = "0:0-10 1:10-20<0 2:10-20<0 3:20-<1,2";

#[test]
fn leases_go_where_the_time_was_and_parents_go_first() {
    for (lives_text, leases_text, time, expected) in [
        // The example of the design: rows of closed shards come back.
        (DESIGN, "2=END 3=25", 15, "create 1 ->14, rewind 2 END>14, rewind 3 25>TRIM"),
        (DESIGN, "0=END 1=END 2=END 3=25", 15, "rewind 1 END>14, rewind 2 END>14, rewind 3 25>TRIM [0]"),
        (DESIGN, "3=25", 5, "create 0 ->4, create 1 ->TRIM, create 2 ->TRIM, rewind 3 25>TRIM"),
        // Before anything: the shard that was open then begins with its first record.
        ("0:0-", "0=9", 0, "rewind 0 9>TRIM"),
        // Where it is already, it may have been read beyond its checkpoint.
        ("0:0-", "0=8", 9, "restart 0 8>8"),
        // Forward: what ended before is passed over, last, and children first.
        (DESIGN, "0=3 1=TRIM 2=TRIM", 25, "create 3 ->24, end 1 TRIM>END, end 2 TRIM>END, end 0 3>END"),
        (DESIGN, "0=3", 15, "create 1 ->14, create 2 ->14, create 3 ->TRIM, end 0 3>END"),
        // Both ways at once.
        ("0:0-10 1:10-20<0 5:0-", "0=3 5=18", 12, "rewind 5 18>11, create 1 ->11, end 0 3>END"),
        // A row whose shard has expired.
        ("3:20-", "0=END 3=25", 22, "rewind 3 25>21 [0]"),
    ] {
        assert_eq!(
            text(&plan(&lives(lives_text), &leases(leases_text), time, None)),
            expected,
            "{leases_text}"
        );
    }
}

#[test]
fn shards_of_a_scope_take_what_came_of_them_along() {
    let (lives, leases) = (lives("0:0-10 1:10-20<0 2:20-<1 5:0-"), leases("2=25 5=25"));
    let scope = BTreeSet::from(["1".into()]);
    assert_eq!(text(&plan(&lives, &leases, 12, Some(&scope))), "create 1 ->11, rewind 2 25>TRIM [5]");
}

#[test]
fn rows_of_other_streams_are_not_looked_at() {
    let mut other = leases("0=9");
    other[0].stream_name = Some("123456789012:payments:1".to_owned());
    assert_eq!(text(&plan(&lives("0:0-"), &other, 5, None)), "create 0 ->4");
}

#[test]
fn a_row_that_is_created_is_complete_and_newer_than_any_before() {
    let plan = plan(&lives(DESIGN), &leases("3=25"), 15, None);
    let row = plan.steps[0].new_row(1_700_000_000_000, &plan.id, None);
    assert_eq!((row.shard_id.as_str(), row.counter, row.owner.is_none()), ("1", 1_700_000_000_000, true));
    assert_eq!((row.parents.len(), row.source_stream.as_deref()), (1, Some("orders")));
    assert_eq!((row.seek_id.as_deref(), row.starting_sequence_number), (Some("1-a"), Some(10_u128.into())));
}

#[test]
fn new_shards_are_moved_if_they_have_begun() {
    let before = lives("0:0- 5:0-");
    let plan = plan(&before, &leases("0=25 5=25"), 12, None);
    let after: Vec<Shard> =
        lives("0:0-30 5:0- 7:30-<0 8:30-<0 9:0-").into_iter().map(|life| life.shard).collect();
    let mut rows = leases("0=END 7=35 5=14 9=1");
    let steps = plan_new_shards(&plan.streams[0], &plan, &after, &rows);
    let moved: Vec<_> = steps.iter().map(|step| (step.shard.as_str(), step.to.text())).collect();
    assert_eq!(
        moved,
        [("7", "TRIM_HORIZON".to_owned())],
        "8 has no row yet, and 9 came of nothing that was moved"
    );
    rows[1].seek_id = Some(plan.id.clone());
    assert_eq!(plan_new_shards(&plan.streams[0], &plan, &after, &rows), []);
}

#[test]
fn it_is_shown_shard_by_shard() {
    let plan = plan(&lives(DESIGN), &leases("0=END 2=END 3=25"), 15, None);
    let expected = "\
seek 1-a of analytics to 15

LEASE  MOVE    FROM       TO            WHY
1      create  -          14/0          after the last record before
2      rewind  SHARD_END  14/0          after the last record before
3      rewind  25/0       TRIM_HORIZON  began after it

1 to create, 2 to rewind, 1 left as they are; other applications are not touched
";
    assert_eq!(plan.to_string(), expected);
}

/// A stream and an application that reads it, one record per instant and shard.
#[derive(Debug, Clone)]
struct Play {
    lives: Vec<Life>,
    /// Per shard with a row: the next instant to read, or `None` at its end; and the seek that wrote it.
    rows: BTreeMap<ShardId, (Option<u64>, bool)>,
    now: u64,
    delivered: Vec<(ShardId, u64)>,
}

impl Play {
    fn life(&self, id: &ShardId) -> &Life {
        self.lives.iter().find(|life| life.shard.id == *id).expect("a shard")
    }

    fn children<'a>(&'a self, id: &'a ShardId) -> impl Iterator<Item = &'a Life> {
        self.lives.iter().filter(move |life| life.shard.parents.contains(id))
    }

    fn startable(&self) -> Vec<ShardId> {
        let has_ended = |id: &ShardId| self.rows.get(id).is_none_or(|(next, _)| next.is_none());
        let rows = self.rows.iter().filter(|(_, (next, _))| next.is_some());
        rows.map(|(id, _)| id)
            .filter(|id| self.life(id).shard.parents.iter().all(has_ended))
            .cloned()
            .collect()
    }

    /// A worker reads one shard for some time.
    fn read(&mut self, choice: usize, records: u64) {
        let startable = self.startable();
        let Some(id) = startable.get(choice % startable.len().max(1)).cloned() else { return };
        let life = self.life(&id).clone();
        let Some((Some(next), by_seek)) = self.rows.get(&id).copied() else { return };
        let end = life.ended.unwrap_or(self.now).min(next + records);
        self.delivered.extend((next..end).map(|time| (id.clone(), time)));
        let next = (life.ended != Some(end)).then_some(end);
        if next.is_none() {
            for child in
                self.children(&id).map(|life| (life.shard.id.clone(), life.began)).collect::<Vec<_>>()
            {
                self.rows.entry(child.0).or_insert((Some(child.1), false));
            }
        }
        self.rows.insert(id, (next, by_seek));
    }

    /// Rows of ended shards are deleted when those of their children are there.
    fn clean_up(&mut self) {
        let rows = self.rows.clone();
        let is_done = |id: &ShardId| self.children(id).all(|child| rows.contains_key(&child.shard.id));
        let done: Vec<_> = rows
            .iter()
            .filter(|(id, (next, _))| next.is_none() && is_done(id))
            .map(|(id, _)| id.clone())
            .collect();
        done.iter().for_each(|id| {
            self.rows.remove(id);
        });
    }

    fn leases(&self) -> Vec<Lease> {
        let lease = |(id, (next, _)): (&ShardId, &(Option<u64>, bool))| {
            let checkpoint = match next {
                None => Checkpoint::ShardEnd,
                Some(next) if *next == self.life(id).began => Checkpoint::TrimHorizon,
                Some(next) => at(next - 1),
            };
            Lease::new(id.as_str(), checkpoint)
        };
        self.rows.iter().map(lease).collect()
    }

    fn take(&mut self, step: &SeekStep) {
        match self.rows.get(&step.shard) {
            Some((_, true)) => return,
            None if step.to.is_shard_end() => return,
            _ => {}
        }
        let next = match &step.to {
            Checkpoint::ShardEnd => None,
            Checkpoint::Sequence(at) => {
                Some(at.sequence_number.to_string().parse::<u64>().expect("a time") + 1)
            }
            _ => Some(self.life(&step.shard).began),
        };
        self.rows.insert(step.shard.clone(), (next, true));
    }
}

/// A stream whose shards are split and merged as `choices` say.
fn stream_of(choices: &[(u8, u8)]) -> Play {
    let mut lives = vec![life("0", 0, None, []), life("1", 0, None, [])];
    for (index, (kind, which)) in choices.iter().enumerate() {
        let time = 10 * (index as u64 + 1);
        let open: Vec<usize> = (0..lives.len()).filter(|&index| lives[index].ended.is_none()).collect();
        let first = open[usize::from(*which) % open.len()];
        let second = open[(usize::from(*which) + 1) % open.len()];
        let close = |lives: &mut Vec<Life>, index: usize| {
            lives[index].ended = Some(time);
            lives[index].shard.ending_sequence_number = Some(u128::from(time).into());
            lives[index].shard.id.as_str().to_owned()
        };
        let parent = close(&mut lives, first);
        let next = lives.len();
        if *kind % 2 == 0 || first == second {
            lives.push(life(&next.to_string(), time, None, [parent.as_str()]));
            lives.push(life(&(next + 1).to_string(), time, None, [parent.as_str()]));
        } else {
            let other = close(&mut lives, second);
            lives.push(life(&next.to_string(), time, None, [parent.as_str(), other.as_str()]));
        }
    }
    let rows = [("0".into(), (Some(0), false)), ("1".into(), (Some(0), false))].into();
    let now = 10 * (choices.len() as u64 + 1);
    Play { lives, rows, now, delivered: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the stream went through, wherever its application was, and wherever the seek was interrupted while workers
    /// went on: after it, every record from the target on was delivered, and for the last time after the records that
    /// come before it.
    #[test]
    fn every_record_from_the_target_on_comes_again_in_order(
        choices in prop::collection::vec(any::<(u8, u8)>(), 0..6),
        before in prop::collection::vec((any::<u8>(), 1..25_u64, any::<bool>()), 0..20),
        time in 0..70_u64,
        interrupted_after in any::<prop::sample::Index>(),
        meanwhile in prop::collection::vec((any::<u8>(), 0..25_u64), 32),
    ) {
        let mut play = stream_of(&choices);
        for (choice, records, cleans) in before {
            play.read(choice.into(), records);
            if cleans {
                play.clean_up();
            }
        }
        let time = time % play.now;
        let plan = plan(&play.lives, &play.leases(), time, None);
        play.delivered.clear();
        let mut meanwhile = meanwhile.into_iter().cycle();
        let prefix = interrupted_after.index(plan.steps.len() + 1);
        for step in plan.steps[..prefix].iter().chain(&plan.steps) {
            play.take(step);
            let (choice, records) = meanwhile.next().expect("endless");
            play.read(choice.into(), records);
        }
        for round in 0..10_000 {
            let is_done = |id: &ShardId| play.rows[id].0 == Some(play.now);
            if play.startable().iter().all(is_done) {
                break;
            }
            play.read(round, u64::MAX / 2);
        }
        let last: BTreeMap<(ShardId, u64), usize> =
            play.delivered.iter().cloned().enumerate().map(|(index, record)| (record, index)).collect();
        for life in &play.lives {
            let end = life.ended.unwrap_or(play.now);
            let mut previous = None;
            for instant in life.began.max(time)..end {
                let this = last.get(&(life.shard.id.clone(), instant)).copied();
                prop_assert!(this.is_some(), "{} at {instant} was not delivered; {}", life.shard.id, text(&plan));
                prop_assert!(previous < this, "{} at {instant} is out of order; {}", life.shard.id, text(&plan));
                previous = this;
            }
            let first = last.get(&(life.shard.id.clone(), life.began.max(time)));
            for parent in life.shard.parents.iter().map(|id| play.life(id)) {
                let end = parent.ended.expect("closed");
                if end > time && end > parent.began {
                    let before = last.get(&(parent.shard.id.clone(), end - 1));
                    prop_assert!(first.is_none() || before < first, "{} ran ahead; {}", life.shard.id, text(&plan));
                }
            }
        }
    }
}
