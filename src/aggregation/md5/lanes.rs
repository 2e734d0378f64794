use super::kernel::{Block, Kernel, LaneStates, State, compress};
use super::{Message, pad};

/// At most so many messages are better hashed one after the other than in lanes.
const ALONE_MAX: usize = 2;

/// Groups of lanes worked on at the same time; more would not make it faster.
const GROUPS_MAX: usize = 3;

/// Takes the whole blocks of every message into its state, in lanes of `kernel`.
pub(super) fn compress_bodies<K: Kernel<L>, const L: usize>(
    kernel: K,
    messages: &[&[u8]],
    states: &mut [State],
) {
    // Longest first, so that lanes run dry together.
    let mut waiting: Vec<Message<'_>> = super::bodies(messages).collect();
    waiting.sort_unstable_by_key(|message| message.blocks.len());
    let mut running: Vec<Message<'_>> = Vec::with_capacity(L * GROUPS_MAX);
    loop {
        let free = (L * GROUPS_MAX - running.len()).min(waiting.len());
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

/// Takes the padded ends of all messages into their states, in lanes of `kernel`.
pub(super) fn compress_ends<K: Kernel<L>, const L: usize>(
    kernel: K,
    messages: &[&[u8]],
    states: &mut [State],
) {
    let mut ends = vec![[[0; 64]; 2]; messages.len().min(L * GROUPS_MAX)];
    for first in (0..messages.len()).step_by(L * GROUPS_MAX) {
        let chunk = messages[first..].iter().take(L * GROUPS_MAX);
        let mut running: Vec<Message<'_>> = (ends.iter_mut().zip(chunk).enumerate())
            .map(|(index, (end, message))| Message { at: first + index, blocks: pad(message, end) })
            .collect();
        while running.len() > ALONE_MAX {
            run(kernel, &mut running, states);
            running.retain(|message| !message.blocks.is_empty());
        }
        for message in running {
            compress(&mut states[message.at], message.blocks);
        }
    }
}

/// Takes as many blocks of all `running` messages into their states as the shortest has.
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
    for (index, message) in running.iter().enumerate() {
        blocks[index / L][index % L] = message.blocks;
        for (words, word) in lane_states.iter_mut().zip(states[message.at]) {
            words[index / L][index % L] = word;
        }
    }
    kernel.compress(&mut lane_states, &blocks, count);
    for (index, message) in running.iter_mut().enumerate() {
        message.blocks = &message.blocks[count..];
        states[message.at] = lane_states.map(|words| words[index / L][index % L]);
    }
}
