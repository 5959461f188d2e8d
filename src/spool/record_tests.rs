//! A record is what was written, whole, or none.

use bytes::Bytes;

use super::*;

const SEAL: Seal = Seal {
    generation: 7,
    salt: 0xfeed,
};

fn written(seal: Seal) -> Vec<u8> {
    let id = SpoolId {
        session: SessionId(1),
        serial: 2,
    };
    let content = Content::from(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n"));
    let mut draft = Draft::note(Kind::Hold, id, &"because");
    draft.kind = Kind::Accept;
    draft.body_checksum = checksum(&content);
    draft.body = Body::Here(content);
    let mut bytes = draft.frame(seal, 9, 1, End::OfBatch).to_vec();
    draft.parts().for_each(|part| bytes.extend_from_slice(part));
    bytes.resize(draft.length(), 0);
    bytes
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let bytes = written(SEAL);
    let record = Record::read(&bytes, SEAL).unwrap();
    assert_eq!(record.frame.length(), bytes.len());
    assert_eq!(record.frame.sequence, 9);
    assert_eq!(record.frame.batch(), 8);
    assert_eq!(record.frame.end, End::OfBatch);
    assert_eq!(record.parse::<String>().unwrap(), "because");
}

#[test]
fn a_record_with_any_octet_changed_or_missing_is_none() {
    let bytes = written(SEAL);
    let padding = bytes.len() - 48 - 9 - 20;
    for at in 0..bytes.len() - padding {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        assert!(Record::read(&broken, SEAL).is_none(), "octet {at} changed");
        assert!(Record::read(&bytes[..at], SEAL).is_none(), "cut at {at}");
    }
}

#[test]
fn a_record_of_another_generation_or_salt_is_none() {
    for (generation, salt) in [(6, SEAL.salt), (SEAL.generation, 1)] {
        let bytes = written(Seal { generation, salt });
        assert!(Record::read(&bytes, SEAL).is_none());
    }
}
