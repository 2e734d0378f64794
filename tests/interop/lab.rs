//! What all fleets share: Kinesis from this crate's local endpoints, DynamoDB from its vendor.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aws_config::BehaviorVersion;
use kinesis_consumer::testing::LocalAws;
use tokio::process::{Child, Command};

/// What the SDKs want to see, and nobody checks.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// The endpoints.
pub(crate) struct Lab {
    pub(crate) local: LocalAws,
    pub(crate) dynamodb_url: String,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    /// Where the logs of the workers go.
    pub(crate) logs: PathBuf,
    _dynamodb: Child,
}

impl Lab {
    pub(crate) async fn open() -> Self {
        let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop");
        std::fs::create_dir_all(&logs).expect("a directory for logs");
        let local = LocalAws::start().await.expect("a free port");
        let port = free_port();
        let dynamodb_url = format!("http://127.0.0.1:{port}");
        let log = std::fs::File::create(logs.join("dynamodb.log")).expect("a log file");
        let child = java("dynamodb", "com.amazonaws.services.dynamodbv2.local.main.ServerRunner")
            .args(["-inMemory", "-sharedDb", "-disableTelemetry", "-port", &port.to_string()])
            .current_dir(&logs)
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("java");
        let config = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(&dynamodb_url)
            .region("us-east-1")
            .credentials_provider(aws_sdk_dynamodb::config::Credentials::new(
                "test", "test", None, None, "test",
            ))
            .load()
            .await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&config);
        let lab = Self { local, dynamodb_url, dynamodb, logs, _dynamodb: child };
        lab.wait_for_dynamodb().await;
        lab
    }

    async fn wait_for_dynamodb(&self) {
        let answers = async {
            while self.dynamodb.list_tables().send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answers).await.expect("DynamoDB Local starts");
    }
}

/// A Java program of one of the Maven projects beside this file, which `run` has made ready.
pub(crate) fn java(project: &str, class: &str) -> Command {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/java").join(project);
    let classpath = std::fs::read_to_string(project.join("target/classpath"))
        .expect("dependencies as tests/interop/run fetches them");
    let mut command = Command::new("java");
    command
        // Several of them share the machine.
        .args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
        ])
        .arg("-cp")
        .arg(format!("{}:{}", project.join("target/classes").display(), classpath.trim()))
        .arg(class)
        .envs(ENVIRONMENT)
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
