package interop;

import java.time.Instant;
import java.time.temporal.ChronoUnit;

/** Reports what happens as JSON on the standard output, one object per line. */
final class Journal {
    private final String worker;

    Journal(String worker) {
        this.worker = worker;
    }

    void report(String event) {
        print(event, "");
    }

    void report(String event, String shard) {
        print(event, ",\"shard\":\"" + shard + '"');
    }

    /** A position: {@code sequence} is a number or a sentinel. */
    void report(String event, String shard, String sequence, long sub) {
        print(event, ",\"shard\":\"" + shard + "\",\"sequence\":\"" + sequence + "\",\"sub\":" + sub);
    }

    void tellRecord(String shard, String sequence, long sub, String key, String number) {
        print(
                "record",
                ",\"shard\":\"" + shard + "\",\"sequence\":\"" + sequence + "\",\"sub\":" + sub + ",\"key\":\"" + key
                        + "\",\"number\":" + number);
    }

    private synchronized void print(String event, String rest) {
        long at = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
        System.out.println("{\"at\":" + at + ",\"worker\":\"" + worker + "\",\"event\":\"" + event + '"' + rest + '}');
        System.out.flush();
    }
}
