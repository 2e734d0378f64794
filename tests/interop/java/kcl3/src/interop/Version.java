package interop;

import java.lang.reflect.Field;
import java.util.Map;
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.CoordinatorConfig.ClientVersionConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.coordinator.migration.MigrationStateMachineImpl;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.leases.LeaseManagementConfig.GracefulLeaseHandoffConfig;

/** What only 3.x has. The times are those that Rust workers derive from the failover time. */
final class Version {
    static void configure(LeaseManagementConfig leases, CoordinatorConfig coordinator, Map<String, String> options) {
        long failover = leases.failoverTimeMillis();
        boolean is2x = options.getOrDefault("mode", "leader").equals("compatible-with-2x");
        coordinator.clientVersionConfig(
                is2x
                        ? ClientVersionConfig.CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X
                        : ClientVersionConfig.CLIENT_VERSION_CONFIG_3X);
        coordinator.migrateAllEntitiesToLeaseTable(true);
        leases.shardSyncIntervalMillis(5000)
                .leasesRecoveryAuditorExecutionFrequencyMillis(5000)
                .dynamoDbLockBasedLeaderLeaseDurationInMillis(2 * failover)
                .dynamoDbLockBasedLeaderHeartbeatPeriodInMillis(failover / 2)
                .gracefulLeaseHandoffConfig(GracefulLeaseHandoffConfig.builder()
                        .gracefulLeaseHandoffTimeoutMillis(10_000)
                        .isGracefulLeaseHandoffEnabled(true)
                        .build());
        // The first report must come soon: a worker without a report gets no leases. The processors do next to
        // nothing, so that the CPU of a shared machine would say more of others than of the workers.
        leases.workerUtilizationAwareAssignmentConfig()
                .workerMetricsReporterFreqInMillis(2000)
                .disableWorkerMetrics(true);
    }

    /** As the library comes, but for what depends on the machine that all workers share. */
    static void configureDefaults(LeaseManagementConfig leases, CoordinatorConfig coordinator) {
        coordinator.migrateAllEntitiesToLeaseTable(true);
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
    }

    /** For how long a fleet must be ready before it is run by a leader is ten minutes, and no setting. */
    static void adjust(Scheduler scheduler) throws ReflectiveOperationException {
        Field machine = Scheduler.class.getDeclaredField("migrationStateMachine");
        machine.setAccessible(true);
        Field stable = MigrationStateMachineImpl.class.getDeclaredField("flipTo3XStabilizerTimeInSeconds");
        stable.setAccessible(true);
        stable.setLong(machine.get(scheduler), 30);
    }

    private Version() {}
}
