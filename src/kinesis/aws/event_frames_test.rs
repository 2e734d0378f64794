use super::*;

fn header(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut header = vec![u8::try_from(name.len()).expect("short")];
    header.extend_from_slice(name.as_bytes());
    header.push(kind);
    if kind == 6 || kind == 7 {
        header.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
    }
    header.extend_from_slice(value);
    header
}

fn encode(headers: &[Vec<u8>], payload: &[u8]) -> Vec<u8> {
    let headers = headers.concat();
    let len = PRELUDE_LEN + headers.len() + payload.len() + CHECKSUM_LEN;
    let mut frame = u32::try_from(len).expect("short").to_be_bytes().to_vec();
    frame.extend_from_slice(&u32::try_from(headers.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

fn event(payload: &[u8]) -> Vec<u8> {
    let headers = [
        header(":event-type", 7, b"SubscribeToShardEvent"),
        header(":message-type", 7, b"event"),
        header(":content-type", 7, b"application/cbor"),
    ];
    encode(&headers, payload)
}

/// The payloads of the frames in `body` if it arrives in pieces of `piece` bytes.
fn payloads(body: &[u8], piece: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut reader = FrameReader::default();
    let mut payloads = Vec::new();
    for piece in body.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(frame) = reader.next()? {
            assert_eq!(frame.kind, FrameKind::Event("SubscribeToShardEvent".to_owned()));
            payloads.push(frame.payload);
        }
    }
    assert!(reader.is_empty(), "something is left");
    Ok(payloads)
}

#[test]
fn frames_are_found_however_the_body_is_cut_into_pieces() {
    let expected = [&b"one"[..], b"", &[7; 5000], b"four"];
    let body: Vec<u8> = expected.iter().flat_map(|payload| event(payload)).collect();
    for piece in (1..100).chain([4096, 5150, body.len()]) {
        assert_eq!(payloads(&body, piece).expect("frames"), expected, "pieces of {piece}");
    }
}

#[test]
fn a_frame_within_a_piece_is_not_copied() {
    let body = Bytes::from([event(b"one"), event(b"two")].concat());
    let mut reader = FrameReader::default();
    reader.push(body.clone());
    for _ in 0..2 {
        let frame = reader.next().expect("valid").expect("whole");
        assert!(body.as_ptr_range().contains(&frame.payload.as_ptr()));
    }
    assert_eq!(reader.next(), Ok(None));
}

#[test]
fn every_changed_byte_is_noticed() {
    let body = event(b"payload");
    for at in 0..body.len() {
        let mut changed = body.clone();
        changed[at] ^= 1;
        assert_eq!(payloads(&changed, 1000), Err(FrameError::Checksum), "byte {at}");
    }
}

#[test]
fn a_cut_frame_is_never_a_frame() {
    let body = event(b"payload");
    for len in 1..body.len() {
        let mut reader = FrameReader::default();
        reader.push(Bytes::copy_from_slice(&body[..len]));
        assert_eq!(reader.next(), Ok(None), "{len} bytes");
        assert!(!reader.is_empty());
    }
}

#[test]
fn impossible_lengths_are_refused_before_anything_is_reserved() {
    for (len, headers_len) in [(0, 0), (15, 0), (16, 1), (u32::MAX, 0), (40, 25), (25 << 20, 0)] {
        let mut prelude = [len.to_be_bytes(), u32::to_be_bytes(headers_len)].concat();
        prelude.extend_from_slice(&crc32fast::hash(&prelude).to_be_bytes());
        let mut reader = FrameReader::default();
        reader.push(prelude.into());
        assert_eq!(reader.next(), Err(FrameError::Length), "{len} {headers_len}");
    }
}

#[test]
fn failures_are_told_apart_from_events_and_unknown_headers_are_skipped() {
    let kind = |headers: &[Vec<u8>]| {
        let mut reader = FrameReader::default();
        reader.push(encode(headers, b"{}").into());
        reader.next().map(|frame| frame.expect("whole").kind)
    };
    let others = [
        header("a", 0, &[]),
        header("b", 2, &[1]),
        header("c", 3, &[1; 2]),
        header("d", 4, &[1; 4]),
        header("e", 8, &[1; 8]),
        header("f", 6, b"bytes"),
        header("g", 9, &[1; 16]),
        header("h", 7, b"\xff"),
    ];
    let exception = [
        header(":exception-type", 7, b"ResourceInUseException"),
        others.concat(),
        header(":message-type", 7, b"exception"),
    ];
    assert_eq!(kind(&exception), Ok(FrameKind::Exception("ResourceInUseException".to_owned())));
    let error = [
        header(":message-type", 7, b"error"),
        header(":error-code", 7, b"InternalError"),
        header(":error-message", 7, b"again later"),
    ];
    let expected = FrameKind::Error("InternalError".to_owned(), "again later".to_owned());
    assert_eq!(kind(&error), Ok(expected));
    for unreadable in [
        vec![],
        vec![header(":message-type", 7, b"greeting")],
        vec![header(":message-type", 4, &[1; 4])],
        vec![header(":message-type", 7, b"event"), vec![200]],
        vec![header(":message-type", 7, b"event"), header("x", 33, b"?")],
    ] {
        assert_eq!(kind(&unreadable), Err(FrameError::Headers), "{unreadable:?}");
    }
}

#[test]
fn arbitrary_bytes_do_not_panic() {
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..20_000 {
        let mut headers: Vec<u8> = header(":message-type", 7, b"event");
        let len = random.usize(..40);
        headers.extend(std::iter::repeat_with(|| random.u8(..)).take(len));
        let mut reader = FrameReader::default();
        reader.push(encode(&[headers], b"x").into());
        while let Ok(Some(_)) = reader.next() {}
    }
}
