use std::array::from_fn;

use super::kernel::{Block, INITIAL, Kernel, LaneStates, State, compress};
use super::{DIGEST_BYTES, bytes, end_blocks, pad};

/// Up to this many messages are hashed faster one after the other than in lanes.
const ALONE_MAX: usize = 2;

/// The number of groups of lanes processed together; more are not faster.
const GROUPS_MAX: usize = 3;

/// The digests of `messages`, in their order, computed in lanes of `kernel`.
pub(super) fn digests<K: Kernel<L>, const L: usize>(
    kernel: K,
    messages: &[&[u8]],
) -> Vec<[u8; DIGEST_BYTES]> {
    let mut states = vec![INITIAL; messages.len()];
    compress_bodies(kernel, messages, &mut states);
    compress_ends(kernel, messages, &mut states);
    states.into_iter().map(bytes).collect()
}

/// The blocks of a message that are still to be hashed.
struct Message<'a> {
    /// The index of the message.
    at: usize,
    blocks: &'a [Block],
}

/// Compresses the whole blocks of every message into its state.
fn compress_bodies<K: Kernel<L>, const L: usize>(kernel: K, messages: &[&[u8]], states: &mut [State]) {
    // Longest first, so that lanes finish together.
    let mut waiting: Vec<Message<'_>> = (messages.iter().enumerate())
        .map(|(at, message)| Message { at, blocks: message.as_chunks().0 })
        .filter(|message| !message.blocks.is_empty())
        .collect();
    waiting.sort_unstable_by_key(|message| message.blocks.len());
    // As many at a time as leave no small remainder, which would take as long as full lanes.
    let at_once = waiting.len().div_ceil(waiting.len().div_ceil(L * GROUPS_MAX).max(1));
    let mut running: Vec<Message<'_>> = Vec::with_capacity(at_once);
    loop {
        let free = (at_once - running.len()).min(waiting.len());
        running.extend(waiting.drain(waiting.len() - free..));
        if running.len() <= ALONE_MAX {
            break;
        }
        run(kernel, &mut running, states);
        running.retain(|message| !message.blocks.is_empty());
    }
    for message in running {
        compress(&mut states[message.at], message.blocks);
    }
}

/// Compresses the padded ends of all messages into their states.
fn compress_ends<K: Kernel<L>, const L: usize>(kernel: K, messages: &[&[u8]], states: &mut [State]) {
    let mut ends = [[[[0; 64]; 2]; L]; GROUPS_MAX];
    for (messages, states) in messages.chunks(L * GROUPS_MAX).zip(states.chunks_mut(L * GROUPS_MAX)) {
        if messages.len() <= ALONE_MAX {
            for (message, state) in messages.iter().zip(states) {
                compress(state, pad(message, &mut [[0; 64]; 2]));
            }
            continue;
        }
        match messages.len().div_ceil(L) {
            1 => compress_chunk_of_ends::<K, L, 1>(kernel, messages, states, &mut ends),
            2 => compress_chunk_of_ends::<K, L, 2>(kernel, messages, states, &mut ends),
            _ => compress_chunk_of_ends::<K, L, GROUPS_MAX>(kernel, messages, states, &mut ends),
        }
    }
}

fn compress_chunk_of_ends<K: Kernel<L>, const L: usize, const G: usize>(
    kernel: K,
    messages: &[&[u8]],
    states: &mut [State],
    ends: &mut [[[Block; 2]; L]; GROUPS_MAX],
) {
    let mut lane_states: LaneStates<L, G> = [[[0; L]; G]; 4];
    let mut any_has_two = false;
    for (lane, (message, state)) in messages.iter().zip(&*states).enumerate() {
        any_has_two |= pad(message, &mut ends[lane / L][lane % L]).len() == 2;
        put(&mut lane_states, lane, *state);
    }
    let mut blocks: [[&[Block]; L]; G] = [[&[]; L]; G];
    let mut compress = |which: usize, lane_states: &mut LaneStates<L, G>| {
        for (block, end) in blocks.as_flattened_mut().iter_mut().zip(ends.as_flattened()) {
            *block = &end[which..=which];
        }
        kernel.compress(lane_states, &blocks, 1);
    };
    compress(0, &mut lane_states);
    let after_one = lane_states;
    if any_has_two {
        compress(1, &mut lane_states);
    }
    for (lane, (message, state)) in messages.iter().zip(states).enumerate() {
        *state = get(if end_blocks(message) == 2 { &lane_states } else { &after_one }, lane);
    }
}

#[inline]
fn put<const L: usize, const G: usize>(states: &mut LaneStates<L, G>, lane: usize, state: State) {
    for (word, groups) in state.into_iter().zip(states) {
        groups[lane / L][lane % L] = word;
    }
}

#[inline]
fn get<const L: usize, const G: usize>(states: &LaneStates<L, G>, lane: usize) -> State {
    from_fn(|word| states[word][lane / L][lane % L])
}

/// Compresses as many blocks of all `running` messages as the shortest has.
fn run<K: Kernel<L>, const L: usize>(kernel: K, running: &mut [Message<'_>], states: &mut [State]) {
    match running.len().div_ceil(L) {
        1 => run_groups::<K, L, 1>(kernel, running, states),
        2 => run_groups::<K, L, 2>(kernel, running, states),
        _ => run_groups::<K, L, GROUPS_MAX>(kernel, running, states),
    }
}

fn run_groups<K: Kernel<L>, const L: usize, const G: usize>(
    kernel: K,
    running: &mut [Message<'_>],
    states: &mut [State],
) {
    let count = running.iter().map(|message| message.blocks.len()).min().unwrap_or(0);
    let mut lane_states: LaneStates<L, G> = [[[0; L]; G]; 4];
    let mut blocks: [[&[Block]; L]; G] = [[running[0].blocks; L]; G];
    for (lane, message) in running.iter().enumerate() {
        blocks[lane / L][lane % L] = message.blocks;
        put(&mut lane_states, lane, states[message.at]);
    }
    kernel.compress(&mut lane_states, &blocks, count);
    for (lane, message) in running.iter_mut().enumerate() {
        message.blocks = &message.blocks[count..];
        states[message.at] = get(&lane_states, lane);
    }
}
