package interop;

import java.nio.charset.StandardCharsets;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/** Reports each record and checkpoints each batch, or dies on purpose after a number of records. */
final class Processor implements ShardRecordProcessor {
    private final Journal journal;
    private final long stopAfter;
    private long processed;
    private String shard;

    Processor(Journal journal, long stopAfter) {
        this.journal = journal;
        this.stopAfter = stopAfter;
    }

    @Override
    public void initialize(InitializationInput input) {
        shard = input.shardId();
        var position = input.extendedSequenceNumber();
        journal.report("initialize", shard, position.sequenceNumber(), position.subSequenceNumber());
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
        KinesisClientRecord last = null;
        for (KinesisClientRecord record : input.records()) {
            String[] text = StandardCharsets.UTF_8.decode(record.data()).toString().split(":", 3);
            journal.tellRecord(shard, record.sequenceNumber(), record.subSequenceNumber(), text[0], text[1]);
            last = record;
            processed++;
            if (processed == stopAfter) {
                checkpoint(input.checkpointer(), last);
                journal.report("died");
                Runtime.getRuntime().halt(3);
            }
        }
        if (last != null) {
            checkpoint(input.checkpointer(), last);
        }
    }

    private void checkpoint(RecordProcessorCheckpointer checkpointer, KinesisClientRecord record) {
        journal.report("checkpointing", shard, record.sequenceNumber(), record.subSequenceNumber());
        try {
            checkpointer.checkpoint(record.sequenceNumber(), record.subSequenceNumber());
            journal.report("checkpointed", shard, record.sequenceNumber(), record.subSequenceNumber());
        } catch (Exception e) {
            journal.report("checkpoint-failed", shard);
            System.err.println("checkpoint of " + shard + ": " + e);
        }
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
        journal.report("lease-lost", shard);
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
        journal.report("checkpointing", shard, "SHARD_END", 0);
        try {
            input.checkpointer().checkpoint();
            journal.report("checkpointed", shard, "SHARD_END", 0);
        } catch (Exception e) {
            journal.report("checkpoint-failed", shard);
            System.err.println("end of " + shard + ": " + e);
        }
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
        journal.report("shutdown-requested", shard);
    }
}
