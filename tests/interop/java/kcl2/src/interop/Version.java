package interop;

import java.util.Map;
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;

/** What only 2.x has: nothing. */
final class Version {
    static void configure(LeaseManagementConfig leases, CoordinatorConfig coordinator, Map<String, String> options) {
        leases.shardSyncIntervalMillis(5000).leasesRecoveryAuditorExecutionFrequencyMillis(5000);
        leases.maxLeasesToStealAtOneTime(4);
    }

    static void configureDefaults(LeaseManagementConfig leases, CoordinatorConfig coordinator) {}

    static void adjust(Scheduler scheduler) {}

    private Version() {}
}
