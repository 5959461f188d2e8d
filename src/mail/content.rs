//! A message as bytes: the fields we put in front of it, and what the client sent, uncopied.
//!
//! The client's bytes stand in one buffer from the network to the disk and to the next hop. A field
//! that is taken out is a gap between two slices of that buffer; nothing is moved.

use std::ops::Range;

use bytes::Bytes;

use super::headers;

/// The whole message, header and body, every line ended by CRLF, without dot-stuffing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    chunks: Vec<Bytes>,
}

impl Content {
    /// What the client sent, less the byte ranges in `removed` (in order, not overlapping, inside
    /// `received`), with `prefix` in front.
    pub fn assemble(prefix: Bytes, received: &Bytes, removed: &[Range<usize>]) -> Content {
        let mut chunks = Vec::with_capacity(removed.len() + 2);
        chunks.push(prefix);
        let mut at = 0;
        for gap in removed {
            chunks.push(received.slice(at..gap.start));
            at = gap.end;
        }
        chunks.push(received.slice(at..));
        chunks.retain(|chunk| !chunk.is_empty());
        Content { chunks }
    }

    /// These, one behind the other. Copies nothing.
    pub fn join(pieces: impl IntoIterator<Item = Content>) -> Content {
        let chunks = pieces.into_iter().flat_map(|piece| piece.chunks).collect();
        Content { chunks }
    }

    /// The header without the empty line behind it; of one longer than `most` octets, the fields that
    /// are within.
    pub fn header(&self, most: usize) -> Vec<u8> {
        let mut read = Vec::new();
        for chunk in self.chunks() {
            read.extend_from_slice(&chunk[..chunk.len().min(most - read.len())]);
        }
        let mut fields = headers::fields(&read);
        let last = fields.by_ref().last();
        let end = match last {
            // The last field may go on behind what was read.
            Some(last) if last.range.end == read.len() && read.len() < self.len() => {
                last.range.start
            }
            Some(_) | None => fields.position(),
        };
        read.truncate(end);
        read
    }

    /// The same with `prefix` in front.
    pub fn behind(mut self, prefix: Bytes) -> Content {
        if !prefix.is_empty() {
            self.chunks.insert(0, prefix);
        }
        self
    }

    /// The bytes in order. No chunk is empty.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Bytes::as_ref)
    }

    /// Its size in octets.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The bytes in one piece. Copies where they are in several.
    pub fn to_bytes(&self) -> Bytes {
        match self.chunks.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        Content::assemble(Bytes::new(), &bytes, &[])
    }
}

/// `text` without the white space and empty lines at its end.
pub fn without_blank_end(text: &[u8]) -> &[u8] {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
    let end = text.iter().rposition(|octet| !is_blank(octet));
    &text[..end.map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_before_the_empty_line_or_behind_the_last_field_that_fits() {
        let pieces = ["A: 1\r\nB: ", "2\r\n 3\r\n", "\r\nC: body\r\n"];
        let pieces = pieces.map(|piece| Content::from(Bytes::from_static(piece.as_bytes())));
        let content = Content::join(pieces);
        let whole = "A: 1\r\nB: 2\r\n 3\r\n";
        for (most, want) in [
            (1000, whole),
            (whole.len() + 2, whole),
            (whole.len(), "A: 1\r\n"),
            (8, "A: 1\r\n"),
            (0, ""),
        ] {
            assert_eq!(content.header(most), want.as_bytes(), "{most}");
        }
        let no_header = Content::from(Bytes::from_static(b"\r\nbody\r\n"));
        assert_eq!(no_header.header(1000), b"");
    }

    #[test]
    fn removed_ranges_leave_no_trace() {
        let received = Bytes::from_static(b"A: 1\r\nB: 2\r\nC: 3\r\n\r\nbody\r\n");
        for (removed, want) in [
            (vec![], "X: 0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\nbody\r\n"),
            (vec![0..6, 6..6], "X: 0\r\nB: 2\r\nC: 3\r\n\r\nbody\r\n"),
            (vec![0..6, 12..18], "X: 0\r\nB: 2\r\n\r\nbody\r\n"),
        ] {
            let content = Content::assemble(Bytes::from_static(b"X: 0\r\n"), &received, &removed);
            assert_eq!(content.to_bytes(), want.as_bytes(), "{removed:?}");
            assert_eq!(content.len(), want.len(), "{removed:?}");
        }
    }
}
