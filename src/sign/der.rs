//! As much of DER (X.690) as it takes to publish an RSA key.

/// An RSA public key (PKCS #1) as everyone publishes it: RFC 5280 §4.1.2.7.
pub(super) fn subject_public_key_info(public_key: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    /// `rsaEncryption` (1.2.840.113549.1.1.1) with NULL parameters.
    const ALGORITHM: &[u8] = &[
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let bits = der(BIT_STRING, &[&[0], public_key].concat());
    der(SEQUENCE, &[ALGORITHM, &bits].concat())
}

/// One value in DER (X.690 §8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let first = length.iter().take_while(|b| **b == 0).count();
    let digits = &length[first..];
    let mut value = vec![tag];
    match digits {
        [] => value.push(0),
        [short] if *short < 0x80 => value.push(*short),
        long => {
            value.push(0x80 | long.len() as u8);
            value.extend(long);
        }
    }
    value.extend(content);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_der_wants_them() {
        assert_eq!(der(4, &[]), [4, 0]);
        assert_eq!(der(4, &[1; 127])[..2], [4, 127]);
        assert_eq!(der(4, &[1; 128])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[1; 300])[..4], [4, 0x82, 1, 44]);
    }
}
