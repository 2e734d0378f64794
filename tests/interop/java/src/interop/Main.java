package interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.retrieval.RetrievalSpecificConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A worker of Amazon's library that reports its callbacks as JSON, one object per line. Takes the same options, as
 * {@code --name value}, and the same commands on its standard input as the Rust worker: {@code stop} stops it
 * gracefully, and so does the end of the input.
 */
public final class Main {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            options.put(arguments[i].substring(2), arguments[i + 1]);
        }
        String stream = options.get("stream");
        String application = options.get("application");
        String worker = options.get("worker");
        long failover = Long.parseLong(options.get("failover-ms"));
        boolean fanOut = options.get("retrieval").equals("fan-out");

        StaticCredentialsProvider credentials =
                StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        // Polling goes over HTTP/1.1. SubscribeToShard needs HTTP/2, which the SDK speaks without TLS to an
        // endpoint that starts with http:, in the way called "prior knowledge".
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
                .credentialsProvider(credentials)
                .region(Region.US_EAST_1)
                .endpointOverride(URI.create(options.get("kinesis")))
                .httpClientBuilder(NettyNioAsyncHttpClient.builder()
                        .maxConcurrency(100)
                        .protocol(fanOut ? Protocol.HTTP2 : Protocol.HTTP1_1))
                .build();
        DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder()
                .credentialsProvider(credentials)
                .region(Region.US_EAST_1)
                .endpointOverride(URI.create(options.get("dynamodb")))
                .build();
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .credentialsProvider(credentials)
                .region(Region.US_EAST_1)
                .endpointOverride(URI.create(options.get("kinesis")))
                .build();

        Journal journal = new Journal(worker);
        long stopAfter = Long.parseLong(options.getOrDefault("stop-after", "0"));
        ConfigsBuilder configs = new ConfigsBuilder(
                stream, application, kinesis, dynamo, cloudWatch, worker, () -> new Processor(journal, stopAfter));

        LeaseManagementConfig leases = configs.leaseManagementConfig()
                .failoverTimeMillis(failover)
                .metricsFactory(new NullMetricsFactory());
        RetrievalSpecificConfig retrieval = fanOut
                ? new FanOutConfig(kinesis).streamName(stream).applicationName(application)
                : new PollingConfig(stream, kinesis);
        var coordinator = configs.coordinatorConfig().parentShardPollIntervalMillis(2000);
        if (!options.containsKey("defaults")) {
            Version.configure(leases, coordinator, options);
        } else {
            Version.configureDefaults(leases, coordinator);
        }

        Scheduler scheduler = new Scheduler(
                configs.checkpointConfig(),
                coordinator,
                leases,
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig()
                        .initialPositionInStreamExtended(InitialPositionInStreamExtended.newInitialPosition(
                                InitialPositionInStream.TRIM_HORIZON))
                        .retrievalSpecificConfig(retrieval));
        Version.adjust(scheduler);
        Thread running = new Thread(scheduler, "scheduler");
        running.start();
        journal.report("started");

        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        String command = commands.readLine();
        journal.report(command == null ? "orphaned" : "stopping");
        scheduler.startGracefulShutdown().get(80, TimeUnit.SECONDS);
        journal.report("stopped");
        Runtime.getRuntime().halt(0);
    }

    private Main() {}
}
