//! Requests of SDKs other than Rust's, and invalid ones.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;

use super::*;
use crate::testing::LocalAws;
use crate::testing::local::cbor::{self, Times};
use crate::testing::local::wire::Wire;

const CBOR: &str = "application/x-amz-cbor-1.1";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

fn request(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Bytes> {
    let request =
        headers.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
    request.body(body.into()).unwrap()
}

async fn send(local: &LocalAws, request: Request<Bytes>) -> Response<Bytes> {
    let (parts, body) = local.endpoints.handle(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// A Kinesis operation in CBOR, as the SDK for Java sends it.
async fn kinesis_cbor(local: &LocalAws, operation: &str, input: Wire) -> (StatusCode, Wire) {
    let target = format!("Kinesis_20131202.{operation}");
    let body = cbor::encode(&input, Times::Milliseconds);
    let response = send(local, request(&[("content-type", CBOR), ("x-amz-target", &target)], body)).await;
    assert_eq!(response.headers()["content-type"], CBOR);
    assert!(response.headers().contains_key("x-amzn-requestid"));
    (response.status(), cbor::decode(response.body(), Times::Milliseconds).unwrap())
}

#[tokio::test]
async fn a_record_travels_in_cbor() {
    let local = LocalAws::start().await.unwrap();
    local.kinesis().create_stream("s", 1).unwrap();
    let put = Wire::map([
        ("StreamName", "s".into()),
        ("PartitionKey", "k".into()),
        ("Data", Wire::Bytes(Bytes::from_static(b"\x00\xff"))),
    ]);
    let (_, placed) = kinesis_cbor(&local, "PutRecord", put).await;
    let get = Wire::map([
        ("StreamName", "s".into()),
        ("ShardId", placed.required_text("ShardId").unwrap().into()),
        ("ShardIteratorType", "AT_TIMESTAMP".into()),
        ("Timestamp", std::time::SystemTime::UNIX_EPOCH.into()),
    ]);
    let (_, iterator) = kinesis_cbor(&local, "GetShardIterator", get).await;
    let iterator = iterator.required_text("ShardIterator").unwrap();
    let get = Wire::map([("ShardIterator", iterator.into()), ("Limit", Wire::Integer(10))]);
    let (status, page) = kinesis_cbor(&local, "GetRecords", get).await;
    assert_eq!(status, StatusCode::OK);
    let [record] = page.items("Records").unwrap() else { panic!("{page:?}") };
    assert_eq!(record.bytes("Data").unwrap().as_deref(), Some(&b"\x00\xff"[..]));
    assert_eq!(record.text("SequenceNumber").unwrap(), placed.text("SequenceNumber").unwrap());
    let arrival = record.time("ApproximateArrivalTimestamp").unwrap().unwrap();
    assert!(local.endpoints.clock.wall().duration_since(arrival).unwrap().as_secs() < 60);
}

#[tokio::test]
async fn an_error_travels_in_cbor() {
    let local = LocalAws::start().await.unwrap();
    let (status, error) =
        kinesis_cbor(&local, "DescribeStreamSummary", Wire::map([("StreamName", "nope".into())])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error.text("__type").unwrap(), Some("ResourceNotFoundException"));
}

#[tokio::test]
async fn metrics_arrive_as_form_fields_and_as_json() {
    let local = LocalAws::start().await.unwrap();
    let form = "Action=PutMetricData&Version=2010-08-01&Namespace=app&MetricData.member.1.MetricName=m\
                &MetricData.member.1.Value=2&MetricData.member.1.Timestamp=2026-11-20T20%3A00%3A00Z";
    let response =
        send(&local, request(&[("content-type", "application/x-www-form-urlencoded")], form)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let json = r#"{"Namespace":"app","MetricData":[{"MetricName":"m","Value":3,"Timestamp":1795204800}]}"#;
    let target = [("x-amz-target", "GraniteServiceVersion20100801.PutMetricData")];
    assert_eq!(send(&local, request(&target, json)).await.status(), StatusCode::OK);
    let [one, other] = &local.metrics()[..] else { panic!("{:?}", local.metrics()) };
    assert_eq!((one.sum, other.sum), (2.0, 3.0));
    assert_eq!(one.timestamp, other.timestamp);
    assert_eq!(local.requests()["cloudwatch:PutMetricData"], 2);
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

/// Sends form fields and returns the status and the body.
async fn form(local: &LocalAws, fields: &str) -> (StatusCode, String) {
    let response = send(local, request(&[("content-type", FORM)], fields.to_owned())).await;
    (response.status(), text(&response))
}

#[tokio::test]
async fn metrics_are_read_with_form_fields() {
    let local = LocalAws::start().await.unwrap();
    for (value, minute) in [(2, 0), (4, 0), (7, 5)] {
        let put = format!(
            "Action=PutMetricData&Version=2010-08-01&Namespace=a%26b&MetricData.member.1.MetricName=m\
             &MetricData.member.1.Dimensions.member.1.Name=d&MetricData.member.1.Dimensions.member.1.Value=v\
             &MetricData.member.1.Value={value}&MetricData.member.1.Unit=Count\
             &MetricData.member.1.Timestamp=2026-11-20T20%3A0{minute}%3A30Z"
        );
        assert_eq!(form(&local, &put).await.0, StatusCode::OK);
    }
    let (status, listed) = form(&local, "Action=ListMetrics&Version=2010-08-01&MetricName=m").await;
    assert_eq!(status, StatusCode::OK);
    let metric = "<ListMetricsResult><Metrics><member><Namespace>a&amp;b</Namespace><MetricName>m</MetricName>\
                  <Dimensions><member><Name>d</Name><Value>v</Value></member></Dimensions></member></Metrics>\
                  </ListMetricsResult>";
    assert!(listed.contains(metric), "{listed}");
    let range = "Namespace=a%26b&MetricName=m&Dimensions.member.1.Name=d&Dimensions.member.1.Value=v&Period=60\
                 &StartTime=2026-11-20T20%3A00%3A00Z&EndTime=2026-11-20T21%3A00%3A00Z";
    let query = format!(
        "Action=GetMetricStatistics&Version=2010-08-01&{range}&Statistics.member.1=Sum&Statistics.member.2=Maximum"
    );
    let (status, read) = form(&local, &query).await;
    assert_eq!(status, StatusCode::OK, "{read}");
    for datapoint in [
        "<Timestamp>2026-11-20T20:00:00.000Z</Timestamp><Sum>6</Sum><Maximum>4</Maximum><Unit>Count</Unit>",
        "<Timestamp>2026-11-20T20:05:00.000Z</Timestamp><Sum>7</Sum><Maximum>7</Maximum><Unit>Count</Unit>",
    ] {
        assert!(read.contains(datapoint), "{read}");
    }
    let query = "Action=GetMetricData&Version=2010-08-01&StartTime=2026-11-20T20%3A00%3A00Z\
                 &EndTime=2026-11-20T21%3A00%3A00Z&MetricDataQueries.member.1.Id=q\
                 &MetricDataQueries.member.1.MetricStat.Metric.Namespace=a%26b\
                 &MetricDataQueries.member.1.MetricStat.Metric.MetricName=m\
                 &MetricDataQueries.member.1.MetricStat.Metric.Dimensions.member.1.Name=d\
                 &MetricDataQueries.member.1.MetricStat.Metric.Dimensions.member.1.Value=v\
                 &MetricDataQueries.member.1.MetricStat.Period=60&MetricDataQueries.member.1.MetricStat.Stat=Sum";
    let (status, read) = form(&local, query).await;
    assert_eq!(status, StatusCode::OK, "{read}");
    assert!(read.contains("<Values><member>7</member><member>6</member></Values>"), "{read}");
}

#[tokio::test]
async fn sts_says_who_the_caller_is() {
    let local = LocalAws::start().await.unwrap();
    let account = "<GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/local</Arn>";
    let (status, identity) = form(&local, "Action=GetCallerIdentity&Version=2011-06-15").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        identity.contains(account) && identity.contains("https://sts.amazonaws.com/doc/2011-06-15/"),
        "{identity}"
    );
    let get = Request::get("/?Action=GetCallerIdentity&Version=2011-06-15").body(Bytes::new()).unwrap();
    let signed = "AWS4-HMAC-SHA256 Credential=local/20261120/us-east-1/sts/aws4_request, SignedHeaders=host";
    let headers = [("content-type", FORM), ("authorization", signed)];
    for request in [get, request(&headers, "Action=GetCallerIdentity")] {
        let response = send(&local, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(text(&response).contains(account), "{response:?}");
    }
    assert_eq!(local.requests()["sts:GetCallerIdentity"], 3);
}

#[tokio::test]
async fn a_refusal_names_the_operation() {
    let local = LocalAws::start().await.unwrap();
    for (fields, named) in [
        ("Action=PutDashboard&Version=2010-08-01", "CloudWatch operation PutDashboard"),
        ("Action=AssumeRole&Version=2011-06-15", "STS operation AssumeRole"),
        ("Action=SendMessage&Version=2012-11-05", "operation SendMessage of an API of version 2012-11-05"),
    ] {
        let (status, refusal) = form(&local, fields).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(refusal.contains("<Code>InvalidAction</Code>") && refusal.contains(named), "{refusal}");
    }
    for (target, named) in [
        ("Kinesis_20131202.UpdateAccountSettings", "Kinesis operation UpdateAccountSettings"),
        ("GraniteServiceVersion20100801.PutDashboard", "CloudWatch operation PutDashboard"),
        ("Logs_20140328.CreateLogGroup", "no service Logs_20140328 for CreateLogGroup"),
    ] {
        let response = send(&local, request(&[("x-amz-target", target)], "{}")).await;
        assert!(response.status().is_client_error());
        assert!(text(&response).contains(named), "{response:?}");
    }
}

#[tokio::test]
async fn invalid_requests_are_refused() {
    let local = LocalAws::start().await.unwrap();
    let target = ("x-amz-target", "Kinesis_20131202.ListShards");
    let gzip = ("content-encoding", "gzip");
    for (headers, body, status) in [
        (&[][..], "", StatusCode::NOT_FOUND),
        (&[("x-amz-target", "Lambda.Invoke")], "{}", StatusCode::NOT_FOUND),
        (&[("x-amz-target", "Kinesis_20131202.Unknown")], "{}", StatusCode::BAD_REQUEST),
        (&[target], "{", StatusCode::BAD_REQUEST),
        (&[target], "[]", StatusCode::BAD_REQUEST),
        (&[target], r#"{"StreamName":7}"#, StatusCode::BAD_REQUEST),
        (&[target, ("content-type", CBOR)], "\u{7f}", StatusCode::BAD_REQUEST),
        (&[target, gzip], "{}", StatusCode::BAD_REQUEST),
    ] {
        let response = send(&local, request(headers, body)).await;
        assert_eq!(response.status(), status, "{headers:?} {body}");
    }
}

#[tokio::test]
async fn a_small_body_cannot_unpack_into_a_huge_one() {
    let local = LocalAws::start().await.unwrap();
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![b' '; BODY_BYTES_MAX + 1]).unwrap();
    let headers = [("x-amz-target", "Kinesis_20131202.ListStreams"), ("content-encoding", "gzip")];
    let response = send(&local, request(&headers, bomb.finish().unwrap())).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn http_2_is_spoken_without_tls() {
    let local = LocalAws::start().await.unwrap();
    let client =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(local.endpoint_url())
        .header("x-amz-target", "Kinesis_20131202.ListStreams")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!((response.version(), response.status()), (hyper::Version::HTTP_2, StatusCode::OK));
}
